"""HTTP/1.1 as the gateway speaks it, in the event loop of its worker.

httptools (llhttp, the parser of Node.js) reads the bytes, and refuses what is not HTTP to the letter. Here,
and in `http_reader`, is what a parser does not know: how much a request may hold, how long it may take, in
which order answers go back, and what happens once a caller is gone. Why no server does this is told in
docs/decisions/0010.
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
from typing import Any

from trimtab.errors import MalformedError, TrimtabError
from trimtab.serving.http_messages import CONTINUE, Application, Message, Response, encoded_answer
from trimtab.serving.http_reader import BETWEEN, BODY, HEAD, RequestReader

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

_log = logging.getLogger(__name__)


class SlowRequestError(MalformedError):
    """A request did not come in time."""

    code = "slow_request"
    http_status = 408


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
        """Answer what has come, take no more, and close all connections, within so many seconds. May be
        repeated."""
        self.draining = True
        deadline = time.monotonic() + seconds
        await asyncio.sleep(QUIET_SECONDS)  # who has just come is taken after it
        while self._taking and self._take():  # whoever waits in the socket, and is reset when it is closed
            pass
        self._taking = False
        self._accept(False)
        self._listener.close()  # who comes now is refused, and need not wait for nothing
        await asyncio.sleep(QUIET_SECONDS)  # and what the last of them sent is read
        # Polled, so that requests need not tell anybody that they are done.
        while any(each.busy for each in self.connections) and time.monotonic() < deadline:  # noqa: ASYNC110  (at the end, once)
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
        while self.connections and time.monotonic() < deadline:  # noqa: ASYNC110  (as above)
            await asyncio.sleep(0.02)
        self._watching.cancel()

    def _accept(self, wanted: bool) -> None:
        if wanted != self._accepting:
            self._accepting = wanted
            if wanted:
                self._loop.add_reader(self._listener, self._take)
            else:
                self._loop.remove_reader(self._listener)

    def _take(self) -> bool:
        """Take one connection, if there is one: another process may take the next."""
        try:
            taken, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                raise
            _log.error("no connection can be taken: %s", error)
            self._accept(False)  # until the next look
            return False
        taken.setblocking(False)
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting = self._loop.connect_accepted_socket(lambda: Connection(self), taken)
        self._loop.create_task(connecting).add_done_callback(_connected)
        if len(self.connections) >= self._most:
            self._accept(False)  # until the next look
        elif self._shared:
            self._accept(False)
            self._loop.call_later(TURN_SECONDS, self._go_on)
        return True

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
    """What asyncio calls about one connection."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._whole: deque[Message] = deque()  # requests behind the one that is being answered
        self._reader = RequestReader(server, self._whole)
        self._transport: asyncio.Transport
        self._since = server.now  # when the last answer went, or it was begun to close
        self._asked = Message()
        self._answering: Coroutine[Any, Any, Response] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._driving = False
        self._paused = False
        self._stuck = False  # the caller does not read its answers
        self._unread = 0  # bytes of them, as of the last look
        self._deaf = False  # what comes is thrown away
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # of a stream, it is an asyncio.Transport
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take what came, and have the requests answered that are whole."""
        if self._deaf:
            return
        reader = self._reader
        try:
            reader.read(data)
        except TrimtabError as error:
            self._refuse(error)
            return
        if reader.ended:
            self._deaf = True
        elif reader.stage == BODY and not self._behind:
            self._ask_for_body()
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
        self._reader.let_go()
        self._server.held -= sum(len(message.body) for message in self._whole)
        self._whole.clear()
        if self._awaited is not None:
            self._awaited.cancel()

    @property
    def busy(self) -> bool:
        """Whether a request is on its way or being answered."""
        return not self._closing and (self._reader.stage != BETWEEN or self._behind)

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
        elif self._reader.stage == BETWEEN:
            if spent > idle_seconds:
                self.close()
        elif min(spent, now - self._reader.since) > self._server.request_seconds:
            what = "head" if self._reader.stage == HEAD else "body"
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
        message = self._reader.message
        if message.problem is None and message.headers.pop("expect", None) is not None:
            self._transport.write(CONTINUE)

    def _refuse(self, error: TrimtabError) -> None:
        """Answer that this request cannot be taken, behind those before it, and then close."""
        self._deaf = True
        self._reader.refuse(error)
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
        elif self._reader.stage == BODY:
            self._ask_for_body()


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
