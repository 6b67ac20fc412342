"""HTTP on real sockets: what is read, what is refused, and how long anybody is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.serving.raw_client import said_to

from trimtab.errors import RefusedError, TrimtabError
from trimtab.serving import http_reader, http_server
from trimtab.serving.bodies import too_large
from trimtab.serving.http_messages import Message, Response
from trimtab.serving.http_server import MOST_CONNECTIONS, HttpServer, possible_connections
from trimtab.serving.listener import listen

GET = b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n"
LIMIT = 1000


class Echo:
    """Answers with what was asked. Paths that say so wait first, or answer much."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.gate: asyncio.Future[None] | None = None

    def objection(self, message: Message) -> TrimtabError | None:
        if message.path == "/forbidden":
            return RefusedError("It is forbidden.")
        return self.body_objection(int(message.headers.get("content-length", 0)))

    def body_objection(self, size: int) -> TrimtabError | None:
        return too_large(LIMIT) if size > LIMIT else None

    async def respond(self, message: Message) -> Response:
        if message.problem is not None:
            more = (("x-torn", "a\nb"),) if message.path == "/torn" else ()
            return Response(message.problem.http_status, str(message.problem).encode(), more)
        self.begun.append(message.path)
        try:
            if message.path.startswith("/twice"):
                await asyncio.sleep(0)
                await asyncio.sleep(0.01)
            if message.path == "/gate":
                self.gate = asyncio.get_running_loop().create_future()
                await self.gate
        except asyncio.CancelledError:
            self.cancelled.append(message.path)
            raise
        self.asked.append(message)
        if message.path == "/bug":
            raise ZeroDivisionError
        if message.path.endswith("/torn"):
            return Response(200, b"", (("x-torn", "a\nb"),))
        body = b"x" * 2**24 if message.path == "/much" else message.body or message.path.encode()
        return Response(200, body, (("x-method", message.method),), content_type="text/plain")


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Echo, HttpServer, int]]:
    """An application, its server, and the port."""
    listener = listen("127.0.0.1", 0, who="test", option="")
    port, echo = listener.getsockname()[1], Echo()
    server = HttpServer(echo, listener, **options)
    server.start()
    try:
        yield echo, server, port
    finally:
        await server.stop(1)


def heard(*pieces: bytes, pause: float = 0.0, **options: Any) -> bytes:
    """The same of a server with these options."""

    async def alone() -> bytes:
        async with serving(**options) as (_, _, port):
            return await said_to(port, *pieces, pause=pause)

    return asyncio.run(alone())


def last(request: bytes) -> bytes:
    """The request as the last one of its connection."""
    return request.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)


def post(body: bytes, *headers: bytes, path: bytes = b"/echo") -> bytes:
    """A request with a body."""
    lines = [b"POST %s HTTP/1.1" % path, b"host: x", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def until(server: HttpServer, what: Callable[[], bool]) -> Awaitable[None]:
    """Wait until something holds of a server."""

    async def waiting() -> None:
        deadline = time.monotonic() + 60
        while not what():
            assert time.monotonic() < deadline, f"it did not happen with {len(server.connections)}"
            await asyncio.sleep(0.01)

    return waiting()


def test_an_answer_has_its_length_its_date_and_its_own_headers() -> None:
    answer = heard(last(GET))
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"content-type: text/plain", b"content-length: 5", b"x-method: GET", b"connection: close"} <= {
        *lines[1:]
    }
    assert any(line.startswith(b"date: ") and line.endswith(b" GMT") for line in lines)
    assert body == b"/echo"


def test_a_request_may_come_in_any_pieces() -> None:
    request = last(post(b"abc" * 100))
    assert heard(*[request[at : at + 1] for at in range(len(request))]).endswith(b"abc" * 100)
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    pieces = (b"3\r\nabc\r\n", b"4\r\ndefg\r\n", b"0\r\nx-trailer: 1\r\n\r\n")
    assert heard(chunked, *pieces).endswith(b"abcdefg")


def test_requests_that_come_together_are_answered_in_their_order() -> None:
    paths = [b"/a", b"/twice", b"/b", b"/much", b"/c", b"/twice", b"/d"]
    requests = [b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in paths]
    answers = heard(*requests[:3], b"".join(requests[3:-1]) + last(requests[-1]))
    bodies = [path if path != b"/much" else b"x" * 2**24 for path in paths]
    rest = answers
    for body in bodies:
        head, _, rest = rest.partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(body) in head
        assert rest.startswith(body)
        rest = rest[len(body) :]
    assert rest == b""


