"""Clients of gRPC that say nothing are let go, and notice nothing when they speak again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psutil
import pytest

from trimtab.config import Settings
from trimtab.serving import grpc_server
from trimtab.serving.access import access_for
from trimtab.serving.grpc_messages import MESSAGES
from trimtab.serving.grpc_port import hold_port
from trimtab.serving.grpc_server import GrpcServer
from trimtab.serving.grpc_service import InferenceService
from trimtab.serving.state import State, View

METHOD = "/inference.GRPCInferenceService/ServerLive"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "IDLE_SECONDS", 1)
    monkeypatch.setattr(grpc_server, "GREETING_SECONDS", 1)


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """A server that has no model, on the port that is given."""
    state = State(View(access=access_for(Settings(), "127.0.0.1", ())))
    log: Any = None
    answering: Any = None
    with hold_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        server = GrpcServer(InferenceService(state, log, answering), "127.0.0.1", port, body_limit=2**20)
        await server.start()
        try:
            yield port
        finally:
            await server.stop(1)


async def alone(port: int) -> None:
    """Wait until nobody is connected."""
    async with asyncio.timeout(60):
        while any(  # noqa: ASYNC110  (the system tells nobody)
            each.laddr[1:] == (port,) and each.status == psutil.CONN_ESTABLISHED
            for each in psutil.Process().net_connections("tcp")
        ):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n"])
def test_a_client_that_never_asks_is_let_go(said: bytes) -> None:
    async def run() -> None:
        async with serving() as port:
            with socket.create_connection(("127.0.0.1", port)) as silent:
                silent.sendall(said)
                await asyncio.sleep(0.2)
                await alone(port)

    asyncio.run(run())


def test_a_client_that_was_idle_for_long_asks_again_as_if_nothing_had_been() -> None:
    async def run() -> tuple[bytes, bytes]:
        async with serving() as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary(METHOD)
            first = await ask(b"")
            await alone(port)
            return first, await ask(b"")

    for answer in asyncio.run(run()):
        assert MESSAGES["ServerLiveResponse"].FromString(answer).live
