"""Blobs on any object store that obstore speaks to.

Beside `b3/` there are two kinds of small objects. `kept/NAME` is written when a blob is put that stands
already: its time counts as the blob's. `going/NAME` is written by a sweeper before it looks at that time for
the last time. Each side writes its own object first and then looks for the other's, so one always sees the
other.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError as ObstoreError
from obstore.exceptions import NotFoundError as ObstoreNotFoundError

from trimtab.digest import PREFIX, digest_bytes
from trimtab.errors import UnavailableError
from trimtab.store.blob_reading import (
    CHUNK,
    BlobReader,
    Draft,
    KeptBlob,
    StreamedBlobs,
    draft_path,
    full,
    missing,
    name_of,
    swept_drafts,
    unavailable,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SWEEP_SECONDS = 60.0
"""A sweeper that took longer over one blob than this has died."""

GONE = (ObstoreNotFoundError, FileNotFoundError)


class ObjectBlobs(StreamedBlobs):
    """Blobs on an obstore store; `drafts` is a folder of this machine for what is on its way."""

    def __init__(self, store: ObjectStore, drafts: Path | None = None) -> None:
        self._store = store
        self._drafts = drafts

    def draft(self) -> Draft:
        """See `Blobs.draft`."""
        folder = self._drafts or Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        return Draft(draft_path(folder), self._keep)

    def put(self, data: bytes) -> str:
        """See `Blobs.put`."""
        digest = digest_bytes(data)
        if not self.refresh(digest):
            with _answering(digest):
                obstore.put(self._store, name_of(digest), data)
        return digest

    def open(self, digest: str, first: int = 0, length: int | None = None) -> BlobReader:
        """See `Blobs.open`."""
        name = name_of(digest)
        with _answering(digest):
            if first == 0 and length is None:
                found = obstore.get(self._store, name)
                return BlobReader(digest, found.meta["size"], _whole(digest, found), _nothing, whole=True)
            size = obstore.head(self._store, name)["size"]
        last = size if length is None else min(size, first + length)
        whole = first == 0 and last == size
        return BlobReader(digest, size, self._ranges(digest, first, last), _nothing, whole=whole)

    def exists(self, digest: str) -> bool:
        """See `Blobs.exists`."""
        with _answering(digest):
            return self._written(name_of(digest)) is not None

    def refresh(self, digest: str) -> bool:
        """See `Blobs.refresh`."""
        name = name_of(digest)
        with _answering(digest):
            if self._written(name) is None:
                return False
            obstore.put(self._store, _beside("kept", name), b"")
            deadline = time.monotonic() + SWEEP_SECONDS
            while (since := self._written(_beside("going", name))) is not None:
                if time.monotonic() > deadline or _age(since) > SWEEP_SECONDS:
                    break
                time.sleep(0.05)
            return self._written(name) is not None

    def listed(self) -> Iterator[KeptBlob]:
        """See `Blobs.listed`."""
        with _answering(""):
            kept = {item["path"].rsplit("/", 1)[-1]: item["last_modified"] for item in self._items("kept")}
            for item in self._items("b3"):
                name = item["path"].rsplit("/", 1)[-1]
                written_at = max(item["last_modified"], kept.get(name, item["last_modified"]))
                yield KeptBlob(PREFIX + name, item["size"], written_at)

    def digests(self) -> Iterator[str]:
        """See `Blobs.digests`."""
        with _answering(""):
            for item in self._items("b3"):
                yield PREFIX + item["path"].rsplit("/", 1)[-1]

    def delete(self, digest: str) -> None:
        """See `Blobs.delete`."""
        name = name_of(digest)
        with _answering(digest):
            for each in (name, _beside("kept", name)):
                self._delete(each)

    def sweep(self, digest: str, before: datetime) -> bool:
        """See `Blobs.sweep`."""
        name = name_of(digest)
        with _answering(digest):
            obstore.put(self._store, _beside("going", name), b"")
            try:
                times = [self._written(name), self._written(_beside("kept", name))]
                if times[0] is None or any(at is not None and at >= before for at in times):
                    return False
                self.delete(digest)
            finally:
                self._delete(_beside("going", name))
        return True

    def sweep_drafts(self, before: datetime) -> int:
        """See `Blobs.sweep_drafts`."""
        return swept_drafts(self._drafts, before) if self._drafts is not None else 0

    def _keep(self, draft: Draft, digest: str) -> None:
        if not self.refresh(digest):
            with _answering(digest):
                obstore.put(self._store, name_of(digest), draft.path)

    def _ranges(self, digest: str, first: int, last: int) -> Iterator[bytes]:
        for start in range(first, last, CHUNK):
            with _answering(digest):
                found = obstore.get_range(
                    self._store, name_of(digest), start=start, end=min(start + CHUNK, last)
                )
            yield bytes(found)

    def _written(self, name: str) -> datetime | None:
        try:
            return obstore.head(self._store, name)["last_modified"]
        except GONE:
            return None

    def _delete(self, name: str) -> None:
        with contextlib.suppress(*GONE):
            obstore.delete(self._store, name)

    def _items(self, prefix: str) -> Iterator[obstore.ObjectMeta]:
        for page in obstore.list(self._store, prefix=prefix):
            yield from page


def _beside(kind: str, name: str) -> str:
    return f"{kind}/{name.removeprefix('b3/')}"


def _whole(digest: str, found: obstore.GetResult) -> Iterator[bytes]:
    with _answering(digest):
        for chunk in found.stream(min_chunk_size=CHUNK):
            for start in range(0, len(chunk), CHUNK):  # the store in memory has it all in one
                yield bytes(chunk[start : start + CHUNK])


def _nothing() -> None:
    """A stream of obstore's ends with whoever reads it."""


def _age(at: datetime) -> float:
    return (datetime.now(UTC) - at) / timedelta(seconds=1)


@contextlib.contextmanager
def _answering(digest: str) -> Iterator[None]:
    try:
        yield
    except GONE:
        raise missing(digest) from None
    except UnavailableError:
        raise
    except (ObstoreError, OSError) as error:
        if "No space left" in str(error):
            raise full() from error
        raise unavailable(error) from error
