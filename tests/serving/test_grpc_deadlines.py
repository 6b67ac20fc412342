"""A caller of gRPC who does not wait any more costs no model call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from tests.serving.tiny_models import write_model

from trimtab.config import Settings
from trimtab.models.runtimes.predictor import Predictor, load_predictor
from trimtab.serving.access import access_for
from trimtab.serving.answering import Answering
from trimtab.serving.grpc_messages import MESSAGES
from trimtab.serving.grpc_port import hold_port
from trimtab.serving.grpc_server import GrpcServer
from trimtab.serving.grpc_service import InferenceService
from trimtab.serving.loaded_endpoints import EndpointTable, LoadedEndpoint
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.routes import single
from trimtab.serving.segments import Limits, SegmentWriter
from trimtab.serving.state import State, View

ENDPOINT = "rides"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
SECONDS = 0.5
"""How long the model takes for a row, and all others wait for it: far beyond the deadline below."""


class SlowRuntime:
    """Takes its time, and counts."""

    def __init__(self) -> None:
        self.rows = 0

    def row(self, values: Sequence[float]) -> float:
        self.rows += 1
        time.sleep(SECONDS)
        return 0.0

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([self.row(row) for row in rows])


def message() -> bytes:
    request = MESSAGES["ModelInferRequest"](model_name=ENDPOINT)
    request.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(1.0)
    request.inputs.add(name="season", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"winter")
    request.inputs.add(name="holiday", datatype="BOOL", shape=[1]).contents.bool_contents.append(False)
    made: bytes = request.SerializeToString()
    return made


def test_a_call_whose_deadline_is_over_before_its_turn_is_not_computed(tmp_path: Path) -> None:
    write_model(tmp_path / "model", 1)
    runtime = SlowRuntime()
    predictor = Predictor(load_predictor(tmp_path / "model").specification, runtime)
    endpoint = LoadedEndpoint(ENDPOINT, single("m", 1, "b3:" + "0" * 64), (predictor,))
    access = access_for(Settings(), "127.0.0.1", ())
    ids = PredictionIds(bytes(32))
    state = State(View(table=EndpointTable({ENDPOINT: endpoint}, {}), access=access, ids=ids))
    writer = SegmentWriter(tmp_path / "log", Limits())
    log = PredictionLog(writer, "refuse")
    answering = Answering(ids, log)

    async def ask(port: int) -> tuple[bytes, grpc.StatusCode]:
        server = GrpcServer(
            InferenceService(state, log, lambda _ids: answering), "127.0.0.1", port, body_limit=2**20
        )
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.unary_unary(METHOD)
                await channel.channel_ready()
                patient = asyncio.ensure_future(call(message()))
                hurried = asyncio.ensure_future(call(message(), timeout=SECONDS / 5))
                results = await asyncio.gather(patient, hurried, return_exceptions=True)
                assert isinstance(results[0], bytes)
                assert isinstance(results[1], grpc.aio.AioRpcError)
                return results[0], results[1].code()
        finally:
            await server.stop(SECONDS)

    with hold_port("127.0.0.1", 0) as holder:
        answer, code = asyncio.run(ask(holder.getsockname()[1]))
    writer.close()
    assert MESSAGES["ModelInferResponse"].FromString(answer).outputs[0].shape == [1]
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert runtime.rows == 1
