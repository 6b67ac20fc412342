"""HTTP/1.1 as the gateway speaks it, in the event loop of its worker.

httptools (llhttp, the parser of Node.js) reads the bytes, and refuses what is not HTTP to the letter. Here is
what a parser does not know: how much a request may hold, how long it may take, in which order answers go
back, and what happens once a caller is gone. Why no server does this is told in docs/decisions/0010.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import logging
import resource
import socket
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import httptools

from trimtab.errors import InvalidInputError, MalformedError, TrimtabError, UnavailableError
from trimtab.serving.http_messages import CONTINUE, Message, Response, encoded_answer

HEAD_BYTES = 64 * 2**10
"""How long a request's first line and headers may be together, beyond what was read at first."""

DISCARDED_BYTES = 2**20
"""How much of a body that nobody wants is read before the request is answered; then its connection ends."""

REQUEST_SECONDS = 30.0
"""How long the head of a request may take to come, and then its body."""

IDLE_SECONDS = 75.0
"""How long a connection may be without a request: longer than load balancers keep theirs to a server."""

CLOSING_SECONDS = 30.0
"""How long a caller may take nothing of its answers, and how long what it still sends is thrown away."""

LOOK_SECONDS = 1.0
"""One look at all connections so often, where a timer for each would cost every request."""

QUIET_SECONDS = 0.1
"""How long a server that stops goes on taking connections, and then waits for the request of the last."""

MOST_BEHIND = 16
"""Requests behind the one being answered. With more, nothing is read, not even that the caller left."""

TURN_SECONDS = 0.0005
"""How long a process leaves connections to others that share its socket, once it has taken one. Who is awake
would take a whole burst of them otherwise, and keep them while the others have nothing to do."""

MOST_CONNECTIONS = 8192
"""Connections that are open at once; more wait until one of them ends."""

OTHER_FILES = 256
"""Files that a process needs beside its connections."""

LARGE_PIECE = 4 * 2**10
"""Pieces of a body that are smaller are put together at once, since each costs memory beside its bytes."""

BODIES_HELD = 2**29
"""How many bytes of bodies may be there, on their way or being answered."""

_log = logging.getLogger(__name__)

_BETWEEN: Final = 0
_HEAD: Final = 1
_BODY: Final = 2

_names: dict[bytes, str] = {}
_MOST_NAMES = 1_000


class SlowRequestError(MalformedError):
    """A request did not come in time."""

    code = "slow_request"
    http_status = 408


class HeadTooLargeError(InvalidInputError):
    """The first line and the headers of a request are too long."""

    code = "head_too_large"
    http_status = 431


class Application(Protocol):
    """What answers."""

    def objection(self, message: Message) -> TrimtabError | None:
        """Why a request is to be refused whose head is there, so that its body need not be kept."""
        ...

    def body_objection(self, size: int) -> TrimtabError | None:
        """Why a body of at least so many bytes is refused."""
        ...

    def respond(self, message: Message) -> Coroutine[Any, Any, Response]:
        """The answer. Raises nothing but `asyncio.CancelledError`, if its caller is gone."""
        ...


