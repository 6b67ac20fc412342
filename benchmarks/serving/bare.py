"""The limits: Granian with as little behind it as can be, and no log, no checks and no routes.

    python bare.py PORT WORKERS none|onnx|trees [MODEL]

"none" answers always the same; the others decode the JSON of the Open Inference Protocol, run the model and
answer in the same protocol. At /binary the tensor's bytes follow the JSON.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from granian._granian import SocketHolder
from granian.constants import HTTPModes
from granian.server.embed import Server
from numpy.typing import NDArray

from trimtab.serving.listener import BACKLOG, listen

HEADERS = [("content-type", "application/json")]
Score = Callable[[list[float], list[int]], list[float]]


class InheritedServer(Server):
    """Granian in this process, on a socket that several processes share."""

    def __init__(self, target: Any, handle: int) -> None:
        super().__init__(target, websockets=False, http=HTTPModes.http1, log_enabled=False)
        self._inherited = handle

    def _init_shared_socket(self) -> None:
        self._ssp = None
        # As Granian pickles it; its stub tells less.
        self._shd: Any = SocketHolder(self._inherited, False, BACKLOG)  # type: ignore[call-arg]  # granian has no types here


class Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float] = []


class Asked(msgspec.Struct):
    inputs: list[Tensor]


class Output(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Said(msgspec.Struct):
    model_name: str
    outputs: list[Output]


def onnx(path: str) -> tuple[Score, Callable[[NDArray[np.float64]], Any]]:
    """One row or many through ONNX Runtime, from a list and from an array."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def listed(data: list[float], shape: list[int]) -> list[float]:
        rows = np.array(data, dtype=np.float32).reshape(shape)
        made: list[float] = session.run(None, {"x": rows})[0][:, 0].tolist()
        return made

    def matrix(rows: NDArray[np.float64]) -> Any:
        return session.run(None, {"x": rows.astype(np.float32)})[0][:, 0].astype(np.float64)

    return listed, matrix


def trees(path: str) -> tuple[Score, Callable[[NDArray[np.float64]], Any]]:
    """The same through LightGBM's C library: its Python package alone takes longer for one row than all of
    this."""
    from trimtab.models.runtimes.lightgbm import load

    model = load(Path(path).read_bytes(), width=30, threads=1, options={})

    def listed(data: list[float], shape: list[int]) -> list[float]:
        if shape[0] == 1:
            return [model.row(data)]
        made: list[float] = model.matrix(np.array(data).reshape(shape)).tolist()
        return made

    return listed, model.matrix


def application(kind: str, path: str) -> Any:
    """What Granian calls."""
    if kind == "none":

        async def nothing(scope: Any, channel: Any) -> None:
            await channel()
            channel.response_bytes(200, HEADERS, b'{"predictions":[0.5]}')

        return nothing

    score, matrix = (onnx if kind == "onnx" else trees)(path)
    decode = msgspec.json.Decoder(Asked).decode
    encode = msgspec.json.Encoder().encode

    async def answer(scope: Any, channel: Any) -> None:
        body = await channel()
        if scope.path == "/binary":
            length = int(scope.headers.get("inference-header-content-length"))
            shape = decode(body[:length]).inputs[0].shape
            rows = np.frombuffer(body, "<f8", offset=length).reshape(shape)
            raw = matrix(rows).tobytes()
            head = encode({"outputs": [{"name": "p", "parameters": {"binary_data_size": len(raw)}}]})
            channel.response_bytes(200, HEADERS, head + raw)
            return
        tensor = decode(body).inputs[0]
        made = score(tensor.data, tensor.shape)
        channel.response_bytes(
            200, HEADERS, encode(Said("bench", [Output("probability", [len(made)], "FP64", made)]))
        )

    return answer


async def serve(handle: int, kind: str, path: str) -> None:
    """Answer until SIGTERM."""
    # As the gateway's workers have it, so that this is no difference between them.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    server = InheritedServer(application(kind, path), handle)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    await server.serve()


def main() -> None:
    port, workers, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    path = sys.argv[4] if len(sys.argv) > 4 else ""
    listener = listen("127.0.0.1", port, who="bare server", option="PORT")
    handle = listener.detach()
    others: list[int] = []
    for _ in range(workers - 1):
        other = os.fork()
        if not other:
            others = []
            break
        others.append(other)
    try:
        asyncio.run(serve(handle, kind, path))
    finally:
        for other in others:
            os.kill(other, signal.SIGTERM)
            os.waitpid(other, 0)


if __name__ == "__main__":
    main()
