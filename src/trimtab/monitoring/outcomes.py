"""Outcomes: recent predictions in the metadata store, joined to their labels as these come in.

It is the index for live decisions; the whole history is in the prediction log's tables. Predictions stand in
blocks (see `outcome_blocks`), so that one costs some ten bytes; labels find them by id, or by key and time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, or_, select, update

from trimtab.monitoring.label_joining import join_labels, join_pending
from trimtab.monitoring.outcome_blocks import Answers, label_column, labels_of, unpacked
from trimtab.monitoring.outcome_locks import hold_outcomes
from trimtab.monitoring.outcome_records import (
    DAY,
    Answered,
    LabelCounts,
    LabelRecord,
    PredictionRecord,
    answered,
    reference_of,
)
from trimtab.monitoring.outcome_writing import add_answers, block_row
from trimtab.monitoring.schema import outcome_blocks_table as blocks
from trimtab.monitoring.schema import pending_labels_table as pending
from trimtab.store.database import Transaction
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

__all__ = [
    "Answered",
    "Joined",
    "LabelCounts",
    "LabelRecord",
    "Outcomes",
    "PredictionRecord",
    "Span",
    "prune",
    "record_answers",
    "record_labels",
    "record_predictions",
]


class Span(msgspec.Struct, frozen=True):
    """The predictions of an endpoint from `start` to `end` (excluded), in event time."""

    endpoint: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Joined:
    """Predictions of a span of event time, oldest first, as arrays of one length.

    `at`: microseconds since 1970. `version` answered, with `answer`. `label` is NaN while there is none.
    `scores`: for each version that scored any of them what it said, NaN where it did not.
    """

    at: NDArray[np.int64]
    version: NDArray[np.int64]
    answer: NDArray[np.float64]
    label: NDArray[np.float64]
    scores: dict[int, NDArray[np.float64]]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which rows have a label."""
        return np.isfinite(self.label)

    def __len__(self) -> int:
        return int(self.at.size)