def test_a_connection_answers_thousands_of_requests_that_were_sent_at_once() -> None:
    answers = heard(GET * 5000 + last(GET))
    assert answers.count(b"HTTP/1.1 200 OK") == 5001


def test_the_head_of_an_answer_is_answered_without_its_body() -> None:
    answer = heard(last(GET.replace(b"GET", b"HEAD")))
    assert b"content-length: 5" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("wish", [b"", b"connection: keep-alive\r\n", b"expect: 100-continue\r\n"])
def test_a_client_of_http_1_0_is_answered_once(wish: bytes) -> None:
    answer = heard(b"GET /echo HTTP/1.0\r\n" + wish + b"\r\n")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"/echo")


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"/a?b=c", "x", "/a", "b=c"),
        (b"http://other:80/a/b?c=http://d", "other:80", "/a/b", "c=http://d"),
        (b"HTTP://me@[::1]:80?c", "[::1]:80", "/", "c"),
        (b"http://other", "other", "/", ""),
        (b"//other/a", "x", "//other/a", ""),
        (b"*", "x", "*", ""),
    ],
)
def test_the_target_names_the_server_if_it_names_one(target: bytes, host: str, path: str, query: str) -> None:
    async def asked() -> Message:
        async with serving() as (echo, _, port):
            await said_to(port, b"OPTIONS %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % target)
            return echo.asked[0]

    message = asyncio.run(asked())
    assert (message.headers["host"], message.path, message.query) == (host, path, query)


def test_a_wish_for_another_protocol_is_answered_in_this_one() -> None:
    wish = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk"
    asked = GET[:-2] + wish + b"\r\n\r\n"
    answers = heard(asked * 2000 + last(post(b"abc", wish)))  # with one beside that closes
    assert answers.count(b"HTTP/1.1 200 OK") == 2001
    assert answers.endswith(b"abc")


def test_a_body_is_read_whatever_else_its_request_wishes() -> None:
    # As curl --http2 and the client of Java send every first request.
    wish = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk"
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\n" + wish + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    chunked += b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    requests = GET + post(b"hello", wish) + chunked + last(GET)
    bodies = [b"/echo", b"hello", b"abcdefg", b"/echo"]
    for pieces in ([requests], [requests[at : at + 1] for at in range(len(requests))]):
        parts = heard(*pieces).split(b"HTTP/1.1 200 OK")[1:]
        assert [part.partition(b"\r\n\r\n")[2] for part in parts] == bodies


def test_a_wish_for_another_protocol_gets_nothing_past_the_checks() -> None:
    wish = b"upgrade: x\r\nconnection: upgrade"
    refused = heard(post(b"hello", wish, b"host: y"))
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in refused
    answers = heard(post(b"a" * (LIMIT + 1), wish) + post(b"b", wish, path=b"/forbidden") + last(post(b"c")))
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"413", b"403", b"200"]


def test_a_tunnel_is_not_made() -> None:
    answer = heard(b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n" + GET)
    assert b"connection: close" in answer
    assert answer.count(b"\r\ndate: ") == 1


def test_a_client_that_asks_whether_to_send_its_body_is_told() -> None:
    body = b"a" * 10
    head, _, _ = last(post(body, b"expect: 100-continue")).partition(b"\r\n\r\n")

    async def asked() -> bytes:
        async with serving() as (_, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + b"\r\n\r\n")
            told = await reader.readuntil(b"\r\n\r\n")
            writer.write(body)
            answer = await reader.read()
            writer.close()
            return told + answer

    answer = asyncio.run(asked())
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert answer.endswith(body)


def test_a_client_that_asks_behind_another_request_is_told_in_its_turn() -> None:
    body = b"a" * 10
    head, _, _ = last(post(body, b"expect: 100-continue")).partition(b"\r\n\r\n")

    async def asked() -> bytes:
        async with serving() as (_, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/echo", b"/twice") + GET + head + b"\r\n\r\n")
            told = await asyncio.wait_for(reader.readuntil(b"100 Continue\r\n\r\n"), 60)
            writer.write(body)
            answer = await reader.read()
            writer.close()
            return told + answer

    answer = asyncio.run(asked())
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"200", b"100", b"200"]
    assert answer.endswith(body)


def test_a_body_that_nobody_wants_is_not_asked_for() -> None:
    head, _, _ = post(b"a" * (LIMIT + 1), b"expect: 100-continue").partition(b"\r\n\r\n")
    answer = heard(head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/3.0\r\nhost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
    ],
)
def test_what_is_not_http_to_the_letter_is_refused_and_ends_its_connection(request_: bytes) -> None:
    # Where two readers may see two requests, one of them can be deceived.
    answer = heard(request_ + GET)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"\r\ndate: ") == 1
    assert b"connection: close" in answer


