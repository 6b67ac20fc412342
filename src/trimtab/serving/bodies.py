"""The body of a request: whole, within its limit, unpacked."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Protocol

from trimtab.errors import InvalidInputError, MalformedError, TooLargeError
from trimtab.serving.requests import Headers

DRAINED_BYTES = 64 * 2**20
"""How much of a body that is too large is read and thrown away, so that the client hears why."""

BODY_SECONDS = 30.0
"""How long a body may take to come: as long as Granian gives the headers."""

LOOK_SECONDS = 1.0

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Channel(Protocol):
    """RSGI's HTTP protocol: the request's body, and the way back."""

    async def __call__(self) -> bytes:
        """The whole body."""
        ...

    def __aiter__(self) -> Any:
        """The body in chunks."""
        ...

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""
        ...


class UnsupportedEncodingError(InvalidInputError):
    """The body is packed in a way that is not understood."""

    code = "unsupported_encoding"
    http_status = 415


class SlowBodyError(MalformedError):
    """The body did not come in time."""

    code = "slow_body"
    http_status = 408


class Patience:
    """Ends the reading of bodies that do not come: one look at all of them each second, where a timer for
    each would cost every request."""

    def __init__(self, seconds: float = BODY_SECONDS) -> None:
        self._seconds = seconds
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._over: set[asyncio.Task[Any]] = set()
        self._watched = False

    async def read(self, headers: Headers, channel: Channel, limit: int) -> bytes:
        """`read_body`; raises SlowBodyError if it takes too long."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._reading[task] = loop.time() + self._seconds
        if not self._watched:
            self._watched = True
            loop.call_later(LOOK_SECONDS, self._look, loop)
        try:
            return await read_body(headers, channel, limit)
        except asyncio.CancelledError:
            if task not in self._over:
                raise
            task.uncancel()
            raise SlowBodyError(f"The body did not come within {self._seconds:g} seconds.") from None
        finally:
            del self._reading[task]
            self._over.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, deadline in self._reading.items():
            if now > deadline and task not in self._over:
                self._over.add(task)
                task.cancel()
        self._watched = bool(self._reading)
        if self._watched:
            loop.call_later(LOOK_SECONDS, self._look, loop)


async def read_body(headers: Headers, channel: Channel, limit: int) -> bytes:
    """The body, unpacked; raises TooLargeError if it is larger than `limit` bytes, packed or unpacked,
    UnsupportedEncodingError, MalformedError."""
    encoding = headers.get("content-encoding")
    length = headers.get("content-length")
    if length is not None and length.isdigit() and int(length) <= limit:
        body = await channel()
    else:
        body = await _in_chunks(channel, limit)
    if encoding in {None, "", "identity"}:
        return body
    if encoding not in _WINDOWS:
        raise UnsupportedEncodingError(
            f"The body's encoding '{encoding[:40]}' is not understood.", hint="Use gzip or deflate."
        )
    return _unpacked(body, encoding, limit)


async def _in_chunks(channel: Channel, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in channel:
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
            if size > DRAINED_BYTES:
                break
    if size > limit:
        raise _too_large(limit)
    return b"".join(chunks)


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    unpacking = zlib.decompressobj(_WINDOWS[encoding])
    try:
        unpacked = unpacking.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedError(f"The body is not {encoding}: {error}.") from None
    if len(unpacked) > limit:
        raise _too_large(limit)
    if not unpacking.eof:
        raise MalformedError(f"The {encoding} body was cut short.")
    return unpacked


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {limit} bytes.",
        hint="Send fewer rows in one request, or raise the setting body_limit.",
    )
