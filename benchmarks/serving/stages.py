"""Where the time of a request goes: one gateway in this process, without HTTP, and its stages by themselves.

Run by scripts/make_performance_page.py, as `python -m benchmarks.serving.stages`; it prints JSON. All
times are processor time of this process (`time.process_time_ns`), in microseconds for one request, the least
of several repetitions: what else the machine does can only add to them.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from benchmarks.serving import load
from benchmarks.serving.contenders import bare
from benchmarks.serving.subject import ENDPOINT, NAMES, Question, Subject, binary, make, open_inference, plain

from trimtab.config import Settings
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.runtimes.predictor import load_predictor
from trimtab.serving.access import access_for
from trimtab.serving.application import Gateway
from trimtab.serving.frames import RowFrame, encoded
from trimtab.serving.http_messages import Message
from trimtab.serving.loaded_endpoints import EndpointTable, LoadedEndpoint
from trimtab.serving.open_inference import InferResponse, OutputTensor
from trimtab.serving.open_inference_requests import read_request
from trimtab.serving.open_inference_tensors import rows_of
from trimtab.serving.plain_json import PredictRequest, PredictResponse
from trimtab.serving.prediction_ids import SECRET_BYTES, PredictionIds, row_ids
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.requests import decoded, event_time
from trimtab.serving.routes import single
from trimtab.serving.segments import Limits, SegmentWriter
from trimtab.serving.state import State, View
from trimtab.store.types import from_microseconds

REPETITIONS = 15
CALLS = 1_000
TOGETHER = (1, 4, 16, 64, 256)
HTTP_SECONDS = 3.0
HTTP_TURNS = 5


class Part(msgspec.Struct, frozen=True):
    """A stage and its microseconds."""

    name: str
    time: float


class Protocol(msgspec.Struct, frozen=True):
    """A request alone in one protocol: all of it without HTTP, and its stages."""

    name: str
    whole: float
    parts: list[Part]


class Company(msgspec.Struct, frozen=True):
    """Requests that are ready together: how many, the time of each without HTTP, and of its share of the
    model call and of the write of the log."""

    together: int
    request: float
    model: float
    write: float


class Profile(msgspec.Struct, frozen=True):
    """All of it. `http`: the gateway's HTTP with nothing behind it, for each request over 16 connections."""

    http: float | None
    protocols: list[Protocol]
    company: list[Company]
    batches: list[Part]


class Worker:
    """What a gateway worker holds, but for HTTP, the watcher and the shipper."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        taken = inputs(pl.DataFrame(subject.matrix, schema=NAMES))
        Model.onnx(subject.model_file("onnx").read_bytes(), taken, target="y").save(folder / "model")
        self.predictor = load_predictor(folder / "model")
        self.endpoint = LoadedEndpoint(ENDPOINT, single(ENDPOINT, 1, f"b3:{'0' * 64}"), (self.predictor,))
        self.ids = PredictionIds(bytes(SECRET_BYTES))
        self.view = View(
            table=EndpointTable({ENDPOINT: self.endpoint}, {}),
            access=access_for(Settings(), "127.0.0.1", ()),
            ids=self.ids,
        )
        self.log = PredictionLog(SegmentWriter(folder / "log", Limits(rows=10**9, bytes=2**40)), "refuse")
        self.gateway = Gateway(State(self.view), self.log, body_limit=2**26)

    async def ask(self, message: Message) -> None:
        """Send a request."""
        response = await self.gateway.respond(message)
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {response.body[:500]!r}")


def message_of(question: Question) -> Message:
    """A request as HTTP's side of the gateway gives it."""
    message = Message()
    message.method, message.path, message.body = "POST", question.path, question.body
    message.started = time.perf_counter_ns()
    message.headers = {
        "host": "127.0.0.1:8601",
        "content-length": str(len(question.body)),
        **{name.lower(): value for name, value in question.headers.items()},
    }
    return message