class HttpServer:
    """Serves an application on a socket that listens already, and may be `shared` with other processes.

    `now` is `time.monotonic()` as of the last look, `date` the header that tells the time, `draining` whether
    every answer is the last of its connection.
    """

    def __init__(
        self,
        application: Application,
        listener: socket.socket,
        *,
        shared: bool = False,
        request_seconds: float = REQUEST_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        most_connections: int | None = None,
    ) -> None:
        self.application = application
        self.request_seconds = request_seconds
        self._idle_seconds = idle_seconds
        self.connections: set[Connection] = set()
        self.draining = False
        self.held = 0
        self.now = time.monotonic()
        self.date = _date()
        self._listener = listener
        self._shared = shared
        self._most = possible_connections() if most_connections is None else most_connections
        self._loop: asyncio.AbstractEventLoop
        self._taking = True  # connections, as long as there is room
        self._accepting = False
        self._watching: asyncio.TimerHandle

    def start(self) -> None:
        """Begin to take connections, in the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._look()

    async def stop(self, seconds: float) -> None:
        """Answer what has come, take no more, and close all connections, within so many seconds."""
        self.draining = True
        deadline = time.monotonic() + seconds
        await asyncio.sleep(QUIET_SECONDS)  # who has just come is taken after it
        self._taking = False
        self._accept(False)
        await asyncio.sleep(QUIET_SECONDS)  # and what the last of them sent is read
        # Polled, so that requests need not tell anybody that they are done.
        while any(each.busy for each in self.connections) and time.monotonic() < deadline:  # noqa: ASYNC110  (at the end, once)
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
        while self.connections and time.monotonic() < deadline:  # noqa: ASYNC110  (as above)
            await asyncio.sleep(0.02)
        self._watching.cancel()
        self._listener.close()

    def _accept(self, wanted: bool) -> None:
        if wanted != self._accepting:
            self._accepting = wanted
            if wanted:
                self._loop.add_reader(self._listener, self._take)
            else:
                self._loop.remove_reader(self._listener)

    def _take(self) -> None:
        """Take one connection: another process may take the next."""
        try:
            taken, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                raise
            _log.error("no connection can be taken: %s", error)
            self._accept(False)  # until the next look
            return
        taken.setblocking(False)
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting = self._loop.connect_accepted_socket(lambda: Connection(self), taken)
        self._loop.create_task(connecting).add_done_callback(_connected)
        if len(self.connections) >= self._most:
            self._accept(False)  # until the next look
        elif self._shared:
            self._accept(False)
            self._loop.call_later(TURN_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._accept(self._taking and len(self.connections) < self._most)

    def _look(self) -> None:
        self._watching = self._loop.call_later(LOOK_SECONDS, self._look)
        self.now = now = time.monotonic()
        self.date = _date()
        full = len(self.connections) >= self._most
        idle_seconds = 0.0 if full else self._idle_seconds  # others wait for the place of one that is idle
        for connection in list(self.connections):
            connection.look(now, idle_seconds)
        self._go_on()


class Connection(asyncio.Protocol):
    """What asyncio calls about one connection, and httptools about its bytes."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._stage = _BETWEEN  # of the request that is on its way
        self._since = server.now  # when the stage began, or the last answer went
        self._message = Message()
        self._target = b""
        self._head = 0
        self._body: list[bytes | bytearray] = []
        self._come = 0  # bytes of the body so far
        self._whole: deque[Message] = deque()  # requests behind the one that is being answered
        self._asked = self._message
        self._answering: Coroutine[Any, Any, Response] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._driving = False
        self._paused = False
        self._stuck = False  # the caller does not read its answers
        self._unread = 0  # bytes of them, as of the last look
        self._deaf = False  # what comes is thrown away
        self._closing = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # of a stream, it is an asyncio.Transport
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take what came, and have the requests answered that are whole."""
        if self._deaf:
            return
        before = self._message
        try:
            self._read(data)
        except httptools.HttpParserError as error:
            self._refuse(MalformedError(f"This is not a request of HTTP/1.1: {error}."))
            return
        stage = self._stage
        if stage == _HEAD:
            self._head = self._head + len(data) if self._message is before else 0
            if self._head > HEAD_BYTES:
                self._refuse(HeadTooLargeError(f"The request's head is larger than {HEAD_BYTES} bytes."))
                return
        elif stage == _BODY:
            problem = self._message.problem
            if problem is not None and (self._come > DISCARDED_BYTES or "expect" in self._message.headers):
                self._refuse(problem)
                return
        if self._whole and not self._driving:
            self._drive()

    def pause_writing(self) -> None:
        """The caller does not read."""
        self._stuck = True
        self._since = self._server.now

    def resume_writing(self) -> None:
        """It does again."""
        self._stuck = False
        if not self._driving:
            self._drive()

    def connection_lost(self, error: Exception | None) -> None:
        """The caller is gone: what it asked is not computed if it has not begun."""
        self._closing = self._deaf = True
        self._server.connections.discard(self)
        self._let_go()
        self._server.held -= sum(len(message.body) for message in self._whole)
        self._whole.clear()
        if self._awaited is not None:
            self._awaited.cancel()

    # What httptools calls.

    def on_message_begin(self) -> None:
        """A request's first byte is there."""
        self._message = Message()
        self._target = b""
        self._stage = _HEAD
        self._since = self._server.now

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or behind the body a trailer, which nobody asked for."""
        if self._stage != _HEAD:
            return
        known = _names.get(name)
        if known is None:
            known = name.decode("latin-1").lower()
            if len(_names) < _MOST_NAMES:
                _names[name] = known
        headers = self._message.headers
        if known not in headers:
            headers[known] = value.decode("latin-1")
        elif known in {"host", "authorization"}:
            self._message.problem = MalformedError(f"The request has several headers {known}.")

    def on_headers_complete(self) -> None:
        """The head is there: see whether the body is wanted."""
        message = self._message
        message.started = time.perf_counter_ns()
        message.method = self._parser.get_method().decode("latin-1")
        target = self._target.decode("latin-1")
        headers = message.headers
        version = self._parser.get_http_version()
        if version != "1.1":
            message.keep_alive = False  # a client of 1.0 would have to be told that it may go on
            headers.pop("expect", None)
            if version != "1.0":
                message.problem = MalformedError(f"HTTP/{version} is not spoken here, but HTTP/1.1.")
        elif "host" not in headers:
            message.problem = MalformedError("The request has no header host.")
        if not target.startswith("/"):
            host, target = _origin_form(target)
            if host is not None:
                headers["host"] = host
        message.path, _, message.query = target.partition("?")
        if message.problem is None:
            message.problem = self._server.application.objection(message)
        self._stage = _BODY
        self._since = self._server.now
        if "expect" in headers and not self._behind:
            self._ask_for_body()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        size = len(data)
        self._come += size
        message, server = self._message, self._server
        if message.problem is not None:
            return
        message.problem = server.application.body_objection(self._come)
        if message.problem is None and server.held > BODIES_HELD:
            message.problem = UnavailableError(
                "The gateway receives more than it can hold.", hint="Come back a little later."
            )
        if message.problem is not None:
            self._come -= size
            self._let_go()
            self._come += size
            return
        server.held += size
        pieces = self._body
        if size >= LARGE_PIECE or not pieces:
            pieces.append(data)  # and copied once, when all are there
        elif type(last := pieces[-1]) is bytearray:
            last += data
        else:
            pieces.append(bytearray(data))

    def on_message_complete(self) -> None:
        """The request is whole."""
        message = self._message
        if isinstance(message.problem, MalformedError) or not self._parser.should_keep_alive():
            message.keep_alive = False
        pieces = self._body
        if pieces:
            message.body = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()  # and held until it is answered
        self._come = 0
        self._stage = _BETWEEN
        self._whole.append(message)

    # What is ours.

    def _read(self, data: bytes) -> None:
        """Have httptools read what came.

        It takes what is behind the head of a request that asks for another protocol to be in that one. There
        is none here, so its head is read again without the wish; then its body is one.
        """
        rest: bytes | memoryview = data
        while True:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                asked = self._whole.pop()
                if asked.method == "CONNECT":  # it has no body, and what follows is for another server
                    asked.keep_alive = False
                    self._whole.append(asked)
                    self._deaf = True
                    return
                rest = memoryview(rest)[upgrade.args[0] :]
                lines = _head_without_upgrade(asked, self._target, self._parser.get_http_version())
                self._parser = httptools.HttpRequestParser(self)
                self._parser.feed_data(lines)
                self._message.problem = asked.problem  # of headers that were there twice, too
                self._parser.feed_data(b"\r\n")
            else:
                return

    @property
    def busy(self) -> bool:
        """Whether a request is on its way or being answered."""
        return not self._closing and (self._stage != _BETWEEN or self._behind)

    @property
    def _behind(self) -> bool:
        """Whether a request is being answered, or waits for that."""
        return self._answering is not None or bool(self._whole)

    def look(self, now: float, idle_seconds: float) -> None:
        """End what has taken too long by `now`."""
        spent = now - self._since
        if self._closing or self._stuck:
            before, self._unread = self._unread, self._transport.get_write_buffer_size()
            if self._unread < before:
                self._since = now  # it takes some, however slowly
            elif spent > CLOSING_SECONDS:
                self._transport.abort()
        elif self._answering is not None:
            pass  # that has limits of its own
        elif self._stage == _BETWEEN:
            if spent > idle_seconds:
                self.close()
        elif spent > self._server.request_seconds:
            what = "head" if self._stage == _HEAD else "body"
            self._refuse(
                SlowRequestError(
                    f"The request's {what} did not come within {self._server.request_seconds:g} seconds."
                )
            )

    def close(self) -> None:
        """Close, once what was written is sent and the caller sends nothing more."""
        if self._closing:
            return
        self._closing = True
        self._since = self._server.now
        if self._deaf and self._transport.can_write_eof():
            # To close at once with something unread would take the answer away from the caller.
            self._transport.write_eof()
            if self._paused:
                self._transport.resume_reading()
        else:
            self._transport.close()

    def _ask_for_body(self) -> None:
        """Tell a caller that waits for it to send its body, if that is wanted."""
        if self._message.problem is None and self._message.headers.pop("expect", None) is not None:
            self._transport.write(CONTINUE)

    def _let_go(self) -> None:
        """Hold nothing of a body any more."""
        self._server.held -= sum(map(len, self._body))
        self._body.clear()

    def _refuse(self, error: TrimtabError) -> None:
        """Answer that this request cannot be taken, behind those before it, and then close."""
        self._deaf = True
        self._let_go()
        message = Message() if self._stage == _BETWEEN else self._message
        message.problem = error
        message.keep_alive = False
        self._stage = _BETWEEN
        self._whole.append(message)
        if not self._driving:
            self._drive()

    def _drive(self) -> None:
        """Have requests answered, one after the other."""
        self._driving = True
        while self._whole and self._answering is None and not (self._closing or self._stuck):
            self._asked = message = self._whole.popleft()
            self._answering = self._server.application.respond(message)
            self._step()
        self._driving = False
        behind = len(self._whole) > MOST_BEHIND or self._stuck
        if behind != self._paused and not self._closing:
            self._paused = behind
            (self._transport.pause_reading if behind else self._transport.resume_reading)()

    def _step(self, _awaited: asyncio.Future[Any] | None = None) -> None:
        """Let the coroutine that answers go on until it waits: by hand, since most wait never or once, and a
        task would cost as much as all else here."""
        self._awaited = None
        coroutine = self._answering
        assert coroutine is not None
        try:
            awaited = coroutine.send(None)
        except StopIteration as end:
            self._answered(end.value)
        except asyncio.CancelledError:
            self._end()
            self._break_off()
        except Exception:  # noqa: BLE001  (a bug ends this connection, and nothing else)
            _log.exception("a request to %s could not be answered", self._asked.path)
            self._end()
            self._break_off()
        else:
            if awaited is None:  # `asyncio.sleep(0)`
                asyncio.get_running_loop().call_soon(self._step)
            else:
                awaited._asyncio_future_blocking = False  # as a task says that it has understood
                awaited.add_done_callback(self._step)
                self._awaited = awaited

    def _break_off(self) -> None:
        """End the connection without an answer."""
        self._closing = self._deaf = True
        self._since = self._server.now
        self._transport.abort()

    def _end(self) -> None:
        """Nothing is being answered any more."""
        self._answering = None
        self._server.held -= len(self._asked.body)

    def _answered(self, response: Response) -> None:
        """Send the answer to what was asked, and go on."""
        self._end()
        if self._closing:
            return
        message = self._asked
        keep = message.keep_alive and not self._server.draining
        if response.headers and ("connection", "close") in response.headers:
            keep = False
        try:
            answer = encoded_answer(response, self._server.date, keep=keep, message=message)
        except Exception:  # noqa: BLE001  (as above)
            _log.exception("the answer to a request to %s cannot be sent", message.path)
            self._break_off()
            return
        self._transport.write(answer)
        self._since = self._server.now
        if not keep:
            self.close()
        elif self._whole:
            if not self._driving:
                self._drive()
        elif self._stage == _BODY:
            self._ask_for_body()


def _head_without_upgrade(asked: Message, target: bytes, version: str) -> bytes:
    """The head of a request that asks for no other protocol, but for the empty line at its end."""
    lines = [b"%s %s HTTP/%s" % (asked.method.encode("latin-1"), target, version.encode("ascii"))]
    lines += [
        f"{name}: {value}".encode("latin-1")
        for name, value in asked.headers.items()
        if name not in {"upgrade", "connection", "http2-settings"}
    ]
    if not asked.keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b""])


def _origin_form(target: str) -> tuple[str | None, str]:
    """The server that a target names, as one for a proxy does, and its path and query."""
    scheme, _, rest = target.partition("://")
    if not scheme.isalpha() or not rest:
        return None, target
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    path = rest[end:].partition("#")[0]
    return rest[:end].rpartition("@")[2], path if path.startswith("/") else f"/{path}"


def possible_connections() -> int:
    """How many connections this process may have, having claimed the files that it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    return max(128, files - OTHER_FILES)


def _connected(connecting: asyncio.Task[Any]) -> None:
    if not connecting.cancelled() and (error := connecting.exception()) is not None:
        _log.debug("a connection ended before it began: %s", error)


def _date() -> bytes:
    """The header Date, which stands behind another."""
    return f"\r\ndate: {email.utils.formatdate(usegmt=True)}".encode("ascii")
