"""Shipping: from segments to the metadata store, and then for good to Delta tables.

Segments are read while they are still written to, and shipped once nobody writes to them any more, whoever
wrote them. Every step may be cut off by a kill and is then done again, to the same end: offsets move in the
transaction that indexes their rows, and a table takes a segment once.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from sqlalchemy import select, update

from trimtab.errors import NotFoundError, TrimtabError, UnavailableError
from trimtab.serving.columnar import (
    feedback_columns,
    feedback_table,
    fitted,
    prediction_columns,
    prediction_table,
)
from trimtab.serving.endpoints import demand_flush
from trimtab.serving.frames import LabelFrame
from trimtab.serving.indexing import Batch, OffsetMovedError, Piece
from trimtab.serving.log_columns import PredictionColumns, Unfolding, read_logged
from trimtab.serving.schema import log_segments_table as log_segments
from trimtab.serving.segments import FOLDER, Segment, remove_drafts, segments
from trimtab.serving.shipper_lock import ShipperLock
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

if TYPE_CHECKING:
    from trimtab.store.tables import Tables

MOST_BYTES = 4 * 2**20
"""Bytes of segments after which an indexing transaction takes no more, which bounds the memory that a burst
of predictions takes."""

TRIES = 4
COMPACT_EVERY = 32
"""Appends to a table after which its small files are joined."""

Write = Callable[[Transaction], None]

_log = logging.getLogger(__name__)


class _Reading:
    """How far one segment was read."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.unfolding = Unfolding()


class Shipper:
    """Indexes and ships the segments of one folder. One at a time: hold the folder's `ShipperLock`.

    `index` and `ship` may run in two threads, so that what is slow keeps nobody waiting.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = socket.gethostname()
        self._readings: dict[str, _Reading] = {}
        self._left_alone: dict[str, float] = {}

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

    def ship(self, workspace: Workspace) -> int:
        """Ship all segments that are indexed to their end and that nobody writes to any more; answers how
        many."""
        remove_drafts(self._folder)
        shipped = 0
        for segment in segments(self._folder):
            if time.monotonic() < self._left_alone.get(segment.id, 0.0) or not segment.orphaned():
                continue
            try:
                shipped += self._ship(workspace, segment)
            except Exception as error:  # noqa: BLE001  (one segment must not keep the others waiting)
                expected = isinstance(error, TrimtabError)
                _log.error("%s cannot be shipped now: %s", segment.path, error, exc_info=not expected)
                self._left_alone[segment.id] = time.monotonic() + 5.0
            else:
                self._left_alone.pop(segment.id, None)
        return shipped

    def unshipped(self, before_flush: int) -> bool:
        """Whether a segment with something in it stands that was begun before a demand to ship all."""
        return any(segment.flush < before_flush and segment.size() for segment in segments(self._folder))

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
            found = segment.bodies(reading.offset, most=MOST_BYTES)
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
            reading.unfolding.learn(read_logged(segment.bodies().bodies))
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

    def _ship(self, workspace: Workspace, segment: Segment) -> bool:
        """Bring a segment to its tables and delete it; False if its index does not reach its end yet."""
        if not self._shipped(workspace, segment):
            found = segment.bodies()
            reading = self._readings.get(segment.id)
            if found.end and (reading is None or reading.offset < found.end):
                return False
            content = Unfolding().columns(read_logged(found.bodies))
            _append_predictions(workspace.tables, segment, content.predictions)
            _append_feedback(workspace.tables, segment, content.labels)
            if found.damaged:
                kept = segment.path.with_suffix(".damaged")
                kept.unlink(missing_ok=True)
                kept.hardlink_to(segment.path)
                _log.error("%s is damaged behind byte %s and is kept", kept, found.end)
            workspace.write(lambda tx: _mark_shipped(tx, segment))
        segment.path.unlink(missing_ok=True)
        return True

    @staticmethod
    def _shipped(workspace: Workspace, segment: Segment) -> bool:
        with workspace.read() as connection:
            query = select(log_segments.c.shipped_at).where(log_segments.c.id == segment.id)
            return connection.execute(query).scalar_one_or_none() is not None


def _mark_shipped(tx: Transaction, segment: Segment) -> None:
    tx.execute(
        update(log_segments).where(log_segments.c.id == segment.id).values(shipped_at=datetime.now(UTC))
    )


def _append_predictions(tables: Tables, segment: Segment, parts: list[PredictionColumns]) -> None:
    by_endpoint: dict[str, list[PredictionColumns]] = defaultdict(list)
    for part in parts:
        by_endpoint[part.entry.endpoint].append(part)
    for endpoint, some in by_endpoint.items():
        _append(tables, prediction_table(endpoint), prediction_columns(some), segment)


def _append_feedback(tables: Tables, segment: Segment, labels: list[LabelFrame]) -> None:
    by_endpoint: dict[str, list[LabelFrame]] = defaultdict(list)
    for label in labels:
        by_endpoint[label.endpoint].append(label)
    for endpoint, some in by_endpoint.items():
        _append(tables, feedback_table(endpoint), feedback_columns(some), segment)


def _append(tables: Tables, table: str, rows: pl.DataFrame, segment: Segment) -> None:
    try:
        standing = tables.scan(table).collect_schema()
    except NotFoundError:
        standing = pl.Schema()
    version = tables.append(table, fitted(rows, standing), transaction_id=segment.id)
    if version and version % COMPACT_EVERY == 0:
        tables.compact(table)


def ship_all(workspace: Workspace, *, seconds: float = 60.0) -> None:
    """Bring everything that gateways have logged so far to the tables, and come back when it is there.

    Running gateways and their shippers are asked to; where no shipper runs for this folder, this process
    ships itself. Raises UnavailableError if it takes longer than `seconds`.
    """
    demand = workspace.write(demand_flush)
    deadline = time.monotonic() + seconds
    folder = workspace.root / FOLDER
    shipper = Shipper(folder)
    with ShipperLock(folder) as lock:
        while time.monotonic() < deadline:
            if lock.acquire():
                shipper.index(workspace)
                shipper.ship(workspace)
                here = not shipper.unshipped(demand)
            else:
                here = False
            found = workspace.instances.live("shipper")
            here = here or any(each.detail.get("folder") == str(folder) for each in found)
            if here and all(int(each.detail.get("flushed", 0)) >= demand for each in found):
                return
            time.sleep(0.02)
    raise UnavailableError(
        f"The prediction log could not be shipped within {seconds:g} seconds.",
        hint="Look at what the gateway says.",
    )
