"""Blobs in a folder of this machine, or of a file system that it shares.

A blob is written to a draft, synced, and renamed to its place, and the folder is synced: what was put
survives a loss of power. What is put again only has its time set anew, under a lock that the sweeper takes
too: either the sweeper sees the new time, or the blob is gone and is written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from trimtab.digest import PREFIX, digest_bytes, is_digest
from trimtab.store.blob_reading import (
    CHUNK,
    BlobReader,
    Draft,
    KeptBlob,
    StreamedBlobs,
    corrupt,
    draft_path,
    name_of,
    swept_drafts,
    sync_folder,
    translated,
    written_at,
)

SETTLED_SECONDS = 60.0
"""After so long a file system has written a folder's change down by itself."""


REMEMBERED = 10_000


class FolderBlobs(StreamedBlobs):
    """Blobs on a POSIX file system. Drafts lie beside them, so that a rename is all that keeps one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._drafts = root / "drafts"
        self._drafts.mkdir(parents=True, exist_ok=True)
        self._lock_file = root / "sweep.lock"
        self._synced: dict[str, None] = {}  # blobs that are known to be there after a loss of power

    def draft(self) -> Draft:
        """See `Blobs.draft`."""
        with translated(""):
            return Draft(draft_path(self._drafts), self._keep)

    def put(self, data: bytes) -> str:
        """See `Blobs.put`."""
        digest = digest_bytes(data)
        if not self.refresh(digest):
            with self.draft() as draft:
                draft.write(data)
                with translated(digest):
                    self._place(draft, digest)
        return digest

    def get(self, digest: str) -> bytes:
        """See `Blobs.get`."""
        with translated(digest):
            data = self._path(digest).read_bytes()
        if digest_bytes(data) != digest:
            raise corrupt(digest)
        return data

    def open(self, digest: str, first: int = 0, length: int | None = None) -> BlobReader:
        """See `Blobs.open`."""
        with translated(digest):
            file = self._path(digest).open("rb", buffering=0)
            size = os.fstat(file.fileno()).st_size
            file.seek(first)
        whole = first == 0 and (length is None or length >= size)
        chunks = _chunks(file, size if length is None else length)
        return BlobReader(digest, size, chunks, file.close, whole=whole)

    def exists(self, digest: str) -> bool:
        """See `Blobs.exists`."""
        return self._path(digest).exists()

    def refresh(self, digest: str) -> bool:
        """See `Blobs.refresh`."""
        path = self._path(digest)
        with translated(digest), self._locked(fcntl.LOCK_SH):
            try:
                before = path.stat().st_mtime
                os.utime(path)
            except FileNotFoundError:
                return False
            except PermissionError:  # somebody else's file: written anew under our name
                return False
        if digest not in self._synced:
            if time.time() - before < SETTLED_SECONDS:
                sync_folder(path.parent)  # whoever put it may not have come so far
            self._remember(digest)
        return True

    def listed(self) -> Iterator[KeptBlob]:
        """See `Blobs.listed`."""
        for shard in sorted((self._root / "b3").glob("??")):
            for path in shard.iterdir():  # lists the whole folder before it gives the first
                if is_digest(PREFIX + path.name):
                    with contextlib.suppress(FileNotFoundError):
                        status = path.stat()
                        yield KeptBlob(PREFIX + path.name, status.st_size, written_at(status))

    def digests(self) -> Iterator[str]:
        """See `Blobs.digests`."""
        return (blob.digest for blob in self.listed())

    def delete(self, digest: str) -> None:
        """See `Blobs.delete`."""
        with translated(digest), self._locked(fcntl.LOCK_EX):
            self._path(digest).unlink(missing_ok=True)

    def sweep(self, digest: str, before: datetime) -> bool:
        """See `Blobs.sweep`."""
        path = self._path(digest)
        with translated(digest), self._locked(fcntl.LOCK_EX):
            try:
                if written_at(path.stat()) >= before:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def sweep_drafts(self, before: datetime) -> int:
        """See `Blobs.sweep_drafts`."""
        return swept_drafts(self._drafts, before)

    def _keep(self, draft: Draft, digest: str) -> None:
        if not self.refresh(digest):
            self._place(draft, digest)

    def _place(self, draft: Draft, digest: str) -> None:
        path = self._path(digest)
        if not path.parent.is_dir():
            self._make_shards()
        os.utime(draft.path)  # it counts as written when it was put, not when its last byte came
        os.fsync(draft.file.fileno())
        draft.path.rename(path)
        sync_folder(path.parent)
        self._remember(digest)

    def _remember(self, digest: str) -> None:
        if len(self._synced) >= REMEMBERED:
            self._synced.clear()
        self._synced[digest] = None

    def _make_shards(self) -> None:
        """Make all folders of blobs at once: to sync each one when it is needed would slow the first puts."""
        for number in range(256):
            (self._root / "b3" / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        sync_folder(self._root / "b3")
        sync_folder(self._root)

    def _path(self, digest: str) -> Path:
        return self._root / name_of(digest)

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        descriptor = os.open(self._lock_file, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)


def _chunks(file: IO[bytes], left: int) -> Iterator[bytes]:
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        left -= len(chunk)
        yield chunk
