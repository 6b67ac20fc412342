"""What clients that say nothing, say it slowly or do not listen can do to a server: nothing, for long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from tests.serving.raw_client import said_to

from trimtab.server.inherited_server import InheritedServer
from trimtab.serving import listener as listeners
from trimtab.serving.listener import listen

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CROWD = 200
"""More than the connections that Granian takes by itself."""


class Answers:
    """Answers every request with so many bytes."""

    def __init__(self, size: int) -> None:
        self._body = b"x" * size

    async def __rsgi__(self, scope: Any, channel: Any) -> None:
        channel.response_bytes(200, [], self._body)


@contextlib.asynccontextmanager
async def serving(size: int = 2) -> AsyncIterator[int]:
    """A server with little patience, on the port that is given."""
    opened = listen("127.0.0.1", 0, who="test", option="")
    port = opened.getsockname()[1]
    server = InheritedServer(Answers(size), opened.detach(), idle_seconds=0.3, log_enabled=False)
    task = asyncio.create_task(server.serve())
    try:
        yield port
    finally:
        server.stop()  # type: ignore[no-untyped-call]  # granian has no types here
        await task


@pytest.mark.parametrize(
    "said", [b"", b"P", b"PRI * HTTP/2.0\r\n\r\n", REQUEST[:-2], REQUEST, REQUEST + b"G"]
)
def test_a_client_that_falls_silent_is_let_go(said: bytes) -> None:
    async def heard() -> bytes:
        async with serving() as port:
            return await said_to(port, said)

    assert asyncio.run(heard()).startswith(b"HTTP/1.1 200") == said.startswith(REQUEST)


def test_headers_that_come_one_byte_at_a_time_are_not_waited_for() -> None:
    async def heard() -> bytes:
        async with serving() as port:
            slowly = (b"x-%d: y\r\n" % number for number in range(1_000_000))
            return await said_to(port, REQUEST[:-2], *slowly, pause=0.01)

    assert asyncio.run(heard()) == b""


def test_a_crowd_that_says_nothing_keeps_nobody_out() -> None:
    async def crowded() -> bytes:
        async with serving() as port, contextlib.AsyncExitStack() as crowd:
            for _ in range(CROWD):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                crowd.callback(writer.close)
            return await said_to(port, REQUEST)

    assert asyncio.run(crowded()).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_a_client_that_does_not_read_its_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "STALLED_SECONDS", 1)

    def held(port: int) -> bool:
        return any(
            each.laddr[1:] == (port,) and each.status == psutil.CONN_ESTABLISHED
            for each in psutil.Process().net_connections("tcp")
        )

    async def stalled() -> None:
        async with serving(size=50 * 2**20) as port:
            deaf = socket.create_connection(("127.0.0.1", port))
            with deaf:
                deaf.sendall(REQUEST)
                await asyncio.sleep(0.3)
                assert held(port)
                deadline = time.monotonic() + 60
                while held(port):
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)

    asyncio.run(stalled())


def test_accepted_connections_are_watched_as_the_one_that_listens() -> None:
    with (
        listen("127.0.0.1", 0, who="test", option="") as listening,
        socket.create_connection(listening.getsockname()),
    ):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
