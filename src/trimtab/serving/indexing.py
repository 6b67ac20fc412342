"""Indexing: what a shipper tells the metadata store about log rows, all in one transaction.

The transaction also moves the segments' offsets on, so that a kill neither loses a row nor counts it twice.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
import polars as pl
from sqlalchemy import delete, insert, select, update

from trimtab.data.profiles import Profile
from trimtab.errors import ConflictError, InvalidInputError
from trimtab.monitoring.live_profiles import ANSWER, LATENCY, count_service, merge_profile
from trimtab.monitoring.outcomes import LabelRecord, PredictionRecord, record_labels, record_predictions
from trimtab.serving.columnar import feature_columns
from trimtab.serving.frames import FailureFrame, LabelFrame
from trimtab.serving.log_rows import LogRows, PredictionRow
from trimtab.serving.schema import log_segments_table as log_segments
from trimtab.store.database import Transaction
from trimtab.store.types import from_microseconds

_log = logging.getLogger(__name__)

_DAY = timedelta(days=1) // timedelta(microseconds=1)


class Piece(msgspec.Struct, frozen=True):
    """The rows of one segment between two offsets. `host` and `folder` say where it lies."""

    segment: str
    host: str
    folder: str
    start: int
    end: int
    rows: LogRows


class OffsetMovedError(ConflictError):
    """Somebody else has indexed this segment meanwhile: look again from where it stands now."""

    code = "offset_moved"


class _Bucket(msgspec.Struct, frozen=True):
    """The statistics of what one version answered on one day."""

    endpoint: str
    version: int
    day: datetime
    rows: int
    profile: Profile

    def merge(self, tx: Transaction) -> None:
        """Add it to what stands."""
        try:
            merge_profile(tx, self.endpoint, self.version, self.day, self.profile, self.rows)
        except InvalidInputError as error:
            # Numbers where there were texts: the rows count, but their statistics cannot be put together.
            _log.error("the live profile of '%s' leaves %s rows out: %s", self.endpoint, self.rows, error)


class Batch:
    """Pieces made ready for the transaction that indexes them, so that it does nothing but write."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        rows = [row for piece in pieces for row in piece.rows.predictions]
        labels = [label for piece in pieces for label in piece.rows.labels]
        failures = [failure for piece in pieces for failure in piece.rows.failures]
        self.size = len(rows) + len(labels)
        self._predictions = list(map(_prediction, rows))
        self._labels = list(map(_label, filter(_is_number, labels)))
        self._buckets = list(_buckets(rows))
        self._service = _service(rows, failures)

    def index(self, tx: Transaction) -> None:
        """Index all pieces, each from where its segment's index ends; raises OffsetMovedError otherwise."""
        for piece in self.pieces:
            _advance(tx, piece)
        record_predictions(tx, self._predictions)
        record_labels(tx, self._labels)
        for bucket in self._buckets:
            bucket.merge(tx)
        for (endpoint, day), (requests, failures) in self._service.items():
            count_service(tx, endpoint, day, requests=requests, failures=failures)


def _buckets(rows: Sequence[PredictionRow]) -> Iterator[_Bucket]:
    grouped: dict[tuple[str, int, int], list[PredictionRow]] = defaultdict(list)
    for row in rows:
        grouped[row.entry.endpoint, row.entry.versions[row.arm], row.at // _DAY].append(row)
    for (endpoint, version, day), some in grouped.items():
        # Not with_columns, which wakes a thread pool for a millisecond.
        frame = feature_columns(some, reserved={ANSWER, LATENCY}).hstack(
            [
                pl.Series(ANSWER, [row.answer for row in some], dtype=pl.Float64),
                pl.Series(LATENCY, [row.took / 1000 for row in some], dtype=pl.Float64),
            ]
        )
        yield _Bucket(endpoint, version, from_microseconds(day * _DAY), len(some), Profile.of(frame))


def _service(
    rows: Sequence[PredictionRow], failures: Sequence[FailureFrame]
) -> dict[tuple[str, datetime], tuple[int, int]]:
    """Requests, and how many of them the gateway failed, by endpoint and day. A version on trial that fails
    to score costs its caller nothing and counts in the rollout's own numbers."""
    asked = {(row.entry.endpoint, row.at // _DAY, row.id.partition(".")[0]) for row in rows}
    answered = Counter((endpoint, day) for endpoint, day, _ in asked)
    failed = Counter((each.endpoint, each.at // _DAY) for each in failures if each.version is None)
    return {
        (endpoint, from_microseconds(day * _DAY)): (
            answered[endpoint, day] + failed[endpoint, day],
            failed[endpoint, day],
        )
        for endpoint, day in answered | failed
    }


def _prediction(row: PredictionRow) -> PredictionRecord:
    return PredictionRecord(
        id=row.id,
        endpoint=row.entry.endpoint,
        at=row.at,
        key=row.key,
        version=row.entry.versions[row.arm],
        answer=_finite(row.answer),
        scores=dict(zip(row.entry.versions, map(_finite, row.scores), strict=True)),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _is_number(label: LabelFrame) -> bool:
    """Labels that are texts are for people and stay in the table of feedback."""
    return not isinstance(label.label, str)


def _label(label: LabelFrame) -> LabelRecord:
    return LabelRecord(
        endpoint=label.endpoint,
        label=float(label.label),
        labelled_at=label.received,
        id=label.id,
        key=label.key,
        at=label.at,
    )


def _advance(tx: Transaction, piece: Piece) -> None:
    standing = tx.execute(
        select(log_segments.c.indexed).where(log_segments.c.id == piece.segment).with_for_update()
    ).scalar_one_or_none()
    if (standing or 0) != piece.start:
        raise OffsetMovedError(f"The segment {piece.segment} is indexed up to {standing}, not {piece.start}.")
    rows, labels = len(piece.rows.predictions), len(piece.rows.labels)
    if standing is None:
        tx.execute(
            insert(log_segments).values(
                id=piece.segment,
                host=piece.host,
                folder=piece.folder,
                indexed=piece.end,
                rows=rows,
                labels=labels,
            )
        )
    else:
        tx.execute(
            update(log_segments)
            .where(log_segments.c.id == piece.segment)
            .values(indexed=piece.end, rows=log_segments.c.rows + rows, labels=log_segments.c.labels + labels)
        )


def prune_segments(tx: Transaction, before: datetime) -> None:
    """Drop the record of segments that were shipped before a time; their files are long gone."""
    tx.execute(delete(log_segments).where(log_segments.c.shipped_at < before))
