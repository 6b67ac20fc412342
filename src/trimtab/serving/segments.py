"""Segments: the local files of the prediction log.

Each gateway worker appends to a segment of its own and holds the file's lock for as long as it does. The
system lets go of the lock when the worker dies, however it dies; so a segment whose lock can be had has no
writer any more, and whoever ships next takes it over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec

from trimtab.errors import StorageFullError, UnavailableError
from trimtab.serving import log_folder
from trimtab.serving.frames import Bodies, EntryFrame, Scan, bodies, encoded, scan

SUFFIX = ".seg"
FOLDER = log_folder.FOLDER
DRAFT_SECONDS = 60.0
LARGEST_SEGMENT = 64 * 2**20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Write = Callable[[int, bytes], int]


class Limits(msgspec.Struct, frozen=True):
    """When a segment ends: after so many rows or bytes, or when its rows' event times span so long. `disk`:
    bytes that all segments in the folder may hold together."""

    rows: int = 20_000
    bytes: int = LARGEST_SEGMENT
    span: timedelta = timedelta(days=7)
    disk: int = 2**62


class SegmentWriter:
    """Appends frames for one worker, from one thread; only `sync` may be called from another.

    `ended` is set when a segment has ended and waits for `sync`. `flush` is the newest demand to ship
    everything that the worker has heard of; it stands in the segments' names, so that a shipper knows which
    of them will end soon. `write` stands for `os.write`, so that a
    test can fill the disk.
    """

    def __init__(self, folder: Path, limits: Limits, *, write: Write = os.write) -> None:
        self._folder = folder
        self._limits = limits
        self._write = write
        self._span = limits.span // timedelta(microseconds=1)
        self._handle: int | None = None
        self._size = 0
        self._rows = 0
        self._first = 0
        self._known: set[int] = set()
        self._dirty = False
        self._others = 0  # bytes in the other segments of the folder
        self._ended: deque[int] = deque()
        self.ended = threading.Event()
        self.flush = 0
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, data: bytes, *, rows: int, at: int, entry: EntryFrame | None = None) -> None:
        """Append whole frames in one write; once this returns, a kill of this process loses none of them.

        `entry` is put before them if this segment has not got it yet. `at` is the event time of the oldest
        row. Raises StorageFullError (nothing stays half-written) or UnavailableError.
        """
        if self._handle is not None and (
            self._rows >= self._limits.rows
            or self._size >= self._limits.bytes
            or abs(at - self._first) >= self._span
        ):
            self.close()
        if self.used + len(data) > self._limits.disk:
            raise StorageFullError(
                f"The prediction log in {self._folder} holds {self.used:,} bytes, and may hold "
                f"{self._limits.disk:,}.",
                hint="See why it is not shipped (`trimtab doctor`), or raise the setting log_disk_limit.",
            )
        if self._handle is None:
            self._open()
            self._first = at
        if entry is not None and entry.ref not in self._known:
            self._put(encoded(entry) + data)
            self._known.add(entry.ref)
        else:
            self._put(data)
        self._rows += rows

    @property
    def used(self) -> int:
        """Bytes in the folder's segments, those of others as of the last `sync`."""
        return self._others + self._size

    @property
    def fullness(self) -> float:
        """The share of what the log may hold that it does hold."""
        return self.used / self._limits.disk

    def close(self) -> None:
        """End the present segment; the next append begins another. `sync` lets go of its lock."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._others, self._size = self.used, 0
            self._ended.append(handle)
            self._known.clear()
            self.ended.set()

    def sync(self, *, measure: bool = True) -> None:
        """Bring what was appended to the disk itself, against a loss of power, and let go of segments that
        have ended. Slow (up to a second on a busy disk), so it belongs in a thread of its own. `measure`:
        look how much the folder holds."""
        self.ended.clear()
        if measure:
            self._measure()
        handle = self._handle
        if handle is not None and self._dirty:
            self._dirty = False
            os.fdatasync(handle)  # nobody closes it but this thread
        while self._ended:
            ended = self._ended.popleft()
            os.fdatasync(ended)
            os.close(ended)

    def _measure(self) -> None:
        """Look what others have written, and shippers taken away."""
        total = 0
        with contextlib.suppress(OSError):
            total = sum(
                entry.stat().st_size for entry in os.scandir(self._folder) if entry.name.endswith(SUFFIX)
            )
        self._others = max(0, total - self._size)

    def _open(self) -> None:
        name = f"{int(time.time()):08x}-{os.urandom(6).hex()}-{self.flush:x}{SUFFIX}"
        draft = self._folder / f".{name}"
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(self._folder, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            draft.rename(self._folder / name)  # only now can others see it, and it is locked already
        except OSError as error:
            os.close(handle)
            draft.unlink(missing_ok=True)
            raise _failed(self._folder, error) from error
        self._handle, self._size, self._rows = handle, 0, 0

    def _put(self, data: bytes) -> None:
        assert self._handle is not None
        try:
            written = self._write(self._handle, data)
            while written < len(data):  # the disk ran full, or a signal came between
                written += self._write(self._handle, data[written:])
        except OSError as error:
            os.ftruncate(self._handle, self._size)
            raise _failed(self._folder, error) from error
        self._size += len(data)
        self._dirty = True


def _failed(folder: Path, error: OSError) -> UnavailableError:
    if error.errno in _FULL:
        return StorageFullError(
            f"There is no space left for the prediction log in {folder}.",
            hint="Free some space and try again.",
        )
    return UnavailableError(f"The prediction log in {folder} cannot be written: {error.strerror}.")


class Segment:
    """A segment as its shipper sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name.removesuffix(SUFFIX)
        self.flush = int(self.id.rsplit("-", 1)[-1], 16)

    def size(self) -> int:
        """Bytes in it now; 0 if it is gone."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, start: int = 0) -> Scan:
        """The whole frames from byte `start` on."""
        with self.path.open("rb") as file:
            file.seek(start)
            found = scan(file.read())
        return Scan(found.frames, found.end + start, found.damaged)

    def some_bodies(self, start: int, most: int) -> Bodies:
        """The same, not decoded yet; about so many bytes at the `most`, but one frame at least. There is none
        if there are no more in the segment."""
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(most)
            found = bodies(data)
            while not (found.bodies or found.damaged) and (more := file.read(most)):
                data += more
                found = bodies(data)
        return Bodies(found.bodies, found.end + start, found.damaged)

    def pieces(self, most: int) -> Iterator[Bodies]:
        """All of it, about so many bytes at a time; the same pieces each time once nobody writes to it any
        more. The last piece tells where the segment's whole frames end, and whether damage is what ends
        them."""
        start, ended = 0, False
        while not ended:
            found = self.some_bodies(start, most)
            start, ended = found.end, found.damaged or not found.bodies
            yield found

    def orphaned(self) -> bool:
        """Whether nobody writes to it any more. Once true, always true."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True


def remove_drafts(folder: Path) -> None:
    """Remove what a kill left behind in the instant before a segment begins."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            draft = path.suffix == SUFFIX and path.name.startswith(".")
            if draft and time.time() - path.stat().st_mtime > DRAFT_SECONDS:
                path.unlink()


def segments(folder: Path) -> Iterator[Segment]:
    """The segments in a folder, the oldest first."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            if path.suffix == SUFFIX and not path.name.startswith("."):
                yield Segment(path)


def unshipped(folder: Path, before_flush: int) -> bool:
    """Whether a segment with something in it stands that was begun before a demand to ship all."""
    return any(segment.flush < before_flush and segment.size() for segment in segments(folder))