def least(call: Callable[[], object], calls: int = CALLS) -> float:
    """Microseconds of one call."""
    found = []
    for _ in range(REPETITIONS):
        began = time.process_time_ns()
        for _ in range(calls):
            call()
        found.append((time.process_time_ns() - began) / calls / 1000)
    return min(found)


async def least_awaited(call: Callable[[], Awaitable[object]], calls: int = CALLS) -> float:
    """The same of a coroutine, without leaving the event loop."""
    found = []
    for _ in range(REPETITIONS):
        began = time.process_time_ns()
        for _ in range(calls):
            await call()
        found.append((time.process_time_ns() - began) / calls / 1000)
    return min(found)


def protocols(worker: Worker, subject: Subject) -> list[Protocol]:
    """A request for one row, alone, in both JSON protocols."""
    row = subject.matrix[:1]
    return [
        Protocol(name, asyncio.run(least_awaited(partial(worker.ask, message_of(question)))), parts)
        for name, question, parts in (
            ("Open Inference Protocol, JSON", open_inference(row), v2_parts(worker, open_inference(row))),
            ("Plain JSON", plain(row), plain_parts(worker, plain(row))),
        )
    ]


def v2_parts(worker: Worker, question: Question) -> list[Part]:
    """The stages of the Open Inference Protocol."""
    headers = message_of(question).headers
    signature = worker.predictor.signature
    asked, tensors = read_request(headers, question.body)
    row = rows_of(tensors, signature).row
    assert row is not None
    encode = msgspec.json.Encoder().encode

    def said() -> bytes:
        output = OutputTensor("y", (1,), "FP64", data=[0.5])
        id = "A" * 28
        return encode(
            InferResponse(
                model_name=ENDPOINT,
                model_version="1",
                outputs=(output,),
                id=asked.id or id,
                parameters={"prediction_id": id},
            )
        )

    return [
        Part("decode the JSON, with its types", least(lambda: read_request(headers, question.body))),
        Part("name the tensor's columns", least(lambda: rows_of(tensors, signature))),
        *shared_parts(worker, row),
        Part("write the answer's JSON", least(said)),
    ]


def plain_parts(worker: Worker, question: Question) -> list[Part]:
    """The stages of plain JSON."""
    decode = msgspec.json.Decoder(PredictRequest).decode
    row = decode(question.body).row
    assert row is not None
    encode = msgspec.json.Encoder().encode
    at = event_time(None, worker.view)

    def said() -> bytes:
        id = "A" * 28
        return encode(
            PredictResponse(
                predictions=[0.5],
                ids=row_ids(id, 1),
                version="1",
                endpoint=ENDPOINT,
                at=from_microseconds(at),
            )
        )

    return [
        Part("decode the JSON, with its types", least(lambda: decoded(decode, question.body))),
        *shared_parts(worker, row),
        Part("write the answer's JSON", least(said)),
    ]


def shared_parts(worker: Worker, row: dict[str, Any]) -> list[Part]:
    """What every protocol does with one row."""
    endpoint, predictor = worker.endpoint, worker.predictor
    values = predictor.encoded_row(row)
    at = event_time(None, worker.view)
    id = worker.ids.mint(ENDPOINT)

    def frame() -> bytes:
        return encoded(
            RowFrame(
                ref=endpoint.entry.ref, id=id, at=at, key=None, arm=0, values=values, scores=[0.5], took=100
            )
        )

    data = frame()
    return [
        Part("find the endpoint, mint the prediction's id", least(lambda: _routed(worker))),
        Part("check and encode the row", least(lambda: predictor.encoded_row(row))),
        Part("run the model", least(lambda: predictor.score(values))),
        Part("choose who answers (routing)", least(lambda: endpoint.chooser.place(id))),
        Part("make the log's record", least(frame)),
        Part(
            "write the log, before the answer",
            least(lambda: worker.log.predicted(data, rows=1, at=at, entry=endpoint.entry)),
        ),
    ]


