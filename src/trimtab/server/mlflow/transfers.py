"""Files on their way through the server, at flat memory: what arrives goes to the store as it comes, what
leaves is read as it is taken."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import re
from collections.abc import Iterator
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from trimtab.errors import InvalidInputError
from trimtab.store.blobs import BlobReader, Blobs, Draft, TreeFile

IN_MEMORY = 2**20
"""Bytes that are held in memory on their way."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Body:
    """The body of a request, taken piece by piece; `size` is what came so far."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._announced = header(scope, b"content-length")
        self._more = True
        self.size = 0

    async def piece(self) -> bytes:
        """The next `IN_MEMORY` bytes or a little more, or what is left, b"" at the end; raises
        InvalidInputError if the body was broken off."""
        parts: list[bytes] = []
        length = 0
        while self._more and length < IN_MEMORY:
            message = await self._receive()
            if message["type"] != "http.request":
                raise _broken()
            part = message.get("body", b"")
            length += len(part)
            parts.append(part)
            self._more = message.get("more_body", False)
        self.size += length
        if not self._more and self._announced.isdecimal() and int(self._announced) != self.size:
            raise _broken()
        return b"".join(parts)

    @property
    def ended(self) -> bool:
        """Whether all of it came."""
        return not self._more

    async def into(self, draft: Draft, first: bytes = b"") -> None:
        """Write what is left of it to a draft, after `first`."""
        if first:
            await asyncio.to_thread(draft.write, first)
        while piece := await self.piece():
            await asyncio.to_thread(draft.write, piece)


class Download(StreamingResponse):
    """A blob that is read while it is sent, and let go of however the sending ends."""

    def __init__(self, reader: BlobReader, status: int, headers: dict[str, str], kind: str) -> None:
        super().__init__(iter(reader), status_code=status, headers=headers, media_type=kind)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with contextlib.closing(self._reader):
            await super().__call__(scope, receive, send)


def download(blobs: Blobs, name: str, file: TreeFile, scope: Scope) -> Response:
    """The answer that sends a file, or the range of it that is asked for."""
    tag = f'"{file.digest.partition(":")[2]}"'
    headers = {
        # Whatever was logged, a browser must not run it as a page of this server's.
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "ETag": tag,
    }
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    unchanged = header(scope, b"if-range") in {"", tag}
    wanted = _range(header(scope, b"range"), file.size) if unchanged else None
    if scope["method"] == "HEAD":
        headers["Content-Length"] = str(file.size)
        return Response(media_type=kind, headers=headers)
    if wanted is None:
        if file.size <= IN_MEMORY:
            return Response(blobs.get(file.digest), media_type=kind, headers=headers)
        headers["Content-Length"] = str(file.size)
        return Download(blobs.open(file.digest), 200, headers, kind)
    if not wanted:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{file.size}"})
    headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{file.size}"
    headers["Content-Length"] = str(len(wanted))
    return Download(blobs.open(file.digest, wanted.start, len(wanted)), 206, headers, kind)


def header(scope: Scope, name: bytes) -> str:
    """A header's value, "" if there is none."""
    found: Iterator[bytes] = (value for key, value in scope["headers"] if key == name)
    return next(found, b"").decode("latin-1")


def _range(asked: str, size: int) -> range | None:
    """The bytes that are wanted: none for a range beyond the end, None for all (also where more than one
    range is asked for, as HTTP allows)."""
    match = _RANGE.fullmatch(asked.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        return range(max(0, size - int(match[2])), size)
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    return range(int(match[1]), last + 1)


def _broken() -> InvalidInputError:
    return InvalidInputError("The upload was broken off.", hint="Send it again.")