def test_garbage_behind_a_request_costs_it_nothing() -> None:
    answer = heard(GET + b"garbage\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1 400") == 1


def test_a_head_that_does_not_end_is_refused() -> None:
    line = b"x-padding: " + b"y" * 4000 + b"\r\n"
    assert heard(GET[:-2], *[line] * 40).startswith(b"HTTP/1.1 431 ")
    assert heard(b"GET /", *[b"a" * 8000] * 20).startswith(b"HTTP/1.1 431 ")


def test_a_refused_body_is_read_so_that_the_connection_goes_on() -> None:
    answers = heard(post(b"a" * (LIMIT + 1)) + post(b"b", path=b"/forbidden") + last(post(b"c")))
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"413", b"403", b"200"]


def test_a_body_without_a_length_ends_where_it_is_too_large() -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"a" * 2**16 + b"\r\n"
    answer = heard(chunked, *[chunk] * 100)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_what_is_received_has_one_limit_for_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_reader, "BODIES_HELD", 1500)

    async def crowded() -> tuple[bytes, int]:
        async with serving() as (_, server, port):
            slow = []
            for _ in range(2):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(post(b"a" * 999)[:-1])
                slow.append(writer)
            await until(server, lambda: server.held > 1500)
            answer = await said_to(port, last(post(b"b")))
            for writer in slow:
                writer.close()
            await until(server, lambda: not server.connections)
            return answer, server.held

    answer, held = asyncio.run(crowded())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert held == 0


def test_what_is_being_answered_counts_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_reader, "BODIES_HELD", 1500)

    async def crowded() -> tuple[bytes, int, int]:
        async with serving() as (echo, server, port):
            _, gone = await asyncio.open_connection("127.0.0.1", port)
            gone.write(post(b"a" * 999, path=b"/gate") + post(b"a" * 999, path=b"/gate"))
            await until(server, lambda: server.held == 2 * 999)
            refused = await said_to(port, last(post(b"b")))
            gone.close()
            assert echo.gate is not None
            echo.gate.cancel()
            await until(server, lambda: not server.connections)
            held = server.held
            answer = await said_to(port, last(post(b"b")))
            assert answer.startswith(b"HTTP/1.1 200 ")
            return refused, held, server.held

    refused, held, after = asyncio.run(crowded())
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert (held, after) == (0, 0)


