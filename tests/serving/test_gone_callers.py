"""What a caller asked who is gone meanwhile is not computed, wherever it waits for its turn."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.serving.tiny_models import ROW, write_model

from trimtab.config import Settings
from trimtab.models.runtimes.predictor import Predictor, load_predictor
from trimtab.serving import many_rows
from trimtab.serving.access import access_for
from trimtab.serving.application import Gateway
from trimtab.serving.grpc_messages import MESSAGES
from trimtab.serving.grpc_port import hold_port
from trimtab.serving.grpc_server import GrpcServer
from trimtab.serving.grpc_service import InferenceService
from trimtab.serving.http_server import HttpServer
from trimtab.serving.listener import listen
from trimtab.serving.loaded_endpoints import EndpointTable, LoadedEndpoint
from trimtab.serving.options import DEFAULT, Options
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.routes import single
from trimtab.serving.segments import Limits, SegmentWriter
from trimtab.serving.state import State, View

ENDPOINT = "rides"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
MANY = 1000
"""Rows that are scored in a thread, where others wait for it."""

GONE, STAYS = 7.0, 8.0
"""The x of rows whose caller goes, and of those whose caller stays."""


class GatedRuntime:
    """Answers once its gate is open, and notes what it was asked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = threading.Event()
        self.seen: set[float] = set()

    def row(self, values: Sequence[float]) -> float:
        self._wait(values[0])
        return 0.0

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        for x in set(rows[:, 0]):
            self._wait(float(x))
        return np.zeros(len(rows))

    def _wait(self, x: float) -> None:
        self.seen.add(x)
        self.asked.set()
        assert self.gate.wait(60)


class Blocking(Predictor):
    """One that waits for another process."""

    blocking = True


class Scene:
    """A gateway in this process, whose model stands still until its gate is open."""

    def __init__(
        self, folder: Path, options: Options = DEFAULT, kind: Callable[..., Predictor] = Predictor
    ) -> None:
        write_model(folder / "model", 1)
        self.runtime = GatedRuntime()
        predictor = kind(load_predictor(folder / "model").specification, self.runtime)
        endpoint = LoadedEndpoint(ENDPOINT, single("m", 1, "b3:" + "0" * 64), (predictor,), options)
        access = access_for(Settings(), "127.0.0.1", ())
        table = EndpointTable({ENDPOINT: endpoint}, {})
        self.ids = PredictionIds(bytes(32))
        self.state = State(View(table=table, access=access, ids=self.ids))
        self.log = PredictionLog(SegmentWriter(folder / "log", Limits()), "refuse")
        self.gateway = Gateway(self.state, self.log, body_limit=2**22)
        self.server: HttpServer

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Its port, while it serves, with one thread for what takes long."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        listener = listen("127.0.0.1", 0, who="test", option="")
        self.server = HttpServer(self.gateway, listener)
        self.server.start()
        try:
            yield listener.getsockname()[1]
        finally:
            self.runtime.gate.set()
            await self.server.stop(60)

    async def asks(self, port: int, x: float, *, rows: int = MANY) -> asyncio.StreamWriter:
        """A caller who asked, on a connection of its own."""
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"rows": [{**ROW, "x": x}] * rows}).encode()
        head = f"POST /v1/endpoints/{ENDPOINT}/predict HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return writer


async def soon(what: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(60):
        while not what():  # noqa: ASYNC110  (a test)
            await asyncio.sleep(0.01)


async def all_read(scene: Scene) -> None:
    """Wait until all that was sent is with those that answer."""
    await soon(lambda: all(each.busy for each in scene.server.connections))


@pytest.mark.parametrize("kind", [Predictor, Blocking])
def test_many_rows_whose_caller_is_gone_are_not_computed(
    tmp_path: Path, kind: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_rows, "THREADS_APART", 1)
    scene = Scene(tmp_path, kind=kind)

    async def run() -> None:
        async with scene.serving() as port:
            first = await scene.asks(port, 1.0)
            await soon(scene.runtime.asked.is_set)
            going = await scene.asks(port, GONE)
            staying = await scene.asks(port, STAYS)
            await soon(lambda: len(scene.server.connections) == 3)
            await all_read(scene)
            going.close()
            await soon(lambda: len(scene.server.connections) == 2)
            scene.runtime.gate.set()
            await soon(lambda: scene.log.predictions == 2 * MANY)
            for each in (first, staying):
                each.close()

    asyncio.run(run())
    assert scene.runtime.seen == {1.0, STAYS}


def test_a_row_that_waits_for_company_goes_with_its_caller(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Options(max_wait_ms=300))
    scene.runtime.gate.set()

    async def run() -> None:
        async with scene.serving() as port:
            going = await scene.asks(port, GONE, rows=1)
            staying = await scene.asks(port, STAYS, rows=1)
            await soon(lambda: len(scene.server.connections) == 2)
            going.close()
            await soon(lambda: scene.log.predictions == 1)
            staying.close()

    asyncio.run(run())
    assert scene.runtime.seen == {STAYS}
    assert scene.log.predictions == 1


def test_a_call_of_grpc_that_was_cancelled_is_not_computed(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def run(port: int) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        service = InferenceService(scene.state, scene.log, scene.gateway.answering)
        server = GrpcServer(service, "127.0.0.1", port, body_limit=2**22)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                ask: Callable[[bytes], Awaitable[Any]] = channel.unary_unary(METHOD)
                await channel.channel_ready()
                first = asyncio.ensure_future(ask(_message(1.0)))
                await soon(scene.runtime.asked.is_set)
                going = asyncio.ensure_future(ask(_message(GONE)))
                await soon(lambda: service.calls == 2)
                going.cancel()
                busy = scene.gateway.answering(scene.ids)._busy
                await soon(lambda: busy[ENDPOINT] == 1)
                scene.runtime.gate.set()
                await first
        finally:
            scene.runtime.gate.set()
            await server.stop(10)

    with hold_port("127.0.0.1", 0) as holder:
        asyncio.run(run(holder.getsockname()[1]))
    assert scene.runtime.seen == {1.0}


def _message(x: float) -> bytes:
    request = MESSAGES["ModelInferRequest"](model_name=ENDPOINT)
    for name, datatype, field, value in (
        ("x", "FP64", "fp64_contents", x),
        ("season", "BYTES", "bytes_contents", b"winter"),
        ("holiday", "BOOL", "bool_contents", False),
    ):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[MANY])
        getattr(tensor.contents, field).extend([value] * MANY)
    made: bytes = request.SerializeToString()
    return made
