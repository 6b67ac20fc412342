"""Outcomes: recent predictions in the metadata store, joined to their labels as these come in.

It is the index for live decisions; the whole history is in the prediction log's tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, case, delete, func, or_, select, tuple_, update

from trimtab.monitoring.schema import outcomes_table as outcomes
from trimtab.monitoring.schema import pending_labels_table as pending
from trimtab.store.database import Transaction
from trimtab.store.types import to_microseconds
from trimtab.store.upsert import upsert
from trimtab.workspace import Workspace

Row = TypeVar("Row")

CHUNK = 300
"""Rows in one statement, of up to three parameters each; SQLite before 3.32 allows 999."""


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

    `at` is the very event time that the prediction was asked for; without it the label belongs to the key's
    newest prediction by then. `labelled_at` is the event time at which it was known. In microseconds.
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

    def revisions(self, endpoint: str) -> int:
        """How often a label of these predictions was replaced by another."""
        total = func.coalesce(func.sum(outcomes.c.revisions), 0)
        with self._workspace.read() as connection:
            return int(connection.execute(select(total).where(outcomes.c.endpoint == endpoint)).scalar_one())


def record_predictions(tx: Transaction, rows: Sequence[PredictionRecord]) -> None:
    """Add predictions to the index; those that are there already stay as they are. Labels that came before
    their prediction are joined to it."""
    for chunk in _chunks(rows):
        upsert(tx, outcomes, [_row(row) for row in chunk], keys=["id"], update=[])
    if tx.execute(select(pending.c.reference).limit(1)).one_or_none() is not None:
        for chunk in _chunks(rows):
            _join_pending(tx, chunk)


def record_labels(tx: Transaction, rows: Sequence[LabelRecord]) -> LabelCounts:
    """Join labels to their predictions; one whose prediction is not there yet waits for it.

    The same label again changes nothing. Of different ones for one prediction that which was known last
    stays, in whatever order they come.
    """
    counts = LabelCounts()
    newest: dict[str, LabelRecord] = {}
    for row in sorted(rows, key=lambda row: row.labelled_at):
        before = newest.get(_reference(row))
        if before is not None and before.label == row.label:
            counts.repeated += 1
            continue
        counts.revised += before is not None
        newest[_reference(row)] = row
    for chunk in _chunks(newest.values()):
        _record(tx, chunk, counts)
    return counts


def prune(tx: Transaction, before: datetime, *, keep: Sequence[Span] = ()) -> int:
    """Drop predictions and waiting labels older than `before`, but for predictions of the spans in `keep`;
    answers how many predictions."""
    limit = to_microseconds(before)
    tx.execute(delete(pending).where(pending.c.labelled_at < limit))
    query = delete(outcomes).where(outcomes.c.at < limit)
    for span in keep:
        start, end = to_microseconds(span.start), to_microseconds(span.end)
        query = query.where(
            or_(outcomes.c.endpoint != span.endpoint, outcomes.c.at < start, outcomes.c.at >= end)
        )
    return tx.execute(query).rowcount


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
        "revisions": 0,
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


def _reference(row: LabelRecord) -> str:
    """What a label names: a prediction's id, or a key at a time, or a key."""
    return row.id if row.id is not None else _by_key(row.endpoint, row.key, row.at)


def _by_key(endpoint: str, key: str | None, at: int | None) -> str:
    return f"{endpoint}\x1f{key}\x1f{'' if at is None else at}"


def _record(tx: Transaction, rows: Sequence[LabelRecord], counts: LabelCounts) -> None:
    found = _named(tx, rows)
    waiting = [row for row in rows if not found[_reference(row)]]
    changes = []
    for row in rows:
        standing = found[_reference(row)]
        changed = [each for each in standing if _replaces(row, each)]
        changes += [(each.id, row) for each in changed]
        if any(each.label is None for each in changed):
            counts.joined += 1
        elif changed:
            counts.revised += 1
        elif standing:
            counts.repeated += 1
    _set_labels(tx, changes)
    _keep_waiting(tx, waiting, counts)


def _named(tx: Transaction, rows: Sequence[LabelRecord]) -> dict[str, list[Any]]:
    """The predictions that each of these labels names, by reference: none, one, or all of a key at a time."""
    table = outcomes.c
    columns = (table.id, table.endpoint, table.key, table.at, table.label, table.labelled_at)
    found: dict[str, list[Any]] = {_reference(row): [] for row in rows}
    by_id = {row.id: row.endpoint for row in rows if row.id is not None}
    for each in tx.execute(select(*columns).where(table.id.in_(by_id))) if by_id else ():
        if each.endpoint == by_id[each.id]:
            found[each.id].append(each)
    timed = [(row.endpoint, row.key, row.at) for row in rows if row.id is None and row.at is not None]
    names = tuple_(table.endpoint, table.key, table.at)
    for each in tx.execute(select(*columns).where(names.in_(timed))) if timed else ():
        found[_by_key(each.endpoint, each.key, each.at)].append(each)
    for row in rows:
        if row.id is None and row.at is None:
            query = select(*columns).where(table.endpoint == row.endpoint, table.key == row.key)
            found[_reference(row)] += tx.execute(query.order_by(table.at.desc(), table.id).limit(1)).all()
    return found


def _replaces(row: LabelRecord, standing: Any) -> bool:
    """Whether a label is news for a prediction as it stands."""
    if standing.label is None:
        return True
    return bool(standing.label != row.label and standing.labelled_at <= row.labelled_at)


def _keep_waiting(tx: Transaction, rows: Sequence[LabelRecord], counts: LabelCounts) -> None:
    if not rows:
        return
    query = select(pending.c.reference, pending.c.label, pending.c.labelled_at)
    query = query.where(pending.c.reference.in_([_reference(row) for row in rows]))
    standing = {each.reference: each for each in tx.execute(query)}
    kept = []
    for row in rows:
        before = standing.get(_reference(row))
        if before is not None and not _replaces(row, before):
            counts.repeated += 1
            continue
        kept.append({"reference": _reference(row), **msgspec.structs.asdict(row)})
        if before is None:
            counts.pending += 1
        else:
            counts.revised += 1
    upsert(tx, pending, kept, keys=["reference"])


def _set_labels(tx: Transaction, labels: Sequence[tuple[str, Any]]) -> None:
    """Write labels (anything with `label` and `labelled_at`) to predictions by id."""
    if labels:
        statement = (
            update(outcomes)
            .where(outcomes.c.id == bindparam("of"))
            .values(
                label=bindparam("said"),
                labelled_at=bindparam("known"),
                revisions=outcomes.c.revisions + case((outcomes.c.label.is_(None), 0), else_=1),
            )
        )
        tx.execute(statement, [{"of": id, "said": row.label, "known": row.labelled_at} for id, row in labels])


def _join_pending(tx: Transaction, rows: Sequence[PredictionRecord]) -> None:
    """Take labels that wait for one of these predictions off the waiting list."""
    waited: dict[str, list[PredictionRecord]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.at):
        waited[row.id].append(row)
        if row.key is not None:
            waited[_by_key(row.endpoint, row.key, row.at)].append(row)
            waited[_by_key(row.endpoint, row.key, None)] = [row]
    found = tx.execute(select(pending).where(pending.c.reference.in_(waited))).all()
    found = [label for label in found if waited[label.reference][0].endpoint == label.endpoint]
    if found:
        found.sort(key=lambda label: label.labelled_at)
        _set_labels(tx, [(row.id, label) for label in found for row in waited[label.reference]])
        tx.execute(delete(pending).where(pending.c.reference.in_([label.reference for label in found])))