def test_a_request_whose_caller_is_gone_is_not_computed_on() -> None:
    async def gone() -> Echo:
        async with serving() as (echo, server, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/echo", b"/gate") + GET)
            await until(server, lambda: echo.gate is not None)
            writer.close()
            await until(server, lambda: bool(echo.cancelled))
            return echo

    echo = asyncio.run(gone())
    assert echo.cancelled == ["/gate"]
    assert echo.begun == ["/gate"]


@pytest.mark.parametrize("said", [b"", GET])
def test_a_client_that_falls_silent_is_let_go(said: bytes) -> None:
    assert heard(said, idle_seconds=0.5).startswith(b"HTTP/1.1 200") == bool(said)


@pytest.mark.parametrize("said", [b"P", GET[:-2], GET + b"G", post(b"abc")[:-1]])
def test_a_request_that_does_not_end_is_told_so(said: bytes) -> None:
    answer = heard(said, request_seconds=0.5)
    assert answer.count(b"HTTP/1.1 408 ") == 1
    assert answer.startswith(b"HTTP/1.1 200 ") == said.startswith(GET)


def test_a_request_that_comes_one_byte_at_a_time_is_not_waited_for() -> None:
    slowly = [b"x-%d: y\r\n" % number for number in range(1000)]
    assert heard(GET[:-2], *slowly, pause=0.01, request_seconds=0.5).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_does_not_read_its_answers_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CLOSING_SECONDS", 0.5)

    async def stalled() -> None:
        async with serving() as (echo, server, port):
            with socket.create_connection(("127.0.0.1", port)) as deaf:
                deaf.sendall(GET.replace(b"/echo", b"/much") * 20)
                await until(server, lambda: bool(server.connections))
                await until(server, lambda: not server.connections)
            assert len(echo.asked) < 20  # what nobody reads is not computed either

    asyncio.run(stalled())


@pytest.mark.parametrize("request_", [GET, last(GET)])
def test_a_client_that_reads_slowly_gets_all_of_its_answer(
    request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CLOSING_SECONDS", 0.5)
    monkeypatch.setattr(http_server, "LOOK_SECONDS", 0.1)

    async def slow() -> int:
        async with serving() as (_, server, port):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setblocking(False)
                client.sendall(request_.replace(b"/echo", b"/much"))
                loop, read = asyncio.get_running_loop(), 0
                await until(server, lambda: bool(server.connections))
                while read < 2**24:
                    read += (piece := len(await loop.sock_recv(client, 2**20)))
                    if not piece:
                        break
                    await asyncio.sleep(0.1)
                return read

    assert asyncio.run(slow()) > 2**24


def test_who_waits_for_a_place_gets_that_of_one_who_says_nothing() -> None:
    async def crowded() -> bytes:
        async with serving(most_connections=5) as (_, _, port), contextlib.AsyncExitStack() as crowd:
            for _ in range(20):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                crowd.callback(writer.close)
            return await said_to(port, last(GET))

    assert asyncio.run(crowded()).startswith(b"HTTP/1.1 200 ")


def test_a_server_that_stops_takes_all_who_wait_in_its_socket() -> None:
    async def stopping() -> list[bytes]:
        async with serving(shared=True) as (_, server, port):
            stopped = asyncio.create_task(server.stop(60))
            await asyncio.sleep(0)
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
            time.sleep(0.2)  # noqa: ASYNC251  (the event loop, so that all of them still wait when it goes on)
            for client in clients:
                client.sendall(GET)
            await stopped
            heard = [client.recv(1000) for client in clients]
            for client in clients:
                client.close()
            return heard

    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in asyncio.run(stopping()))


def test_servers_on_one_socket_take_turns() -> None:
    async def shared() -> list[int]:
        with listen("127.0.0.1", 0, who="test", option="") as listener:
            servers = [HttpServer(Echo(), listener.dup(), shared=True) for _ in range(2)]
            for server in servers:
                server.start()
            clients = [await asyncio.open_connection(*listener.getsockname()) for _ in range(40)]
            await until(servers[0], lambda: sum(len(server.connections) for server in servers) == 40)
            found = [len(server.connections) for server in servers]
            for _, writer in clients:
                writer.close()
            for server in servers:
                await server.stop(5)
        return found

    assert min(asyncio.run(shared())) > 5


def test_a_server_that_stops_answers_what_it_has_begun() -> None:
    async def stopping() -> bytes:
        async with serving() as (echo, server, port):
            idle_reader, idle = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/echo", b"/gate"))
            await until(server, lambda: echo.gate is not None)
            stopped = asyncio.create_task(server.stop(60))
            await asyncio.sleep(0.3)
            assert not stopped.done()
            assert echo.gate is not None
            echo.gate.set_result(None)
            answer = await reader.read()
            await stopped
            assert await idle_reader.read() == b""
            for each in (idle, writer):
                each.close()
            return answer

    answer = asyncio.run(stopping())
    assert b"connection: close" in answer
    assert answer.endswith(b"/gate")


@pytest.mark.parametrize("path", [b"/bug", b"/torn", b"/twice/torn"])
def test_what_cannot_be_answered_ends_its_connection_and_nothing_else(path: bytes) -> None:
    async def broken() -> tuple[bytes, bytes, int]:
        async with serving(request_seconds=0.2) as (_, server, port):
            nothing = await said_to(port, post(b"abc", path=path) + GET)
            for _ in range(2):  # what a look at all connections refuses
                await said_to(port, post(b"abc", path=path)[:-1])
            await until(server, lambda: not server.connections)
            return nothing, await said_to(port, last(GET)), server.held

    nothing, answer, held = asyncio.run(broken())
    assert (nothing, held) == (b"", 0)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("shared", [False, True])
def test_who_comes_while_a_server_stops_is_answered(shared: bool) -> None:
    async def stopping() -> list[bytes]:
        async with serving(shared=shared) as (_, server, port):
            stopped = asyncio.create_task(server.stop(60))
            await until(server, lambda: server.draining)
            asked = [asyncio.create_task(said_to(port, GET)) for _ in range(20)]
            await asyncio.wait(asked)
            await stopped
            return [each.result() for each in asked]

    answers = asyncio.run(stopping())
    assert all(answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer for answer in answers)


def test_who_was_taken_last_may_still_say_what_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "QUIET_SECONDS", 0.5)

    async def stopping() -> bytes:
        async with serving() as (_, server, port):
            stopped = asyncio.create_task(server.stop(60))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(server, lambda: bool(server.connections))
            await until(server, lambda: not server._accepting)
            writer.write(GET)
            answer = await reader.read()
            writer.close()
            await stopped
            return answer

    assert asyncio.run(stopping()).startswith(b"HTTP/1.1 200 ")


def test_a_process_claims_the_files_that_its_connections_need() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        assert 128 <= possible_connections() <= MOST_CONNECTIONS
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512 or hard == 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
