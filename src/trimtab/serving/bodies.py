"""The body of a request: whole, within its limit, unpacked."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from trimtab.errors import InvalidInputError, MalformedError, TooLargeError
from trimtab.serving.requests import Headers

DRAINED_BYTES = 64 * 2**20
"""How much of a body that is too large is read and thrown away, so that the client hears why."""

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
