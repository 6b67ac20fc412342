"""Indexing: what a shipper tells the metadata store about log rows, all in one transaction.

The transaction also moves the segments' offsets on, so that a kill neither loses a row nor counts it twice.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, insert, select, update

from trimtab.data.profiles import FeatureProfile, Profile
from trimtab.errors import ConflictError, InvalidInputError
from trimtab.monitoring.live_profiles import ANSWER, LATENCY, count_service, merge_profile
from trimtab.monitoring.outcome_locks import hold_outcomes
from trimtab.monitoring.outcomes import Answered, LabelRecord, record_answers, record_labels
from trimtab.serving.frames import ColumnKind, FailureFrame, LabelFrame
from trimtab.serving.log_columns import Cells, LogContent, PredictionColumns, feature_plan
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
    content: LogContent


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
        parts = [part for piece in pieces for part in piece.content.predictions]
        labels = [label for piece in pieces for label in piece.content.labels]
        failures = [failure for piece in pieces for failure in piece.content.failures]
        self.size = sum(map(len, parts)) + len(labels)
        self._predictions = list(map(_answered, parts))
        self._labels = list(map(_label, filter(_is_number, labels)))
        self._endpoints = {part.entry.endpoint for part in parts} | {each.endpoint for each in labels}
        self._buckets = list(_buckets(parts))
        self._service = _service(parts, failures)

    def index(self, tx: Transaction) -> None:
        """Index all pieces, each from where its segment's index ends; raises OffsetMovedError otherwise."""
        hold_outcomes(tx, self._endpoints)
        for piece in self.pieces:
            _advance(tx, piece)
        for part in self._predictions:
            record_answers(tx, part)
        record_labels(tx, self._labels)
        for bucket in self._buckets:
            bucket.merge(tx)
        for (endpoint, day), (requests, failures) in self._service.items():
            count_service(tx, endpoint, day, requests=requests, failures=failures)


def _buckets(parts: Sequence[PredictionColumns]) -> Iterator[_Bucket]:
    by_endpoint: dict[str, list[PredictionColumns]] = defaultdict(list)
    for part in parts:
        by_endpoint[part.entry.endpoint].append(part)
    found: dict[tuple[str, int, int], list[Profile]] = defaultdict(list)
    for endpoint, mine in by_endpoint.items():
        kinds, plans = feature_plan([part.entry for part in mine], (ANSWER, LATENCY))
        for part, plan in zip(mine, plans, strict=True):
            day, version = part.at // _DAY, part.version
            for one in np.unique(day).tolist():
                for answering in np.unique(version[day == one]).tolist():
                    rows = np.flatnonzero((day == one) & (version == answering))
                    found[endpoint, answering, one].append(_profile(part, plan, kinds, rows))
    for (endpoint, answering, one), profiles in found.items():
        profile = Profile.merged(profiles)
        yield _Bucket(endpoint, answering, from_microseconds(one * _DAY), profile.rows, profile)


def _profile(
    part: PredictionColumns, plan: Sequence[str], kinds: Mapping[str, ColumnKind], rows: NDArray[np.int64]
) -> Profile:
    whole = rows.size == len(part)
    features = {}
    for name, cells in zip(plan, part.values, strict=True):
        if not whole and cells is not None:
            cells = cells[rows] if isinstance(cells, np.ndarray) else [cells[row] for row in rows.tolist()]
        features[name] = _feature(kinds[name], cells, rows.size)
    features[ANSWER] = FeatureProfile.of_numbers(part.answer[rows])
    features[LATENCY] = FeatureProfile.of_numbers(part.took[rows] / 1000)
    return Profile(int(rows.size), features)


def _feature(kind: ColumnKind, cells: Cells, rows: int) -> FeatureProfile:
    if kind in ("number", "integer"):
        numbers = np.full(rows, np.nan) if cells is None else np.asarray(cells, dtype=np.float64)
        return FeatureProfile.of_numbers(numbers)
    found: Counter[Any] = Counter(cells) if cells is not None else Counter({None: rows})
    missing = found.pop(None, 0)
    if kind == "boolean":
        return FeatureProfile.of_booleans(found[True], found[False], missing)
    return FeatureProfile.of_words(found, missing)


def _service(
    parts: Sequence[PredictionColumns], failures: Sequence[FailureFrame]
) -> dict[tuple[str, datetime], tuple[int, int]]:
    """Requests, and how many of them the gateway failed, by endpoint and day. A version on trial that fails
    to score costs its caller nothing and counts in the rollout's own numbers."""
    answered: Counter[tuple[str, int]] = Counter()
    for part in parts:
        days, requests = np.unique(part.requests() // _DAY, return_counts=True)
        for day, count in zip(days.tolist(), requests.tolist(), strict=True):
            answered[part.entry.endpoint, day] += count
    failed = Counter((each.endpoint, each.at // _DAY) for each in failures if each.version is None)
    return {
        (endpoint, from_microseconds(day * _DAY)): (
            answered[endpoint, day] + failed[endpoint, day],
            failed[endpoint, day],
        )
        for endpoint, day in answered | failed
    }


def _answered(part: PredictionColumns) -> Answered:
    versions = part.entry.versions
    return Answered(
        part.entry.endpoint,
        part.heads,
        part.counts,
        part.at,
        part.version,
        _finite(part.answer),
        {} if len(versions) == 1 else dict(zip(versions, map(_finite, part.scores), strict=True)),
        part.keys,
    )


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isinf(values), np.nan, values)


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
    rows, labels = piece.content.rows, len(piece.content.labels)
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
