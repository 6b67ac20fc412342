"""The indexer: brings what gateways log to the metadata store, while segments are still written to.

It may be cut off by a kill at any time and then begins where its last transaction ended: offsets move in the
transaction that indexes their rows.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from trimtab.serving.indexing import Batch, OffsetMovedError, Piece
from trimtab.serving.log_columns import Unfolding, read_logged
from trimtab.serving.schema import log_segments_table as log_segments
from trimtab.serving.segments import Segment, segments
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

MOST_BYTES = 8 * 2**20
"""Bytes of segments after which an indexing transaction takes no more, which bounds the memory that a burst
of predictions takes."""

TRIES = 4

Write = Callable[[Transaction], None]


class _Reading:
    """How far one segment was read."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.unfolding = Unfolding()


class LogIndexer:
    """Indexes the segments of one folder. One at a time: hold the folder's `ShipperLock`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = socket.gethostname()
        self._readings: dict[str, _Reading] = {}

    def index(self, workspace: Workspace, *, also: Write | None = None) -> int:
        """Index all whole frames that stand in the folder now; answers how many rows and labels.

        `also` is done in the last transaction, when all of them are in.
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
        for gone in self._readings.keys() - {segment.id for segment in found}:
            del self._readings[gone]
        for segment in found:
            while (piece := self._read(workspace, segment)) is not None:
                pieces.append(piece)
                pending += piece.end - piece.start
                whole = piece.end >= segment.size()
                if pending >= MOST_BYTES or not whole:
                    indexed += self._commit(workspace, pieces)
                    pieces, pending = [], 0
                if whole:
                    break
        return indexed + self._commit(workspace, pieces, also)

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
        return Piece(
            segment.id,
            self._host,
            str(self._folder),
            reading.offset,
            found.end,
            reading.unfolding.columns(read_logged(found.bodies)),
        )

    @staticmethod
    def _resume(workspace: Workspace, segment: Segment) -> _Reading:
        with workspace.read() as connection:
            query = select(log_segments.c.indexed).where(log_segments.c.id == segment.id)
            reading = _Reading(connection.execute(query).scalar_one_or_none() or 0)
        if reading.offset and segment.size():
            for piece in segment.pieces(MOST_BYTES):
                reading.unfolding.learn(read_logged(piece.bodies))
                if piece.end >= reading.offset:
                    break
        return reading

    def _commit(self, workspace: Workspace, pieces: list[Piece], also: Write | None = None) -> int:
        if not pieces and also is None:
            return 0
        batch = Batch(pieces)

        def work(tx: Transaction) -> None:
            batch.index(tx)
            if also is not None:
                also(tx)

        workspace.write(work)
        for piece in pieces:
            self._readings[piece.segment].offset = piece.end
        return batch.size
