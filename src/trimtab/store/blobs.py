"""Blobs: bytes kept under the digest of what they are, on any store that obstore speaks to.

A tree is a folder kept as a manifest (relative path to digest and size), itself a blob; its digest is the
manifest's. What is read is checked against its digest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec
import obstore
from obstore.exceptions import BaseError as ObstoreError
from obstore.exceptions import NotFoundError as ObstoreNotFoundError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from trimtab.config import without_secrets
from trimtab.digest import PREFIX, digest_bytes, digest_file, is_digest
from trimtab.errors import (
    InvalidInputError,
    ModelCorruptError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)


class TreeFile(msgspec.Struct, frozen=True):
    """One file of a tree: its digest and its size in bytes."""

    digest: str
    size: int


class Manifest(msgspec.Struct, frozen=True, tag="tree"):
    """The files of a tree by their relative paths, written with '/'."""

    files: dict[str, TreeFile]


class Blobs(Protocol):
    """The port of the blob store."""

    def put(self, data: bytes) -> str:
        """Keep these bytes and answer their digest; keeping them twice costs nothing more."""
        ...

    def put_file(self, path: Path) -> str:
        """Keep a file's bytes, read at flat memory."""
        ...

    def put_tree(self, folder: Path) -> str:
        """Keep all regular files below `folder`; raises InvalidInputError for a symbolic link."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes; raises NotFoundError if they are not kept, ModelCorruptError if they changed."""
        ...

    def manifest(self, digest: str) -> Manifest:
        """What a tree holds."""
        ...

    def fetch_file(self, digest: str, to: Path) -> None:
        """Write the bytes to the file `to`, whole or not at all."""
        ...

    def fetch_tree(self, digest: str, to: Path) -> None:
        """Write the tree to the folder `to`, whole or not at all; does nothing if `to` stands."""
        ...

    def exists(self, digest: str) -> bool:
        """Whether these bytes are kept."""
        ...

    def digests(self) -> Iterator[str]:
        """All digests that are kept, in no order."""
        ...

    def delete(self, digest: str) -> None:
        """Forget these bytes; no error if they are not kept."""
        ...


def open_blobs(url: str) -> Blobs:
    """The blob store at `url`: a folder, "memory://", or any URL that obstore knows (s3://...)."""
    if url == "memory://":
        return ObstoreBlobs(MemoryStore())
    if "://" not in url:
        Path(url).mkdir(parents=True, exist_ok=True)
        return ObstoreBlobs(LocalStore(url))
    try:
        return ObstoreBlobs(from_url(url))
    except (ObstoreError, ValueError) as error:
        raise InvalidInputError(
            f"'{without_secrets(url)}' is not a blob store that Trimtab can use: {error}.",
            hint="Give a folder, or a URL such as s3://BUCKET/PREFIX.",
        ) from None


class ObstoreBlobs:
    """Blobs on an obstore store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, data: bytes) -> str:
        """See `Blobs.put`."""
        digest = digest_bytes(data)
        with _translated(digest):
            if not self.exists(digest):
                obstore.put(self._store, _key(digest), data)
        return digest

    def put_file(self, path: Path) -> str:
        """See `Blobs.put_file`."""
        digest = digest_file(path)
        with _translated(digest):
            if not self.exists(digest):
                obstore.put(self._store, _key(digest), path)
        return digest

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
        return self.put(msgspec.json.encode(Manifest(files), order="deterministic"))

    def get(self, digest: str) -> bytes:
        """See `Blobs.get`."""
        with _translated(digest):
            data = bytes(obstore.get(self._store, _key(digest)).bytes())
        if digest_bytes(data) != digest:
            raise _corrupt(digest)
        return data

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
            with os.fdopen(handle, "wb") as file, _translated(digest):
                for chunk in obstore.get(self._store, _key(digest)).stream():
                    file.write(chunk)
            if digest_file(name) != digest:
                raise _corrupt(digest)
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
                self.fetch_file(file.digest, draft / _confined(name))
            draft.chmod(0o755)
            try:
                draft.rename(to)
            except OSError:
                if not to.exists():  # otherwise somebody else was quicker with the same tree
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def exists(self, digest: str) -> bool:
        """See `Blobs.exists`."""
        try:
            obstore.head(self._store, _key(digest))
        except (ObstoreNotFoundError, FileNotFoundError):
            return False
        return True

    def digests(self) -> Iterator[str]:
        """See `Blobs.digests`."""
        for page in obstore.list(self._store, prefix="b3"):
            for item in page:
                yield PREFIX + item["path"].rsplit("/", 1)[-1]

    def delete(self, digest: str) -> None:
        """See `Blobs.delete`."""
        with contextlib.suppress(ObstoreNotFoundError, FileNotFoundError):
            obstore.delete(self._store, _key(digest))


def _key(digest: str) -> str:
    if not is_digest(digest):
        raise InvalidInputError(f"'{digest}' is not a digest.")
    name = digest.removeprefix(PREFIX)
    return f"b3/{name[:2]}/{name}"


def _confined(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or "\0" in name:
        raise InvalidInputError(f"The path '{name}' leads out of its tree.")
    return path


def _corrupt(digest: str) -> ModelCorruptError:
    return ModelCorruptError(
        f"The stored bytes of {digest} have changed.", hint="Restore the blob store from a backup."
    )


@contextlib.contextmanager
def _translated(digest: str) -> Iterator[None]:
    try:
        yield
    except (ObstoreNotFoundError, FileNotFoundError):
        raise NotFoundError(f"The blob {digest} is not in the store.") from None
    except (ObstoreError, OSError) as error:
        if "No space left" in str(error):
            raise StorageFullError(
                "The blob store is full.", hint="Free some space (`trimtab gc`) and try again."
            ) from error
        raise UnavailableError(
            f"The blob store does not answer: {error}.", hint="Check that it can be reached."
        ) from error
