"""Uploads in parts, each in a folder of its own until it is one blob.

    uploads/<id>/upload.json            what it is, written when it begins
    uploads/<id>/part-7-<hexadecimal>   a part that is whole, named by its number and its digest
    uploads/<id>/done                   it is a blob, and entered where it belongs; its parts are gone

A part is synced before it counts, so that an upload goes on after its server was killed. An id cannot be
guessed: who has it may write to the upload.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from trimtab.digest import PREFIX
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError
from trimtab.store.blob_reading import CHUNK, Draft, draft_path, sync_folder, translated, written_at
from trimtab.store.blobs import Blobs

MOST_PARTS = 100_000

_ID = re.compile(r"[\w-]{43}")
_ABOUT = "upload.json"
_DONE = "done"


class Upload(msgspec.Struct, frozen=True):
    """An upload: where it shall go, in its owner's words, and in how many parts it comes."""

    target: str
    parts: int


class Part(msgspec.Struct, frozen=True):
    """A part as it was kept: its number, from 1 on, and its digest in hexadecimal, by which both sides can
    tell which bytes are meant; None for whichever came last."""

    number: int
    tag: str | None = None


class Uploads:
    """The uploads below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, target: str, parts: int) -> str:
        """Begin an upload and answer its id."""
        if not 1 <= parts <= MOST_PARTS:
            raise InvalidInputError(f"An upload has 1 to {MOST_PARTS:,} parts, not {parts}.")
        name = secrets.token_urlsafe(32)
        folder = self._folder / name
        with translated(""):
            folder.mkdir(parents=True)
            about = folder / _ABOUT
            with about.open("wb") as file:
                file.write(msgspec.json.encode(Upload(target, parts)))
                file.flush()
                os.fsync(file.fileno())
            for each in (folder, self._folder):
                sync_folder(each)
        return name

    def get(self, name: str) -> Upload:
        """The upload of that id; raises NotFoundError."""
        return msgspec.json.decode((self._place(name) / _ABOUT).read_bytes(), type=Upload)

    def part(self, name: str, number: int) -> Draft:
        """Somewhere to write a part; it counts once it is kept, in place of one of the same number. Raises
        NotFoundError, InvalidInputError for a number that the upload has not, ConflictError if it is done."""
        folder = self._place(name)
        if not 1 <= number <= self.get(name).parts:
            raise InvalidInputError(f"The upload has no part {number}.")
        if (folder / _DONE).exists():
            raise ConflictError("The upload is complete; it takes no more parts.")
        with translated(""):
            return Draft(draft_path(folder), lambda draft, digest: _keep(draft, number, digest))

    def complete(
        self, name: str, target: str, parts: Sequence[Part], blobs: Blobs, enter: Callable[[str, int], None]
    ) -> None:
        """Make one blob of the parts, in the order of their numbers, and have it entered by digest and size.
        Completing twice does nothing more.

        Raises NotFoundError if there is no such upload to this target, InvalidInputError unless exactly its
        parts are named, each as it was kept.
        """
        with self._locked(name, target) as folder:
            if (folder / _DONE).exists():
                return
            wanted = sorted(parts, key=lambda part: part.number)
            count = self.get(name).parts
            if [part.number for part in wanted] != list(range(1, count + 1)):
                raise InvalidInputError(f"The upload has the parts 1 to {count}; name each of them once.")
            files = [_kept(folder, part) for part in wanted]
            with blobs.draft() as whole:
                for file in files:
                    with file.open("rb", buffering=0) as source:
                        while chunk := source.read(CHUNK):
                            whole.write(chunk)
                enter(whole.keep(), whole.size)
            (folder / _DONE).touch()
            for file in folder.glob("part-*"):
                file.unlink()

    def abort(self, name: str, target: str) -> None:
        """Give an upload up and free its parts; nothing happens if it is not there."""
        with contextlib.suppress(NotFoundError), self._locked(name, target) as folder:
            _remove(folder)

    def sweep(self, before: datetime, *, dry: bool = False) -> tuple[int, int]:
        """Remove uploads that nobody wrote to since then; answers how many, and how many bytes they had."""
        count = freed = 0
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                entries = [each.stat() for each in (folder, *folder.iterdir())]
                if max(written_at(each) for each in entries) < before:
                    count += 1
                    freed += sum(each.st_size for each in entries[1:])
                    if not dry:
                        _remove(folder)
        return count, freed

    def _place(self, name: str) -> Path:
        folder = self._folder / name
        if _ID.fullmatch(name) is None or not (folder / _ABOUT).exists():
            raise NotFoundError("There is no such upload.", hint="Begin a new one.")
        return folder

    @contextlib.contextmanager
    def _locked(self, name: str, target: str) -> Iterator[Path]:
        folder = self._place(name)
        with (folder / _ABOUT).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if self.get(name).target != target:  # also: it was given up meanwhile
                raise NotFoundError("There is no such upload to this place.", hint="Begin a new one.")
            yield folder


def _keep(draft: Draft, number: int, digest: str) -> None:
    folder = draft.path.parent
    path = folder / f"part-{number}-{digest.removeprefix(PREFIX)}"
    os.fsync(draft.file.fileno())
    draft.path.rename(path)
    sync_folder(folder)
    for other in folder.glob(f"part-{number}-*"):
        if other != path:
            other.unlink(missing_ok=True)


def _kept(folder: Path, part: Part) -> Path:
    found = list(folder.glob(f"part-{part.number}-*"))
    if part.tag is not None:
        found = [path for path in found if path.name == f"part-{part.number}-{part.tag}"]
    if not found:
        raise InvalidInputError(
            f"Part {part.number} of the upload did not arrive as it is named.", hint="Send it again."
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _remove(folder: Path) -> None:
    gone = folder.with_name(f".gone-{folder.name}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
