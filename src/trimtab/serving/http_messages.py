"""HTTP requests as they came, and answers as they go."""

from __future__ import annotations

from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from trimtab.errors import TrimtabError

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_phrases = {status.value: status.phrase for status in HTTPStatus}
_heads: dict[tuple[int, str], bytes] = {}  # status and content type: few are ever used


class Headers(Protocol):
    """The headers of a request, by lower-case name."""

    def get(self, key: str, default: Any = None) -> Any:
        """A header's value."""
        ...


class Message:
    """One HTTP request as it came.

    `path` and `query` are what the request's target has before and behind its question mark, not decoded;
    `headers` the first of each, by lower-case name; `started` is `time.perf_counter_ns()` when they were
    there. `problem` is why the request is to be refused whatever it asks, and then its body is not here.
    """

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "problem", "query", "started")

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.query = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.started = 0
        self.keep_alive = True
        self.problem: TrimtabError | None = None


class Response(msgspec.Struct, frozen=True):
    """Status, body, headers beyond the content type, and that."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


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


def encoded_answer(response: Response, date: bytes, *, keep: bool, message: Message) -> bytes:
    """The answer's bytes; `keep`: whether the connection stays open. Raises ValueError for a header that is
    none."""
    kind = (response.status, response.content_type)
    head = _heads.get(kind)
    if head is None:
        head = _heads[kind] = (
            f"HTTP/1.1 {response.status} {_phrases.get(response.status, 'Unknown')}\r\n"
            f"content-type: {response.content_type}\r\ncontent-length: "
        ).encode("latin-1")
    body = response.body
    more = b""
    if response.headers:
        lines = "".join(f"\r\n{name}: {value}" for name, value in response.headers)
        if lines.count("\n") != lines.count("\r\n") or lines.count("\r") != lines.count("\r\n"):
            raise ValueError("A header's value has an end of line in it.")
        more = lines.encode("latin-1")
    if not keep:
        more += b"\r\nconnection: close"
    return b"%s%d%s%s\r\n\r\n%s" % (head, len(body), date, more, b"" if message.method == "HEAD" else body)
