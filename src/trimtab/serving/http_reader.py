"""The requests of one connection, as httptools makes them out of its bytes."""

from __future__ import annotations

import time
from collections import deque
from typing import Final, Protocol

import httptools

from trimtab.errors import InvalidInputError, MalformedError, TrimtabError, UnavailableError
from trimtab.serving.http_messages import Application, Message

HEAD_BYTES = 64 * 2**10
"""How long a request's first line and headers may be together, beyond what was read at first."""

DISCARDED_BYTES = 2**20
"""How much of a body that nobody wants is read before the request is answered; then its connection ends."""

LARGE_PIECE = 4 * 2**10
"""Pieces of a body that are smaller are put together at once, since each costs memory beside its bytes."""

BODIES_HELD = 2**29
"""How many bytes of bodies may be there, on their way or being answered."""

BETWEEN: Final = 0
HEAD: Final = 1
BODY: Final = 2

_names: dict[bytes, str] = {}
_MOST_NAMES = 1_000


class HeadTooLargeError(InvalidInputError):
    """The first line and the headers of a request are too long."""

    code = "head_too_large"
    http_status = 431


class Receiver(Protocol):
    """What the readers of all connections share: `held` is bytes of bodies, `now` the time."""

    application: Application
    held: int
    now: float


class RequestReader:
    """Reads the requests of one connection, and puts those that are whole into `whole`.

    `stage` is that of the `message` on its way since `since`: BETWEEN two, in its HEAD, or in its BODY.
    `ended` is whether what still comes is no request any more.
    """

    def __init__(self, receiver: Receiver, whole: deque[Message]) -> None:
        self.stage = BETWEEN
        self.since = receiver.now
        self.message = Message()
        self.ended = False
        self._receiver = receiver
        self._whole = whole
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._head = 0
        self._body: list[bytes | bytearray] = []
        self._come = 0  # bytes of the body so far

    def read(self, data: bytes) -> None:
        """Take what came. Raises TrimtabError for why no more is to be read."""
        before = self.message
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            raise MalformedError(f"This is not a request of HTTP/1.1: {error}.") from None
        stage = self.stage
        if stage == HEAD:
            self._head = self._head + len(data) if self.message is before else 0
            if self._head > HEAD_BYTES:
                raise HeadTooLargeError(f"The request's head is larger than {HEAD_BYTES} bytes.")
        elif stage == BODY:
            problem = self.message.problem
            if problem is not None and (self._come > DISCARDED_BYTES or "expect" in self.message.headers):
                raise problem

    def refuse(self, error: TrimtabError) -> None:
        """Take the request that is on its way, or would be the next, to be whole and to have this problem."""
        self.let_go()
        message = Message() if self.stage == BETWEEN else self.message
        message.problem = error
        message.keep_alive = False
        self.stage = BETWEEN
        self._whole.append(message)

    def let_go(self) -> None:
        """Hold nothing of a body any more."""
        self._receiver.held -= sum(map(len, self._body))
        self._body.clear()

    def _feed(self, data: bytes) -> None:
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
                    self.ended = True
                    return
                rest = memoryview(rest)[upgrade.args[0] :]
                lines = _head_without_upgrade(asked, self._target, self._parser.get_http_version())
                self._parser = httptools.HttpRequestParser(self)
                self._parser.feed_data(lines)
                self.message.problem = asked.problem  # of headers that were there twice, too
                self._parser.feed_data(b"\r\n")
            else:
                return

    # What httptools calls.

    def on_message_begin(self) -> None:
        """A request's first byte is there."""
        self.message = Message()
        self._target = b""
        self.stage = HEAD
        self.since = self._receiver.now

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or behind the body a trailer, which nobody asked for."""
        if self.stage != HEAD:
            return
        known = _names.get(name)
        if known is None:
            known = name.decode("latin-1").lower()
            if len(_names) < _MOST_NAMES:
                _names[name] = known
        headers = self.message.headers
        if known not in headers:
            headers[known] = value.decode("latin-1")
        elif known in {"host", "authorization"}:
            self.message.problem = MalformedError(f"The request has several headers {known}.")

    def on_headers_complete(self) -> None:
        """The head is there: see whether the body is wanted."""
        message = self.message
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
            message.problem = self._receiver.application.objection(message)
        self.stage = BODY
        self.since = self._receiver.now

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        size = len(data)
        self._come += size
        message, receiver = self.message, self._receiver
        if message.problem is not None:
            return
        message.problem = receiver.application.body_objection(self._come)
        if message.problem is None and receiver.held > BODIES_HELD:
            message.problem = UnavailableError(
                "The gateway receives more than it can hold.", hint="Come back a little later."
            )
        if message.problem is not None:
            self.let_go()
            return
        receiver.held += size
        pieces = self._body
        if size >= LARGE_PIECE or not pieces:
            pieces.append(data)  # and copied once, when all are there
        elif type(last := pieces[-1]) is bytearray:
            last += data
        else:
            pieces.append(bytearray(data))

    def on_message_complete(self) -> None:
        """The request is whole."""
        message = self.message
        if isinstance(message.problem, MalformedError) or not self._parser.should_keep_alive():
            message.keep_alive = False
        pieces = self._body
        if pieces:
            message.body = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()  # and held until it is answered
        self._come = 0
        self.stage = BETWEEN
        self._whole.append(message)


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
