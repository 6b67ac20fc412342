"""Outcomes: recent predictions in the metadata store, joined to their labels as these come in.

It is the index for live decisions; the whole history is in the prediction log's tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import and_, bindparam, delete, func, or_, select, update

from trimtab.monitoring.schema import outcomes_table as outcomes
from trimtab.monitoring.schema import pending_labels_table as pending
from trimtab.store.database import Transaction
from trimtab.store.types import to_microseconds
from trimtab.store.upsert import upsert
from trimtab.workspace import Workspace

Row = TypeVar("Row")

CHUNK = 400
"""Ids in one statement; SQLite allows 32,766 parameters, older ones 999."""


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction: which version answered what, and what each version on the route said (None where it
    failed). `at` is event time in microseconds since 1970."""

    id: str
    endpoint: str
    at: int
    key: str | None
    version: int
    answer: float | None
    scores: dict[int, float | None]


class LabelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned about a prediction, named by its `id`, or by `key` and event time `at`.

    Without `id` it belongs to the key's prediction at `at`, or the newest before it; without `at` too, to
    the key's newest. `labelled_at` is the event time at which it was known. Times in microseconds.
    """

    endpoint: str
    label: float
    labelled_at: int
    id: str | None = None
    key: str | None = None
    at: int | None = None


class LabelCounts(msgspec.Struct):
    """What became of labels: joined to their prediction, kept until it comes, the same as before, or put in
    the place of another."""

    joined: int = 0
    pending: int = 0
    repeated: int = 0
    revised: int = 0


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
        table = outcomes.c
        query = (
            select(table.at, table.version, table.answer, table.label, table.scores)
            .where(table.endpoint == endpoint)
            .where(table.at >= to_microseconds(start), table.at < to_microseconds(end))
            .order_by(table.at, table.id)
        )
        with self._workspace.read() as connection:
            rows = connection.execute(query).all()
        at, version, answer, label, scores = zip(*rows, strict=True) if rows else ((),) * 5
        versions = np.array(version, dtype=np.int64)
        answers = np.array(answer, dtype=np.float64)
        return Joined(
            at=np.array(at, dtype=np.int64),
            version=versions,
            answer=answers,
            label=np.array(label, dtype=np.float64),
            scores=_scores(versions, answers, scores),
        )

    def counts(self, endpoint: str) -> tuple[int, int, int]:
        """How many predictions are in the index, how many of them are labelled, and how many labels still
        wait for their prediction."""
        mine = outcomes.c.endpoint == endpoint
        with self._workspace.read() as connection:
            total, labelled = connection.execute(
                select(func.count(), func.count(outcomes.c.label)).where(mine)
            ).one()
            waiting = connection.execute(
                select(func.count()).select_from(pending).where(pending.c.endpoint == endpoint)
            ).scalar_one()
        return int(total), int(labelled), int(waiting)


def record_predictions(tx: Transaction, rows: Sequence[PredictionRecord]) -> None:
    """Add predictions to the index; those that are there already stay as they are. Labels that came before
    their prediction are joined to it."""
    for chunk in _chunks(rows):
        upsert(tx, outcomes, [_row(row) for row in chunk], keys=["id"], update=[])
        _join_pending(tx, chunk)


def record_labels(tx: Transaction, rows: Sequence[LabelRecord]) -> LabelCounts:
    """Join labels to their predictions. The same label again changes nothing; another takes its place. One
    whose prediction is not there yet waits for it."""
    counts = LabelCounts()
    for chunk in _chunks(row for row in rows if row.id is not None):
        _record_by_id(tx, chunk, counts)
    for row in rows:
        if row.id is None:
            _record_by_key(tx, row, counts)
    return counts


def prune(tx: Transaction, before: datetime) -> int:
    """Drop predictions and waiting labels older than `before`; answers how many predictions."""
    limit = to_microseconds(before)
    tx.execute(delete(pending).where(pending.c.labelled_at < limit))
    return tx.execute(delete(outcomes).where(outcomes.c.at < limit)).rowcount


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _row(row: PredictionRecord) -> dict[str, Any]:
    alone = list(row.scores) == [row.version]
    return {
        "id": row.id,
        "endpoint": row.endpoint,
        "at": row.at,
        "key": row.key,
        "version": row.version,
        "answer": row.answer,
        "scores": None if alone else msgspec.json.encode(row.scores).decode(),
    }


_scores_decoder = msgspec.json.Decoder(list[dict[int, float | None]])


def _scores(
    versions: NDArray[np.int64], answers: NDArray[np.float64], texts: Iterable[str | None]
) -> dict[int, NDArray[np.float64]]:
    """By version what it said. Rows whose text is null were scored by their answering version alone."""
    found: dict[int, NDArray[np.float64]] = {
        int(version): np.where(versions == version, answers, np.nan) for version in np.unique(versions)
    }
    several = [(place, text) for place, text in enumerate(texts) if text is not None]
    decoded = _scores_decoder.decode(f"[{','.join(text for _, text in several)}]")
    for (place, _), scores in zip(several, decoded, strict=True):
        for version, score in scores.items():
            if version not in found:
                found[version] = np.full(versions.size, np.nan)
            found[version][place] = np.nan if score is None else score
    return found


def _record_by_id(tx: Transaction, rows: Sequence[LabelRecord], counts: LabelCounts) -> None:
    newest = {row.id: row for row in rows}
    counts.repeated += len(rows) - len(newest)
    standing = {
        row.id: row.label
        for row in tx.execute(select(outcomes.c.id, outcomes.c.label).where(outcomes.c.id.in_(newest)))
    }
    joined, waiting = [], []
    for id, row in newest.items():
        if id not in standing:
            waiting.append(row)
            counts.pending += 1
        elif standing[id] is None:
            joined.append(row)
            counts.joined += 1
        elif standing[id] == row.label:
            counts.repeated += 1
        else:
            joined.append(row)
            counts.revised += 1
    _set_labels(tx, [(row.id or "", row.label, row.labelled_at) for row in joined])
    upsert(tx, pending, [_pending_row(row) for row in waiting], keys=["reference"])


def _record_by_key(tx: Transaction, row: LabelRecord, counts: LabelCounts) -> None:
    table = outcomes.c
    query = select(table.id, table.label).where(table.endpoint == row.endpoint, table.key == row.key)
    if row.at is not None:
        query = query.where(table.at <= row.at)
    standing = tx.execute(query.order_by(table.at.desc(), table.id).limit(1)).one_or_none()
    if standing is None:
        counts.pending += 1
        upsert(tx, pending, [_pending_row(row)], keys=["reference"])
    elif standing.label == row.label:
        counts.repeated += 1
    else:
        if standing.label is None:
            counts.joined += 1
        else:
            counts.revised += 1
        _set_labels(tx, [(standing.id, row.label, row.labelled_at)])


def _pending_row(row: LabelRecord) -> dict[str, Any]:
    reference = row.id if row.id is not None else f"{row.endpoint}\0{row.key}\0{row.at}".replace("\0", "\x1f")
    return {"reference": reference, **msgspec.structs.asdict(row)}


def _set_labels(tx: Transaction, labels: Sequence[tuple[str, float, int]]) -> None:
    if labels:
        statement = (
            update(outcomes)
            .where(outcomes.c.id == bindparam("of"))
            .values(label=bindparam("said"), labelled_at=bindparam("known"))
        )
        tx.execute(statement, [{"of": id, "said": label, "known": at} for id, label, at in labels])


def _join_pending(tx: Transaction, rows: Sequence[PredictionRecord]) -> None:
    """Take labels that wait for one of these predictions off the waiting list."""
    if tx.execute(select(pending.c.reference).limit(1)).one_or_none() is None:
        return
    by_id = tx.execute(select(pending).where(pending.c.id.in_([row.id for row in rows]))).all()
    _set_labels(tx, [(found.id, found.label, found.labelled_at) for found in by_id])
    gone = [found.reference for found in by_id]
    for row in rows:
        if row.key is not None:
            gone += _join_pending_by_key(tx, row)
    if gone:
        tx.execute(delete(pending).where(pending.c.reference.in_(gone)))


def _join_pending_by_key(tx: Transaction, row: PredictionRecord) -> list[str]:
    found = tx.execute(
        select(pending).where(
            and_(
                pending.c.endpoint == row.endpoint,
                pending.c.key == row.key,
                or_(pending.c.at.is_(None), pending.c.at >= row.at),
            )
        )
    ).all()
    _set_labels(tx, [(row.id, label.label, label.labelled_at) for label in found[-1:]])
    return [label.reference for label in found]