class Outcomes:
    """Reads outcomes."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def joined(self, endpoint: str, start: datetime, end: datetime) -> Joined:
        """Predictions with event time from `start` (included) to `end` (excluded)."""
        first, last = to_microseconds(start), to_microseconds(end)
        query = (
            select(blocks.c.shelf, blocks.c.answers, blocks.c.rows, blocks.c.labels)
            .where(blocks.c.endpoint == endpoint)
            .where(blocks.c.day >= first // DAY, blocks.c.day <= last // DAY)
            .where(blocks.c.last_at >= first, blocks.c.first_at < last)
            .order_by(blocks.c.id)
        )
        with self._workspace.read() as connection:
            rows = connection.execute(query).all()
        parts = [unpacked(bytes(row.shelf), bytes(row.answers)) for row in rows]
        label = _whole([label_column(row.labels, row.rows) for row in rows])
        at = _whole([part.at for part in parts]).astype(np.int64)
        inside = np.flatnonzero((at >= first) & (at < last))
        inside = inside[np.argsort(at[inside], kind="stable")]
        version = _whole([part.version for part in parts]).astype(np.int64)[inside]
        return Joined(
            at=at[inside],
            version=version,
            answer=_whole([part.answer for part in parts])[inside],
            label=label[inside],
            scores=_scores(parts, version, inside),
        )

    def counts(self, endpoint: str) -> tuple[int, int, int]:
        """How many predictions are in the index, how many of them are labelled, and how many labels still
        wait for their prediction."""
        sums = [func.coalesce(func.sum(column), 0) for column in (blocks.c.rows, blocks.c.labelled)]
        with self._workspace.read() as connection:
            total, labelled = connection.execute(select(*sums).where(blocks.c.endpoint == endpoint)).one()
            waiting = connection.execute(
                select(func.count()).select_from(pending).where(pending.c.endpoint == endpoint)
            ).scalar_one()
        return int(total), int(labelled), int(waiting)

    def revisions(self, endpoint: str) -> int:
        """How often a label of these predictions was replaced by another."""
        total = func.coalesce(func.sum(blocks.c.revisions), 0)
        with self._workspace.read() as connection:
            return int(connection.execute(select(total).where(blocks.c.endpoint == endpoint)).scalar_one())


def record_predictions(tx: Transaction, rows: Sequence[PredictionRecord]) -> None:
    """Add predictions to the index; those that are there already stay as they are. Labels that came before
    their prediction are joined to it."""
    hold_outcomes(tx, [row.endpoint for row in rows])
    for part in answered(rows):
        record_answers(tx, part)


def record_answers(tx: Transaction, rows: Answered) -> None:
    """The same for predictions in columns."""
    hold_outcomes(tx, [rows.endpoint])
    add_answers(tx, rows)
    join_pending(tx, rows)


def record_labels(tx: Transaction, rows: Sequence[LabelRecord]) -> LabelCounts:
    """Join labels to their predictions; one whose prediction is not there yet waits for it.

    The same label again changes nothing. Of different ones for one prediction that which was known last
    stays, in whatever order they come.
    """
    hold_outcomes(tx, [row.endpoint for row in rows])
    counts = LabelCounts()
    newest: dict[str, LabelRecord] = {}
    alone: list[LabelRecord] = []
    for row in sorted(rows, key=lambda row: row.labelled_at):
        if row.id is None and row.at is None:  # of the newest prediction by then, whichever that was
            alone.append(row)
            continue
        before = newest.get(reference_of(row))
        if before is not None and before.label == row.label:
            counts.repeated += 1
            continue
        counts.revised += before is not None
        newest[reference_of(row)] = row
    join_labels(tx, [*newest.values(), *alone], counts)
    return counts


def prune(tx: Transaction, before: datetime, *, keep: Sequence[Span] = ()) -> int:
    """Drop predictions and waiting labels older than `before`, but for predictions of the spans in `keep`;
    answers how many predictions."""
    limit = to_microseconds(before)
    tx.execute(delete(pending).where(pending.c.labelled_at < limit))
    spans = [(span.endpoint, to_microseconds(span.start), to_microseconds(span.end)) for span in keep]
    gone = [blocks.c.last_at < limit]
    for endpoint, start, end in spans:
        gone.append(or_(blocks.c.endpoint != endpoint, blocks.c.last_at < start, blocks.c.first_at >= end))
    dropped = tx.execute(select(func.coalesce(func.sum(blocks.c.rows), 0)).where(*gone)).scalar_one()
    tx.execute(delete(blocks).where(*gone))
    standing = tx.execute(
        select(blocks.c.id, blocks.c.endpoint, blocks.c.first_at, blocks.c.last_at)
        .where(blocks.c.first_at < limit)
        .order_by(blocks.c.id)
    ).all()
    for row in standing:
        mine = [(start, end) for endpoint, start, end in spans if endpoint == row.endpoint]
        if not any(start <= row.first_at and row.last_at < end for start, end in mine):
            dropped += _cut(tx, row.id, limit, mine)
    return int(dropped)


def _cut(tx: Transaction, block: int, limit: int, spans: Sequence[tuple[int, int]]) -> int:
    """Drop what is old in a block that holds newer predictions, or ones of a span, as well."""
    row = tx.execute(select(blocks).where(blocks.c.id == block).with_for_update()).one()
    answers, labels = unpacked(bytes(row.shelf), bytes(row.answers)), labels_of(row.labels)
    stays = answers.at >= limit
    for start, end in spans:
        stays |= (answers.at >= start) & (answers.at < end)
    kept = np.flatnonzero(stays)
    if kept.size == 0:
        tx.execute(delete(blocks).where(blocks.c.id == block))
    elif kept.size < len(answers):
        changed = block_row(answers.take(kept), labels.take(kept))
        tx.execute(update(blocks).where(blocks.c.id == block).values(**changed))
    return len(answers) - int(kept.size)


def _whole(parts: Sequence[NDArray[np.int64]] | Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _scores(
    parts: Sequence[Answers], version: NDArray[np.int64], rows: NDArray[np.int64]
) -> dict[int, NDArray[np.float64]]:
    """By version what it said."""
    versions = dict.fromkeys(map(int, np.unique(version)))
    for part in parts:
        versions |= dict.fromkeys(part.scores)
    found = {each: _whole([part.said(each) for part in parts])[rows] for each in versions}
    answering = set(map(int, np.unique(version)))
    return {each: said for each, said in found.items() if each in answering or np.isfinite(said).any()}
