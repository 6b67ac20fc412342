"""What all blob stores have in common: drafts, reads that are checked, trees made of blobs."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import blake3
import msgspec

from trimtab.digest import PREFIX, is_digest
from trimtab.errors import (
    InvalidInputError,
    ModelCorruptError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from trimtab.store.trees import Manifest, TreeFile, confined, manifest_bytes
from trimtab.store.types import from_microseconds

CHUNK = 2**20
"""Bytes that are read or written at a time."""


class KeptBlob(msgspec.Struct, frozen=True):
    """A blob as the store lists it: its bytes, and when (by the store's clock) it was last put."""

    digest: str
    size: int
    written_at: datetime


class Draft:
    """Bytes on their way into the store: hashed as they come, in a file of no name that counts.

    `keep` makes them a blob; a draft that is closed before is gone.
    """

    def __init__(self, path: Path, keep: Callable[[Draft, str], None]) -> None:
        self.path = path
        self.size = 0
        self._hasher = blake3.blake3()
        self._keep = keep
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        self.file: IO[bytes] = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; raises StorageFullError."""
        rest = memoryview(data)
        self._hasher.update(rest)
        self.size += len(rest)
        with translated(""):
            while rest:
                rest = rest[self.file.write(rest) :]

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return PREFIX + self._hasher.hexdigest()

    def keep(self) -> str:
        """Keep what was written and answer its digest; on return it survives a loss of power."""
        digest = self.digest
        with translated(digest):
            self._keep(self, digest)
        return digest

    def close(self) -> None:
        """Let go of the file; no error if it was kept."""
        self.file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobReader:
    """A blob, or a range of one, that is read chunk by chunk.

    `size` is that of the whole blob. A whole read raises ModelCorruptError, before its last chunk, if the
    bytes are not what the digest says; the bytes of a range cannot be checked.
    """

    def __init__(
        self, digest: str, size: int, chunks: Iterator[bytes], close: Callable[[], None], *, whole: bool
    ) -> None:
        self.size = size
        self._digest = digest
        self._chunks = chunks
        self._close = close
        self._whole = whole

    def __iter__(self) -> Iterator[bytes]:
        hasher = blake3.blake3()
        held = b""
        with translated(self._digest):
            for chunk in self._chunks:
                if self._whole:
                    hasher.update(chunk)
                if held:
                    yield held
                held = chunk
        if self._whole and PREFIX + hasher.hexdigest() != self._digest:
            raise corrupt(self._digest)
        if held:
            yield held

    def close(self) -> None:
        """Let go of the store; closing twice is fine."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StreamedBlobs(ABC):
    """All that can be said of blobs in terms of drafts, reads and puts. See `trimtab.store.blobs.Blobs`."""

    @abstractmethod
    def draft(self) -> Draft:
        """See `Blobs.draft`."""

    @abstractmethod
    def open(self, digest: str, first: int = 0, length: int | None = None) -> BlobReader:
        """See `Blobs.open`."""

    @abstractmethod
    def refresh(self, digest: str) -> bool:
        """See `Blobs.refresh`."""

    @abstractmethod
    def put(self, data: bytes) -> str:
        """See `Blobs.put`."""

    def put_file(self, path: Path) -> str:
        """See `Blobs.put_file`."""
        with path.open("rb", buffering=0) as source, self.draft() as draft:
            while chunk := source.read(CHUNK):
                draft.write(chunk)
            return draft.keep()

    def put_tree(self, folder: Path) -> str:
        """See `Blobs.put_tree`."""
        files: dict[str, TreeFile] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise InvalidInputError(
                    f"'{name}' in {folder} is a symbolic link.", hint="Copy the file itself."
                )
            if path.is_file():
                files[name] = TreeFile(self.put_file(path), path.stat().st_size)
        return self.put(manifest_bytes(files))

    def put_manifest(self, files: dict[str, TreeFile]) -> str:
        """See `Blobs.put_manifest`."""
        for file in files.values():
            if not self.refresh(file.digest):
                raise missing(file.digest)
        return self.put(manifest_bytes(files))

    def get(self, digest: str) -> bytes:
        """See `Blobs.get`."""
        with self.open(digest) as reader:
            return b"".join(reader)

    def manifest(self, digest: str) -> Manifest:
        """See `Blobs.manifest`."""
        try:
            return msgspec.json.decode(self.get(digest), type=Manifest)
        except msgspec.DecodeError:
            raise InvalidInputError(f"The blob {digest} is not a tree.") from None

    def fetch_file(self, digest: str, to: Path) -> None:
        """See `Blobs.fetch_file`."""
        to.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=to.parent, prefix=".fetch-")
        try:
            with os.fdopen(handle, "wb") as file, self.open(digest) as reader:
                for chunk in reader:
                    file.write(chunk)
            Path(name).replace(to)
        except BaseException:
            Path(name).unlink()
            raise

    def fetch_tree(self, digest: str, to: Path) -> None:
        """See `Blobs.fetch_tree`."""
        if to.exists():
            return
        manifest = self.manifest(digest)
        to.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=to.parent, prefix=".fetch-"))
        try:
            for name, file in manifest.files.items():
                self.fetch_file(file.digest, draft / confined(name))
            draft.chmod(0o755)
            try:
                draft.rename(to)
            except OSError:
                if not to.exists():  # otherwise somebody else was quicker with the same tree
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def name_of(digest: str) -> str:
    """A digest's place within a store; raises InvalidInputError for what is no digest."""
    if not is_digest(digest):
        raise InvalidInputError(f"'{digest}' is not a digest.")
    name = digest.removeprefix(PREFIX)
    return f"b3/{name[:2]}/{name}"


def draft_path(folder: Path) -> Path:
    """A new name for a draft in a folder."""
    return folder / f"draft-{os.urandom(12).hex()}"


def written_at(status: os.stat_result) -> datetime:
    """When a file was last written to."""
    return from_microseconds(status.st_mtime_ns // 1000)


def swept_drafts(folder: Path, before: datetime) -> int:
    """Remove a folder's drafts that were last written to before that; answers how many bytes they had."""
    freed = 0
    for path in folder.glob("draft-*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if written_at(status) < before:
                path.unlink()
                freed += status.st_size
    return freed


def sync_folder(folder: Path) -> None:
    """Have a folder's names survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def corrupt(digest: str) -> ModelCorruptError:
    """What is raised for bytes that are not what their digest says."""
    return ModelCorruptError(
        f"The stored bytes of {digest} have changed.", hint="Restore the blob store from a backup."
    )


def missing(digest: str) -> NotFoundError:
    """What is raised for a blob that is not kept."""
    return NotFoundError(f"The blob {digest} is not in the store.")


@contextlib.contextmanager
def translated(digest: str) -> Iterator[None]:
    """Turn the system's words for "not there" and "full" into ours."""
    try:
        yield
    except FileNotFoundError:
        raise missing(digest) from None
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT} or "No space left" in str(error):
            raise full() from error
        raise unavailable(error) from error


def full() -> StorageFullError:
    """What is raised where no more bytes go."""
    return StorageFullError("The blob store is full.", hint="Free some space (`trimtab gc`) and try again.")


def unavailable(error: Exception) -> UnavailableError:
    """What is raised where the store does not answer."""
    return UnavailableError(f"The blob store does not answer: {error}.", hint="Check that it can be reached.")
