"""The indexer: brings what gateways log to the metadata store, while segments are still written to.

It may be cut off by a kill at any time and then begins where its last transaction ended: offsets move in the
transaction that indexes their rows.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import select

from trimtab.errors import UnavailableError
from trimtab.serving.indexing import Batch, OffsetMovedError, Piece
from trimtab.serving.log_columns import Unfolding
from trimtab.serving.schema import log_segments_table as log_segments
from trimtab.serving.segments import Segment, segments
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

MOST_BYTES = 8 * 2**20
"""Bytes of segments after which an indexing transaction takes no more, which bounds the memory that a burst
of predictions takes."""

TRIES = 4
LEAVE_SECONDS = 5.0

_log = logging.getLogger(__name__)

Write = Callable[[Transaction], None]


class _Reading:
    """How far one segment was read."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.unfolding = Unfolding()


class LogIndexer:
    """Indexes the segments of one folder. One at a time: hold the folder's `ShipperLock`.

    `complete`: whether the last `index` took in all that stood there. A segment that cannot be indexed does
    not keep the others waiting; it is left alone for a while.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = socket.gethostname()
        self._readings: dict[str, _Reading] = {}
        self._left_alone: dict[str, float] = {}
        self.complete = True

    def index(self, workspace: Workspace, *, also: Write | None = None) -> int:
        """Index all whole frames that stand in the folder now; answers how many rows and labels.

        `also` is done in the last transaction, when all of them are in, and not at all if they are not:
        nobody is told that something is in the index that is not. Frames that nobody can read, today or
        later, do not count.
        """
        for _ in range(TRIES - 1):
            try:
                return self._index(workspace, also)
            except OffsetMovedError:  # another shipper took over in between: look again from where it stopped
                self._readings.clear()
        return self._index(workspace, also)

    def _index(self, workspace: Workspace, also: Write | None) -> int:
        indexed = 0
        pieces: list[Piece] = []
        pending = 0
        found = list(segments(self._folder))
        for gone in (self._readings.keys() | self._left_alone.keys()) - {segment.id for segment in found}:
            self._readings.pop(gone, None)
            self._left_alone.pop(gone, None)
        self.complete = True
        for segment in found:
            for piece in self._pieces(workspace, segment):
                pieces.append(piece)
                pending += piece.end - piece.start
                if pending >= MOST_BYTES or piece.end < segment.size():
                    indexed += self._commit(workspace, pieces)
                    pieces, pending = [], 0
        return indexed + self._commit(workspace, pieces, also if self.complete else None)

    def _pieces(self, workspace: Workspace, segment: Segment) -> Iterator[Piece]:
        """What is new in a segment. Of several pieces the next one comes only if the one before it was
        committed meanwhile."""
        if time.monotonic() < self._left_alone.get(segment.id, 0.0):
            self.complete = False
            return
        while True:
            try:
                piece = self._read(workspace, segment)
            except UnavailableError:  # the store, which is the same for all
                raise
            except Exception as error:  # noqa: BLE001  (one segment must not keep the others waiting)
                self._leave(segment.id, error)
                return
            if piece is None:
                return
            yield piece
            reading = self._readings.get(segment.id)
            if reading is None or reading.offset < piece.end:
                return

    def _leave(self, segment: str, error: Exception) -> None:
        _log.error(
            "the segment %s in %s cannot be indexed now: %s", segment, self._folder, error, exc_info=error
        )
        self._left_alone[segment] = time.monotonic() + LEAVE_SECONDS
        self._readings.pop(segment, None)
        self.complete = False

    def _read(self, workspace: Workspace, segment: Segment) -> Piece | None:
        reading = self._readings.get(segment.id)
        if reading is None:
            reading = self._resume(workspace, segment)
            self._readings[segment.id] = reading
        if segment.size() <= reading.offset:
            return None
        try:
            found = segment.some_bodies(reading.offset, MOST_BYTES)
        except FileNotFoundError:  # shipped meanwhile
            return None
        if found.end == reading.offset:
            return None
        content = reading.unfolding.content(found.bodies)
        if content.unreadable:
            _log.error(
                "%s frames of %s before byte %s cannot be read", content.unreadable, segment.path, found.end
            )
        return Piece(segment.id, self._host, str(self._folder), reading.offset, found.end, content)

    @staticmethod
    def _resume(workspace: Workspace, segment: Segment) -> _Reading:
        with workspace.read() as connection:
            query = select(log_segments.c.indexed).where(log_segments.c.id == segment.id)
            reading = _Reading(connection.execute(query).scalar_one_or_none() or 0)
        if reading.offset and segment.size():
            for piece in segment.pieces(MOST_BYTES):
                reading.unfolding.learn(piece.bodies)
                if piece.end >= reading.offset:
                    break
        return reading

    def _commit(self, workspace: Workspace, pieces: list[Piece], also: Write | None = None) -> int:
        """Index pieces of different segments together; where that fails, each by itself."""
        if not pieces and also is None:
            return 0
        try:
            batch = Batch(pieces)

            def work(tx: Transaction) -> None:
                batch.index(tx)
                if also is not None:
                    also(tx)

            workspace.write(work)
        except (UnavailableError, OffsetMovedError):
            raise
        except Exception as error:
            match pieces:
                case []:
                    raise
                case [piece]:
                    self._leave(piece.segment, error)
                    return 0
            indexed = sum(self._commit(workspace, [piece]) for piece in pieces)
            return indexed + self._commit(workspace, [], also if self.complete else None)
        for piece in pieces:
            self._readings[piece.segment].offset = piece.end
        return batch.size
