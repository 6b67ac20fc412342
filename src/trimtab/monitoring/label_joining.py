"""How labels find the blocks of their predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import msgspec
import numpy as np
from sqlalchemy import delete, func, select, update

from trimtab.monitoring.key_filter import key_hash, may_have
from trimtab.monitoring.outcome_blocks import Answers, Labels, labels_of, unpacked
from trimtab.monitoring.outcome_records import (
    DAY,
    Answered,
    LabelCounts,
    LabelRecord,
    by_key,
    reference_of,
)
from trimtab.monitoring.prediction_names import Name, bound, name_of
from trimtab.monitoring.schema import outcome_blocks_table as blocks
from trimtab.monitoring.schema import pending_labels_table as pending
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert

Row = TypeVar("Row")

CHUNK = 300
"""Values in one list of a statement; SQLite before 3.32 allows 999."""


@dataclass
class _Sought:
    """A label that looks for its predictions, and what it met."""

    label: LabelRecord
    found: bool = False
    joined: bool = False
    revised: bool = False


def join_labels(tx: Transaction, rows: Sequence[LabelRecord], counts: LabelCounts) -> None:
    """Give labels, the oldest first, to the predictions that they name; keep those that find none. But for
    keys without a time, which may name another prediction each time, there is one for each reference."""
    sought = [_Sought(row) for row in rows]
    _give(tx, sought)
    for each in sought:
        if each.joined:
            counts.joined += 1
        elif each.revised:
            counts.revised += 1
        elif each.found:
            counts.repeated += 1
    _keep_waiting(tx, [each.label for each in sought if not each.found], counts)


def join_pending(tx: Transaction, rows: Answered) -> None:
    """Take labels that wait for one of these predictions, which are in their blocks, off the waiting list."""
    mine = pending.c.endpoint == rows.endpoint
    waiting = tx.execute(select(func.count()).select_from(pending).where(mine)).scalar_one()
    if not waiting:
        return
    columns = [pending.c[name] for name in LabelRecord.__struct_fields__]
    if waiting <= 3 * len(rows):
        found = tx.execute(select(*columns).where(mine)).all()
    else:
        found = []
        for some in _chunks(_references(rows)):
            found += tx.execute(select(*columns).where(mine, pending.c.reference.in_(some))).all()
    labels = [LabelRecord(**row._mapping) for row in found]
    labels.sort(key=lambda label: label.labelled_at)
    if waiting <= 3 * len(rows):
        labels = _named_by(labels, rows)
    sought = [_Sought(label) for label in labels]
    _give(tx, sought)
    for gone in _chunks(reference_of(each.label) for each in sought if each.found):
        tx.execute(delete(pending).where(pending.c.reference.in_(gone)))


def _named_by(labels: Sequence[LabelRecord], rows: Answered) -> list[LabelRecord]:
    """The labels that may name one of these predictions."""
    keys = set(rows.keys or ())
    ids = {name_of(label.id): label for label in labels if label.id is not None}
    found = {label.key for label in labels if label.id is None} & keys
    named = [label for label in labels if label.id is None and label.key in found]
    by_shelf: dict[bytes, list[Name]] = defaultdict(list)
    for name in ids:
        by_shelf[name.shelf].append(name)
    if by_shelf:
        for _, names in rows.shelved():
            wanted = by_shelf.get(names.shelf, [])
            places = names.rows_of([name.place for name in wanted]) if wanted else []
            named += [ids[name] for name, place in zip(wanted, places, strict=True) if place >= 0]
    return sorted(named, key=lambda label: label.labelled_at)


def _references(rows: Answered) -> Iterator[str]:
    """All that a label may say to name one of these predictions."""
    yield from rows.ids()
    for key, at in zip(rows.keys or (), rows.at.tolist(), strict=False):
        if key is not None:
            yield by_key(rows.endpoint, key, at)
            yield by_key(rows.endpoint, key, None)


def _give(tx: Transaction, sought: Sequence[_Sought]) -> None:
    """Write labels to the blocks of the predictions that they name, block by block."""
    places: dict[int, list[_Sought]] = defaultdict(list)
    newest: dict[int, list[tuple[_Sought, int]]] = defaultdict(list)
    by_endpoint: dict[str, list[_Sought]] = defaultdict(list)
    for each in sought:
        by_endpoint[each.label.endpoint].append(each)
    for endpoint, some in by_endpoint.items():
        _by_id(tx, endpoint, [each for each in some if each.label.id is not None], places)
        keyed = [each for each in some if each.label.id is None]
        _by_key_and_time(tx, endpoint, [each for each in keyed if each.label.at is not None], places)
        _by_key(tx, endpoint, [each for each in keyed if each.label.at is None], newest)
    for block in sorted(places.keys() | newest.keys()):
        _give_in(tx, block, places.get(block, []), newest.get(block, []))


def _by_id(
    tx: Transaction, endpoint: str, sought: Sequence[_Sought], places: dict[int, list[_Sought]]
) -> None:
    by_shelf: dict[bytes, list[tuple[bytes, _Sought]]] = defaultdict(list)
    for each in sought:
        assert each.label.id is not None
        name = name_of(each.label.id)
        by_shelf[name.shelf].append((bound(name.place), each))
        if name.shelf:
            by_shelf[b""].append((bound(each.label.id), each))
    meta = select(blocks.c.id, blocks.c.first_name, blocks.c.last_name).where(blocks.c.endpoint == endpoint)
    for shelf, wanted in by_shelf.items():
        query = meta.where(
            blocks.c.shelf == shelf,
            blocks.c.last_name >= min(place for place, _ in wanted),
            blocks.c.first_name <= max(place for place, _ in wanted),
        )
        for row in tx.execute(query):
            first, last = bytes(row.first_name), bytes(row.last_name)
            places[row.id] += [each for place, each in wanted if first <= place <= last]


def _by_key_and_time(
    tx: Transaction, endpoint: str, sought: Sequence[_Sought], places: dict[int, list[_Sought]]
) -> None:
    by_day: dict[int, list[tuple[int, _Sought]]] = defaultdict(list)
    for each in sought:
        assert each.label.at is not None
        by_day[each.label.at // DAY].append((each.label.at, each))
    for day, wanted in by_day.items():
        query = select(blocks.c.id, blocks.c.first_at, blocks.c.last_at, blocks.c["keys"]).where(
            blocks.c.endpoint == endpoint,
            blocks.c.day == day,
            blocks.c["keys"].is_not(None),
            blocks.c.last_at >= min(at for at, _ in wanted),
            blocks.c.first_at <= max(at for at, _ in wanted),
        )
        for row in tx.execute(query):
            within = [each for at, each in wanted if row.first_at <= at <= row.last_at]
            places[row.id] += _may_be_in(row.keys, within)


def _by_key(
    tx: Transaction,
    endpoint: str,
    sought: Sequence[_Sought],
    newest: dict[int, list[tuple[_Sought, int]]],
) -> None:
    """Find the newest prediction of each label's key by the time the label was known, from the newest block
    on. Where all of them are later (their event time was asked for, or clocks differ), it is the first."""
    if not sought:
        return
    best: dict[int, tuple[bool, int, int, int]] = {}
    query = (
        select(blocks.c.id, blocks.c.last_at, blocks.c["keys"])
        .where(blocks.c.endpoint == endpoint, blocks.c["keys"].is_not(None))
        .order_by(blocks.c.day.desc(), blocks.c.last_at.desc(), blocks.c.id.desc())
    )
    for row in tx.execute(query):
        open_ = [
            each
            for number, each in enumerate(sought)
            if number not in best or not best[number][0] or best[number][1] <= row.last_at
        ]
        if not open_:
            break
        asked = {each.label.key for each in _may_be_in(row.keys, open_)}
        if not asked or (found := _block(tx, row.id)) is None:
            continue
        at = found[0].at.tolist()
        places: dict[str, list[int]] = defaultdict(list)
        for place, key in enumerate(found[0].keys or ()):
            if key is not None and key in asked:
                places[key].append(place)
        for number, each in enumerate(sought):
            for place in places.get(each.label.key or "", ()):
                by_then = at[place] <= each.label.labelled_at
                here = (by_then, at[place] if by_then else -at[place], -row.id, -place)
                best[number] = max(best.get(number, here), here)
    for number, (_, _, block, place) in best.items():
        newest[-block].append((sought[number], -place))


def _may_be_in(filter: bytes, sought: Sequence[_Sought]) -> list[_Sought]:
    if not sought:
        return []
    hashes = np.array([key_hash(each.label.key or "") for each in sought], dtype=np.uint64)
    return [each for each, may in zip(sought, may_have(bytes(filter), hashes), strict=True) if may]


def _block(tx: Transaction, block: int) -> tuple[Answers, Labels] | None:
    """A block, which nobody else changes from now on; None if it was pruned meanwhile."""
    query = select(blocks.c.shelf, blocks.c.answers, blocks.c.labels).where(blocks.c.id == block)
    row = tx.execute(query.with_for_update()).one_or_none()
    return None if row is None else (unpacked(bytes(row.shelf), bytes(row.answers)), labels_of(row.labels))


def _give_in(
    tx: Transaction, block: int, sought: Sequence[_Sought], newest: Sequence[tuple[_Sought, int]]
) -> None:
    """Write labels to the predictions of one block that they name."""
    if (found := _block(tx, block)) is None:
        return
    answers, labels = found
    given = list(newest)
    ids = [each for each in sought if each.label.id is not None]
    rows = answers.names.rows_of([_place_in(answers, each.label.id or "") for each in ids]) if ids else []
    given += [(each, row) for each, row in zip(ids, rows, strict=True) if row >= 0]
    timed = {(each.label.key, each.label.at): each for each in sought if each.label.id is None}
    if timed:
        at = answers.at.tolist()
        for row, key in enumerate(answers.keys or ()):
            if key is not None and (one := timed.get((key, at[row]))) is not None:
                given.append((one, row))
    given.sort(key=lambda each: each[0].label.labelled_at)
    changed = False
    for each, row in given:
        each.found = True
        standing = labels.label.get(row)
        if standing is None:
            each.joined = True
        elif standing != each.label.label and labels.labelled_at[row] <= each.label.labelled_at:
            each.revised = True
        else:
            continue
        labels.set(row, each.label.label, each.label.labelled_at)
        changed = True
    if changed:
        values: dict[str, Any] = {
            "labels": labels.packed(),
            "labelled": len(labels),
            "revisions": sum(labels.revisions.values()),
        }
        tx.execute(update(blocks).where(blocks.c.id == block).values(**values))


def _place_in(answers: Answers, id: str) -> int | str:
    """An id's place on the shelf of a block; -1, which none has, if it belongs on another."""
    name = name_of(id)
    if not answers.names.shelf:
        return id
    return name.place if name.shelf == answers.names.shelf else -1


def _keep_waiting(tx: Transaction, rows: Sequence[LabelRecord], counts: LabelCounts) -> None:
    standing: dict[str, Any] = {}
    for some in _chunks(reference_of(row) for row in rows):
        query = select(pending.c.reference, pending.c.label, pending.c.labelled_at)
        found = tx.execute(query.where(pending.c.reference.in_(some)))
        standing |= {each.reference: each for each in found}
    kept: dict[str, LabelRecord] = {}
    for row in rows:
        before = kept.get(reference_of(row), standing.get(reference_of(row)))
        if before is not None and (before.label == row.label or before.labelled_at > row.labelled_at):
            counts.repeated += 1
            continue
        kept[reference_of(row)] = row
        if before is None:
            counts.pending += 1
        else:
            counts.revised += 1
    waiting = [{"reference": reference, **msgspec.structs.asdict(row)} for reference, row in kept.items()]
    upsert(tx, pending, waiting, keys=["reference"])


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
