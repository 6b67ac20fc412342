"""Answers packed as their callers ask for it."""

from __future__ import annotations

import asyncio
import re
import zlib

import msgspec

from trimtab.serving.http_messages import Headers, Response

LEAST_BYTES = 1_400
"""What fits into one packet is not packed, since that would save nobody any time."""

INLINE_BYTES = 128 * 2**10
"""More is packed in a thread, since other requests would wait for it."""

WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""The encodings of bodies that are known here, with what zlib calls their windows."""

_REFUSED = re.compile(r"q=0(\.0*)?$")


async def packed(response: Response, headers: Headers) -> Response:
    """The response, its body packed as the request's header `Accept-Encoding` wants it."""
    accepted = headers.get("accept-encoding")
    if accepted is None or len(response.body) < LEAST_BYTES:
        return response
    encoding = _wanted(accepted)
    if encoding is None:
        return response
    if len(response.body) <= INLINE_BYTES:
        body = _pack(response.body, encoding)
    else:
        body = await asyncio.get_running_loop().run_in_executor(None, _pack, response.body, encoding)
    added = (("content-encoding", encoding), ("vary", "accept-encoding"))
    return msgspec.structs.replace(response, body=body, headers=(*response.headers, *added))


def _wanted(accepted: str) -> str | None:
    """The first encoding that is accepted and known here."""
    for item in accepted.lower().split(","):
        encoding, _, quality = item.replace(" ", "").partition(";")
        if encoding in WINDOWS and not _REFUSED.match(quality):
            return encoding
    return None


def _pack(body: bytes, encoding: str) -> bytes:
    packing = zlib.compressobj(1, wbits=WINDOWS[encoding])
    return packing.compress(body) + packing.flush()
