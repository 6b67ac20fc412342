"""Shipping: from segments, for good, to Delta tables.

Segments are shipped once they are indexed to their end and nobody writes to them any more, whoever wrote
them. Every step may be cut off by a kill and is then done again, to the same end: a table takes a segment
once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
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
from trimtab.serving.frames import Bodies, LabelFrame
from trimtab.serving.log_columns import PredictionColumns, Unfolding
from trimtab.serving.log_indexer import LogIndexer
from trimtab.serving.schema import log_segments_table as log_segments
from trimtab.serving.segments import (
    FOLDER,
    LARGEST_SEGMENT,
    Segment,
    remove_drafts,
    segments,
    unshipped,
)
from trimtab.serving.shipper_lock import ShipperLock
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

if TYPE_CHECKING:
    from trimtab.store.tables import Tables

COMPACT_EVERY = 32
"""Appends to a table after which its small files are joined."""

PIECE_BYTES = LARGEST_SEGMENT
"""Bytes of a segment that become rows of a table at once, which bounds the memory that a segment takes that
ends with large requests. Another number here appends what a killed shipper left half done twice."""

_log = logging.getLogger(__name__)


class Shipper:
    """Ships the segments of one folder. One at a time: hold the folder's `ShipperLock`, or be started by who
    does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left_alone: dict[str, float] = {}
        self._known: Schemas = {}

    def ship(self, workspace: Workspace, stop: threading.Event | None = None) -> int:
        """Ship all segments that are indexed to their end and that nobody writes to any more, or as many as
        can be until `stop`; answers how many."""
        remove_drafts(self._folder)
        shipped = 0
        for segment in segments(self._folder):
            if stop is not None and stop.is_set():
                break
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

    def _ship(self, workspace: Workspace, segment: Segment) -> bool:
        """Bring a segment to its tables and delete it; False if its index does not reach its end yet."""
        with workspace.read() as connection:
            query = select(log_segments.c.indexed, log_segments.c.shipped_at)
            standing = connection.execute(query.where(log_segments.c.id == segment.id)).one_or_none()
        if standing is None or standing.shipped_at is None:
            indexed = 0 if standing is None else standing.indexed
            if segment.size() < indexed:
                raise UnavailableError(
                    f"{segment.path} had {indexed:,} bytes when indexed, and has {segment.size():,} now.",
                    hint="Look whether the disk is sound; the file is left as it is.",
                )
            if segment.some_bodies(indexed, PIECE_BYTES).bodies:
                return False
            end, unreadable = self._append_pieces(workspace.tables, segment)
            if end.damaged or end.end < indexed or unreadable:
                kept = segment.path.with_suffix(".damaged")
                kept.unlink(missing_ok=True)
                kept.hardlink_to(segment.path)
                _log.error("%s is damaged: %s frames, and all behind byte %s", kept, unreadable, end.end)
            workspace.write(lambda tx: _mark_shipped(tx, segment))
        segment.path.unlink(missing_ok=True)
        return True

    def _append_pieces(self, tables: Tables, segment: Segment) -> tuple[Bodies, int]:
        """Bring a segment to its tables, a piece at a time, since requests may be large; answers its end, and
        how many frames are unreadable."""
        unfolding = Unfolding()
        start = unreadable = 0
        for piece in segment.pieces(PIECE_BYTES):
            transaction = f"{segment.id}@{start}" if start else segment.id
            content = unfolding.content(piece.bodies)
            _append_predictions(tables, self._known, transaction, content.predictions)
            _append_feedback(tables, self._known, transaction, content.labels)
            start = piece.end
            unreadable += content.unreadable
        return piece, unreadable


def _mark_shipped(tx: Transaction, segment: Segment) -> None:
    tx.execute(
        update(log_segments).where(log_segments.c.id == segment.id).values(shipped_at=datetime.now(UTC))
    )


Schemas = dict[str, dict[str, pl.DataType]]
"""The columns of tables as they were last seen."""


def _append_predictions(
    tables: Tables, known: Schemas, transaction: str, parts: list[PredictionColumns]
) -> None:
    by_endpoint: dict[str, list[PredictionColumns]] = defaultdict(list)
    for part in parts:
        by_endpoint[part.entry.endpoint].append(part)
    for endpoint, some in by_endpoint.items():
        _append(tables, known, prediction_table(endpoint), prediction_columns(some), transaction)


def _append_feedback(tables: Tables, known: Schemas, transaction: str, labels: list[LabelFrame]) -> None:
    by_endpoint: dict[str, list[LabelFrame]] = defaultdict(list)
    for label in labels:
        by_endpoint[label.endpoint].append(label)
    for endpoint, some in by_endpoint.items():
        _append(tables, known, feedback_table(endpoint), feedback_columns(some), transaction)


def _append(tables: Tables, known: Schemas, table: str, rows: pl.DataFrame, transaction: str) -> None:
    try:
        standing = known[table] if table in known else dict(tables.scan(table).collect_schema())
    except NotFoundError:
        standing = {}
    rows = fitted(rows, standing)
    try:
        version = tables.append(table, rows, transaction_id=transaction)
    except TrimtabError:
        known.pop(table, None)  # somebody else may have changed it
        raise
    known[table] = {**rows.schema, **standing}
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
    indexer, shipper = LogIndexer(folder), Shipper(folder)
    with ShipperLock(folder) as lock:
        while time.monotonic() < deadline:
            if lock.acquire():
                indexer.index(workspace)
                shipper.ship(workspace)
                here = not unshipped(folder, demand)
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
