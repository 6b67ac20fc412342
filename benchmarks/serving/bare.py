"""The limits: an HTTP server with as little behind it as can be, and no log, no checks and no routes.

    python bare.py PORT WORKERS granian|own none|onnx|trees [MODEL]

"own" is the gateway's HTTP. "none" answers always the same; the others decode the JSON of the Open Inference
Protocol, run the model and answer in the same protocol. At /binary the tensor's bytes follow the JSON.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
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

from trimtab.serving.http_messages import Message, Response
from trimtab.serving.http_server import HttpServer
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


def answerer(kind: str, path: str) -> Callable[[str, Any, bytes], bytes]:
    """What makes an answer out of a request's path, headers and body."""
    if kind == "none":
        return lambda path, headers, body: b'{"predictions":[0.5]}'
    score, matrix = (onnx if kind == "onnx" else trees)(path)
    decode = msgspec.json.Decoder(Asked).decode
    encode = msgspec.json.Encoder().encode

    def answer(path: str, headers: Any, body: bytes) -> bytes:
        if path == "/binary":
            length = int(headers.get("inference-header-content-length"))
            shape = decode(body[:length]).inputs[0].shape
            rows = np.frombuffer(body, "<f8", offset=length).reshape(shape)
            raw: bytes = matrix(rows).tobytes()
            head = encode({"outputs": [{"name": "p", "parameters": {"binary_data_size": len(raw)}}]})
            return head + raw
        tensor = decode(body).inputs[0]
        made = score(tensor.data, tensor.shape)
        return encode(Said("bench", [Output("probability", [len(made)], "FP64", made)]))

    return answer


class OverHttpServer:
    """The same over the gateway's own HTTP."""

    def __init__(self, answer: Callable[[str, Any, bytes], bytes]) -> None:
        self._answer = answer

    def objection(self, message: Message) -> None:
        """Nothing is refused."""

    def body_objection(self, size: int) -> None:
        """Nothing is refused."""

    async def respond(self, message: Message) -> Response:
        """The answer."""
        return Response(200, self._answer(message.path, message.headers, message.body))


async def serve(handle: int, http: str, answer: Callable[[str, Any, bytes], bytes]) -> None:
    """Answer until SIGTERM."""
    # As the gateway's workers have it, so that this is no difference between them.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    loop = asyncio.get_running_loop()
    if http == "own":
        stopping = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        server = HttpServer(OverHttpServer(answer), socket.socket(fileno=handle))
        server.start()
        await stopping.wait()
        await server.stop(1)
        return

    async def application(scope: Any, channel: Any) -> None:
        body = await channel()
        channel.response_bytes(200, HEADERS, answer(scope.path, scope.headers, body))

    granian = InheritedServer(application, handle)
    loop.add_signal_handler(signal.SIGTERM, granian.stop)
    await granian.serve()


def main() -> None:
    port, workers, http, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    path = sys.argv[5] if len(sys.argv) > 5 else ""
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
        asyncio.run(serve(handle, http, answerer(kind, path)))
    finally:
        for other in others:
            os.kill(other, signal.SIGTERM)
            os.waitpid(other, 0)


if __name__ == "__main__":
    main()
