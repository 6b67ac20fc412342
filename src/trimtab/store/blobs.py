"""Blobs: bytes kept under the digest of what they are, in a folder or on any store that obstore speaks to.

A tree is a folder kept as a manifest (relative path to digest and size), itself a blob; its digest is the
manifest's. What is read whole is checked against its digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from trimtab.config import without_secrets
from trimtab.errors import InvalidInputError
from trimtab.store.blob_reading import BlobReader, Draft, KeptBlob
from trimtab.store.folder_blobs import FolderBlobs
from trimtab.store.trees import Manifest, TreeFile

__all__ = ["BlobReader", "Blobs", "Draft", "KeptBlob", "Manifest", "TreeFile", "open_blobs"]


class Blobs(Protocol):
    """The port of the blob store.

    Whatever is put, or refreshed, counts as written at that time: what collects garbage lets it stand for a
    while, so that whoever put it has the time to point at it.
    """

    def put(self, data: bytes) -> str:
        """Keep these bytes and answer their digest; keeping them twice costs nothing more. On return they
        survive a loss of power."""
        ...

    def put_file(self, path: Path) -> str:
        """Keep a file's bytes, read at flat memory."""
        ...

    def put_tree(self, folder: Path) -> str:
        """Keep all regular files below `folder`; raises InvalidInputError for a symbolic link."""
        ...

    def put_manifest(self, files: dict[str, TreeFile]) -> str:
        """Keep a tree of files that are kept already; raises NotFoundError if one is not."""
        ...

    def draft(self) -> Draft:
        """Somewhere to write bytes as they come, until they are kept."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes; raises NotFoundError if they are not kept, ModelCorruptError if they changed."""
        ...

    def open(self, digest: str, first: int = 0, length: int | None = None) -> BlobReader:
        """The bytes chunk by chunk: all, or `length` of them from `first` on; raises NotFoundError."""
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

    def refresh(self, digest: str) -> bool:
        """Whether these bytes are kept; if so, they count as written now. Ask this, not `exists`, before
        pointing at bytes that somebody else put."""
        ...

    def digests(self) -> Iterator[str]:
        """All digests that are kept, in no order."""
        ...

    def listed(self) -> Iterator[KeptBlob]:
        """All blobs with their sizes and times, in no order."""
        ...

    def delete(self, digest: str) -> None:
        """Forget these bytes; no error if they are not kept."""
        ...

    def sweep(self, digest: str, before: datetime) -> bool:
        """Forget these bytes unless they were written at `before` or later; whether they are gone by this."""
        ...

    def sweep_drafts(self, before: datetime) -> int:
        """Remove drafts that were last written to before that; answers how many bytes they had."""
        ...


def open_blobs(url: str, drafts: Path | None = None) -> Blobs:
    """The blob store at `url`: a folder, "memory://", or any URL that obstore knows (s3://...). Bytes on
    their way to another machine lie in the folder `drafts` (by default the system's for temporary files)."""
    if "://" not in url:
        return FolderBlobs(Path(url))
    if url.startswith("file://"):
        return FolderBlobs(Path(unquote(urlsplit(url).path)))
    from obstore.exceptions import BaseError as ObstoreError  # noqa: PLC0415  (a workspace in a folder needs no obstore)
    from obstore.store import MemoryStore, from_url  # noqa: PLC0415  (the same)

    from trimtab.store.object_blobs import ObjectBlobs  # noqa: PLC0415  (the same)

    if url == "memory://":
        return ObjectBlobs(MemoryStore(), drafts)
    try:
        return ObjectBlobs(from_url(url), drafts)
    except (ObstoreError, ValueError) as error:
        raise InvalidInputError(
            f"'{without_secrets(url)}' is not a blob store that Trimtab can use: {error}.",
            hint="Give a folder, or a URL such as s3://BUCKET/PREFIX.",
        ) from None