def _routed(worker: Worker) -> str:
    return worker.ids.mint(worker.view.table.get(ENDPOINT).name)


def company(worker: Worker, subject: Subject) -> list[Company]:
    """What requests cost that are ready in the same turn of the event loop."""
    ask = partial(worker.ask, message_of(open_inference(subject.matrix[:1])))
    values = worker.predictor.encoded_row(
        dict(zip(worker.predictor.signature.names, subject.matrix[0].tolist(), strict=True))
    )
    at = event_time(None, worker.view)
    data = encoded(
        RowFrame(
            ref=worker.endpoint.entry.ref,
            id="A" * 28,
            at=at,
            key=None,
            arm=0,
            values=values,
            scores=[0.5],
            took=100,
        )
    )
    found = []
    for together in TOGETHER:
        calls = max(4, CALLS // together)
        rows = [values] * together
        asked = asyncio.run(least_awaited(lambda n=together: _all(ask, n), calls))  # type: ignore[misc]
        empty = asyncio.run(least_awaited(lambda n=together: _nothing(n), calls))  # type: ignore[misc]
        model = (
            least(lambda: worker.predictor.score(values), calls)
            if together == 1
            else least(lambda r=rows: worker.predictor.scores(np.array(r, dtype=np.float64)), calls)  # type: ignore[misc]
        )
        write = least(
            lambda n=together: worker.log.predicted(data * n, rows=n, at=at, entry=worker.endpoint.entry),  # type: ignore[misc]
            calls,
        )
        found.append(Company(together, (asked - empty) / together, model / together, write / together))
    return found


async def _all(ask: Callable[[], Coroutine[Any, Any, None]], together: int) -> None:
    await asyncio.gather(*[ask() for _ in range(together)])


async def _nothing(together: int) -> None:
    await asyncio.gather(*[asyncio.sleep(0) for _ in range(together)])


def batches(worker: Worker, subject: Subject) -> list[Part]:
    """A request for 1,000 rows: all of it in each protocol, and what nobody could leave out."""
    rows = subject.matrix
    asked: Sequence[tuple[str, Question]] = (
        ("Open Inference Protocol, JSON", open_inference(rows)),
        ("Plain JSON, by column", plain(rows)),
        ("Open Inference Protocol, binary tensors", binary(rows)),
    )
    found = [
        Part(name, asyncio.run(least_awaited(partial(worker.ask, message_of(question)), 5)))
        for name, question in asked
    ]
    decode = msgspec.json.Decoder(dict[str, list[dict[str, Any]]]).decode
    body = open_inference(rows).body
    return [
        *found,
        Part("of which: decoding 30,000 JSON numbers, untyped", least(lambda: decode(body), 5)),
        Part("of which: the model itself", least(lambda: worker.predictor.scores(rows), 20)),
    ]


def http_time(subject: Subject, folder: Path) -> float | None:
    """The gateway's HTTP answering always the same, in microseconds a request; None without wrk."""
    if not load.possible():
        return None
    with bare(subject, "none", "own").running(1, folder) as server:
        question = open_inference(subject.matrix[:1])
        return min(load.turn(server, question, 16, HTTP_SECONDS, folder).cpu for _ in range(HTTP_TURNS))


def main() -> None:
    # As a gateway worker has it.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    with tempfile.TemporaryDirectory(prefix="stages-") as name:
        folder = Path(name)
        subject = make(folder)
        worker = Worker(subject, folder)
        asyncio.run(least_awaited(partial(worker.ask, message_of(open_inference(subject.matrix[:1]))), 100))
        made = Profile(
            http_time(subject, folder),
            protocols(worker, subject),
            company(worker, subject),
            batches(worker, subject),
        )
    sys.stdout.buffer.write(msgspec.json.encode(made))


if __name__ == "__main__":
    main()
