"""The body of a request: within its limit, and unpacked."""

from __future__ import annotations

import zlib

from trimtab.errors import InvalidInputError, MalformedError, TooLargeError
from trimtab.serving.compression import WINDOWS
from trimtab.serving.http_messages import Message


class UnsupportedEncodingError(InvalidInputError):
    """The body is packed in a way that is not understood."""

    code = "unsupported_encoding"
    http_status = 415


def body_of(message: Message, limit: int) -> bytes:
    """A request's body, unpacked. Raises TooLargeError if that is larger than `limit` bytes,
    UnsupportedEncodingError, MalformedError."""
    encoding = message.headers.get("content-encoding")
    if encoding is None or (encoding := encoding.lower()) in {"", "identity"}:
        return message.body
    if encoding not in WINDOWS:
        raise UnsupportedEncodingError(
            f"The body's encoding '{encoding[:40]}' is not understood.", hint="Use gzip or deflate."
        )
    return _unpacked(message.body, encoding, limit)


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    unpacking = zlib.decompressobj(WINDOWS[encoding])
    try:
        unpacked = unpacking.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedError(f"The body is not {encoding}: {error}.") from None
    if len(unpacked) > limit:
        raise too_large(limit)
    if not unpacking.eof:
        raise MalformedError(f"The {encoding} body was cut short.")
    if unpacking.unused_data:
        raise MalformedError(
            f"The {encoding} body ends before its last byte.",
            hint="Pack it in one piece.",
        )
    return unpacked


def too_large(limit: int) -> TooLargeError:
    """What is said of a body that is larger than so many bytes."""
    return TooLargeError(
        f"The body is larger than {limit} bytes.",
        hint="Send fewer rows in one request, or raise the setting body_limit.",
    )
