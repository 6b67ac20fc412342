"""How predictions come into blocks: into the newest of their endpoint, day and shelf while it has room."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, insert, select, update

from trimtab.monitoring.key_filter import key_filter
from trimtab.monitoring.outcome_blocks import BLOCK_ROWS, Answers, Labels, labels_of, unpacked
from trimtab.monitoring.outcome_records import DAY, Answered
from trimtab.monitoring.prediction_names import Names
from trimtab.monitoring.schema import outcome_blocks_table as blocks
from trimtab.store.database import Transaction
from trimtab.store.prepared import Prepared

_overlapping = Prepared(
    select(blocks.c.id, blocks.c.shelf, blocks.c.answers)
    .where(blocks.c.endpoint == bindparam("endpoint"), blocks.c.shelf == bindparam("shelf"))
    .where(blocks.c.last_name >= bindparam("first"), blocks.c.first_name <= bindparam("last"))
)
_open = Prepared(
    select(blocks.c.id, blocks.c.labels, blocks.c.answers)
    .where(blocks.c.endpoint == bindparam("endpoint"), blocks.c.shelf == bindparam("shelf"))
    .where(blocks.c.day == bindparam("day"), blocks.c.rows < BLOCK_ROWS)
    .order_by(blocks.c.id.desc())
    .limit(1)
    .with_for_update()
)


def add_answers(tx: Transaction, rows: Answered) -> None:
    """Add predictions; those that are there already stay as they are."""
    keys = rows.keys
    for positions, names in rows.shelved():
        fresh = _fresh(tx, rows.endpoint, names)
        if fresh is not None:
            positions, names = positions[fresh], names.take(fresh)
        days = rows.at[positions] // DAY
        for day in np.unique(days).tolist():
            of_day = np.flatnonzero(days == day)
            mine = positions[of_day]
            some = Answers(
                names.take(of_day),
                rows.at[mine],
                rows.version[mine],
                rows.answer[mine],
                {version: said[mine] for version, said in rows.scores.items()},
                None if keys is None else [keys[row] for row in mine.tolist()],
            )
            _put(tx, rows.endpoint, day, _without_idle_scores(some))


def block_row(answers: Answers, labels: Labels) -> dict[str, Any]:
    """What the row of a block has in its columns, but for the endpoint, the day and the shelf."""
    first, last = answers.names.bounds
    keyed = {key for key in answers.keys or () if key is not None}
    return {
        "first_name": first,
        "last_name": last,
        "first_at": int(answers.at.min()),
        "last_at": int(answers.at.max()),
        "rows": len(answers),
        "labelled": len(labels),
        "revisions": sum(labels.revisions.values()),
        "labels": labels.packed(),
        "keys": key_filter(keyed) if keyed else None,
        "answers": answers.packed(),
    }


def _fresh(tx: Transaction, endpoint: str, names: Names) -> NDArray[np.int64] | None:
    """The rows that are not there yet, each name once; None for all."""
    first, last = names.bounds
    standing = _overlapping.rows(tx.connection, endpoint=endpoint, shelf=names.shelf, first=first, last=last)
    places = names.places if isinstance(names.places, list) else names.places.tolist()
    once = len(set(places)) == len(places)
    if once and not standing:
        return None
    known: set[int | str] = set()
    for row in standing:
        rows = unpacked(names.shelf, bytes(row.answers)).names.rows_of(places)
        known |= {place for place, at in zip(places, rows, strict=True) if at >= 0}
    kept = []
    for row, place in enumerate(places):
        if place not in known:
            known.add(place)
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def _put(tx: Transaction, endpoint: str, day: int, answers: Answers) -> None:
    shelf = answers.names.shelf
    standing = _open.first(tx.connection, endpoint=endpoint, shelf=shelf, day=day)
    start = 0
    if standing is not None and len(answers):
        before = unpacked(shelf, bytes(standing.answers))
        start = BLOCK_ROWS - len(before)
        changed = block_row(before.joined(answers.take(slice(0, start))), labels_of(standing.labels))
        tx.execute(update(blocks).where(blocks.c.id == standing.id).values(**changed))
    made = [
        {"endpoint": endpoint, "day": day, "shelf": shelf}
        | block_row(answers.take(slice(first, first + BLOCK_ROWS)), Labels())
        for first in range(start, len(answers), BLOCK_ROWS)
    ]
    if made:
        tx.execute(insert(blocks), made)


def _without_idle_scores(answers: Answers) -> Answers:
    """Without the scores of a version that answered and said nothing else: the answers tell those."""
    needed = {}
    for version, said in answers.scores.items():
        told = np.where(answers.version == version, answers.answer, np.nan)
        if not np.array_equal(said, told, equal_nan=True):
            needed[version] = said
    return Answers(answers.names, answers.at, answers.version, answers.answer, needed, answers.keys)
