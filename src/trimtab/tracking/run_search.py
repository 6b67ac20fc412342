"""Runs searched by MLflow's filters and orders, compiled to SQL.

There are two ways to find a page. To *walk* goes along an index in the order asked for and looks at each run
whether it meets the filter, until the page is full: right where many do. To *gather* takes the runs that
meet one condition from an index, looks at each for the others, and sorts: right where few do. Which is
cheaper is reckoned from how many runs each condition leaves, as the indexes tell; databases reckon with no
numbers (SQLite) or with averages (Postgres), and are wrong where it hurts. A page goes on from the place at
which the one before ended, so that the last costs no more than the first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, func, literal_column, select
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from trimtab.errors import InvalidInputError
from trimtab.tracking.experiments import Lifecycle
from trimtab.tracking.filters import Condition, parse_filter, parse_order
from trimtab.tracking.run_conditions import NAME_TAG, PARENT_TAG, VOCABULARY, met, numbers_met
from trimtab.tracking.run_order import Key, Place, after, place_of, terms_of, token_of
from trimtab.tracking.schema import runs_table as runs

__all__ = ["NAME_TAG", "PARENT_TAG", "VOCABULARY", "FoundRuns", "search"]

COUNTED = 100_000
"""So many runs are counted before they are simply many; counting them takes a few milliseconds."""

GATHERED = 3.0
"""What a run costs that is gathered, where one that is walked past costs 1."""

_LIFECYCLES: tuple[Lifecycle, ...] = ("active", "deleted")


class FoundRuns(msgspec.Struct, frozen=True):
    """The rows of some runs, and the token that asks for those that follow ("" at the end)."""

    rows: list[Row[Any]]
    next_page_token: str


def search(
    connection: Connection,
    experiment_ids: Sequence[int],
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    lifecycle: Lifecycle | None = "active",
    limit: int = 1000,
    page_token: str = "",
) -> FoundRuns:
    """Runs of these experiments that meet the filter, a page at a time; those started last come first where
    the order says nothing else. `lifecycle` None: deleted ones too.

    Raises InvalidInputError for a filter, an order or a token that cannot be read.
    """
    conditions = parse_filter(filter, VOCABULARY)
    orders = [parse_order(clause, VOCABULARY) for clause in order_by]
    if len({(order.entity, order.key) for order in orders}) < len(orders):
        raise InvalidInputError(f"`order_by` contains duplicate fields: {list(order_by)}"[:500])
    keys = [Key(connection, order) for order in orders]
    place = place_of(page_token, terms_of(keys)) if page_token else None
    searched = _Searched(connection, sorted(set(experiment_ids)), lifecycle)
    few = None
    if conditions or keys:
        few = searched.narrowest(conditions, limit + 1, can_walk=searched.can_walk(keys))
    if few is None:
        wanted = [met(connection, condition) for condition in conditions]
        found = searched.walk(keys, wanted, place, limit + 1)
    else:
        wanted = [met(connection, condition) for condition in conditions if condition is not few.met]
        found = searched.gather(keys, [*few.narrowed, *wanted], place, limit + 1)
    rows = [row for row, _ in found[:limit]]
    return FoundRuns(rows, token_of(found[limit - 1][1]) if len(found) > limit else "")


_Found = list[tuple[Row[Any], Place]]


class _Few(msgspec.Struct, frozen=True):
    """Some runs to gather, how many they are, and the condition that all of them meet."""

    size: int
    narrowed: list[ColumnElement[bool]]
    met: Condition | None = None


class _Searched:
    """The runs that are searched: those of some experiments, in one lifecycle or both."""

    def __init__(
        self, connection: Connection, experiment_ids: Sequence[int], lifecycle: Lifecycle | None
    ) -> None:
        self._connection = connection
        self._ids = experiment_ids
        self._lifecycles = _LIFECYCLES if lifecycle is None else (lifecycle,)

    def can_walk(self, keys: Sequence[Key]) -> bool:
        """Whether an index has the runs in the order of these keys."""
        if not keys or keys[0].table is not None or keys[0].column.key == "started_at":
            return True
        return keys[0].column is runs.c.name and len(self._ids) == 1

    def narrowest(self, conditions: Sequence[Condition], wanted: int, *, can_walk: bool) -> _Few | None:
        """What to gather; None if walking is cheaper."""
        connection = self._connection
        total = max(connection.execute(select(func.max(runs.c.number))).scalar() or 0, 1)
        sizes = [_Few(self._size(), self._within())]
        for condition in conditions:
            numbers = numbers_met(connection, condition, self._ids)
            if numbers is not None:
                narrowed = [runs.c.number.in_(numbers), *self._within(by_index=False)]
                sizes.append(_Few(self._counted(numbers), narrowed, condition))
        fewest = min(sizes, key=lambda few: few.size)
        if not can_walk:
            return fewest
        if fewest.size >= COUNTED:
            return None
        share = math.prod(min(few.size / total, 1.0) for few in sizes)
        walked = min(wanted / max(share, 1e-12), total)
        return fewest if fewest.size * GATHERED <= walked else None

    def gather(
        self, keys: Sequence[Key], conditions: Sequence[ColumnElement[bool]], place: Place | None, wanted: int
    ) -> _Found:
        """All runs that meet the conditions, sorted; the first of them after the place."""
        terms = terms_of(keys)
        query = select(runs, *(term.column for term in terms)).where(*conditions)
        for key in keys:
            query = key.joined(query, outer=True)
        if place is not None:
            query = query.where(after(terms, place))
        return self._run(query.order_by(*(term.sorted() for term in terms)), len(terms), wanted)

    def walk(
        self, keys: Sequence[Key], conditions: Sequence[ColumnElement[bool]], place: Place | None, wanted: int
    ) -> _Found:
        """Along the index of the first key, until there are enough."""
        if not self.can_walk(keys):
            return self.gather(keys, [*conditions, *self._within()], place, wanted)
        if not keys or keys[0].column.key == "started_at":
            return self._walk_starts(keys, conditions, place, wanted)
        first, last_class = keys[0], keys[0].classes - 1
        if first.table is None:
            return self.gather(keys, [*conditions, *self._within(by_name=True)], place, wanted)
        found: _Found = []
        for number in range(last_class + 1):
            if len(found) >= wanted or (place is not None and int(place[0] or 0) > number):
                continue
            from_here = place if place is not None and place[0] == number else None
            if number == 0:
                found += self._walk_values(keys, conditions, from_here, wanted)
            elif number < last_class:
                found += self._walk_rows(keys, number, conditions, from_here, wanted - len(found))
            else:
                found += self._walk_rest(
                    keys, [number], [*conditions, ~first.given()], from_here, wanted - len(found)
                )
        return found

    def _walk_values(
        self, keys: Sequence[Key], conditions: Sequence[ColumnElement[bool]], place: Place | None, wanted: int
    ) -> _Found:
        """The runs whose first key has a value. Where very many have the same, their order among each other
        is that of the other keys, and an index may have it."""
        first = keys[0]
        found: _Found = []
        beyond: list[ColumnElement[bool]] = []
        width = len(first.terms)
        while len(found) < wanted:
            value = first.first_value(self._connection, *beyond) if place is None else place[1:width]
            if value is None or None in value:  # the end; or a place that no run has, from a token made up
                break
            alike = first.alike(value)
            if self._counted(select(literal_column("1")).where(first.named, *alike)) < COUNTED:
                return found + self._walk_rows(keys, 0, [*conditions, *beyond], place, wanted - len(found))
            among = [*conditions, first.given(*alike)]
            found += self._walk_rest(keys, [0, *value], among, place, wanted - len(found))
            place, beyond = None, [first.beyond(value)]
        return found

    def _walk_rest(
        self,
        keys: Sequence[Key],
        values: Place,
        conditions: Sequence[ColumnElement[bool]],
        place: Place | None,
        wanted: int,
    ) -> _Found:
        """Runs that are alike in the first key, which has these values, in the order of the others."""
        width = len(keys[0].terms)
        prefix = values + [None] * (width - len(values))
        rest = None if place is None else place[width:]
        return [(row, prefix + its) for row, its in self.walk(keys[1:], conditions, rest, wanted)]

    def _walk_rows(
        self,
        keys: Sequence[Key],
        number: int,
        conditions: Sequence[ColumnElement[bool]],
        place: Place | None,
        wanted: int,
    ) -> _Found:
        """The runs whose first key has a value (class 0) or NaN (class 1), along the index of its values."""
        first = keys[0]
        terms = terms_of(keys)[1:]
        present = first.column.is_not(None) if number == 0 else first.column.is_(None)
        query = select(runs, literal_column(str(number)), *(term.column for term in terms))
        query = query.select_from(runs)
        for key in keys:
            query = key.joined(query, outer=key is not first)
        query = query.where(present, *conditions, *self._within(by_index=False))
        if place is not None:
            query = query.where(after(terms, place[1:]))
        return self._run(query.order_by(*(term.sorted() for term in terms)), len(terms) + 1, wanted)

    def _walk_starts(
        self, keys: Sequence[Key], conditions: Sequence[ColumnElement[bool]], place: Place | None, wanted: int
    ) -> _Found:
        """The runs of each experiment in the order of their start, then merged."""
        several = len(self._ids) * len(self._lifecycles) > 1
        if several and len(keys) > 1:
            return self.gather(keys, [*conditions, *self._within()], place, wanted)
        parts: list[_Found] = []
        for experiment in self._ids:
            for lifecycle in self._lifecycles:
                here = [runs.c.experiment_id == experiment, runs.c.lifecycle == lifecycle]
                parts.append(self.gather(keys, [*conditions, *here], place, wanted))
        if not several:
            return parts[0] if parts else []
        ways = [1 if term.ascending else -1 for term in terms_of(keys)]

        def rank(found: tuple[Row[Any], Place]) -> list[int]:
            return [way * int(value or 0) for way, value in zip(ways, found[1], strict=True)]

        return list(heapq.merge(*parts, key=rank))[:wanted]

    def _run(self, query: Select[Any], terms: int, wanted: int) -> _Found:
        rows = self._connection.execute(query.limit(wanted))
        return [(row, list(row[-terms:])) for row in rows]

    def _within(self, *, by_index: bool = True, by_name: bool = False) -> list[ColumnElement[bool]]:
        """That a run is one of these. Not `by_index`: the database shall begin elsewhere."""
        experiment: ColumnElement[Any] = runs.c.experiment_id
        lifecycle: ColumnElement[Any] = runs.c.lifecycle
        if self._connection.dialect.name == "sqlite":
            lifecycle = _unindexed(lifecycle) if by_name or not by_index else lifecycle
            experiment = experiment if by_index else _unindexed(experiment)
        chosen = experiment == self._ids[0] if len(self._ids) == 1 else experiment.in_(self._ids)
        if len(self._lifecycles) == 1:
            return [chosen, lifecycle == self._lifecycles[0]]
        return [chosen, lifecycle.in_(self._lifecycles)]

    def _size(self) -> int:
        return self._counted(select(runs.c.number).where(*self._within()))

    def _counted(self, numbers: Select[Any]) -> int:
        some = numbers.limit(COUNTED).subquery()
        return int(self._connection.execute(select(func.count()).select_from(some)).scalar_one())


def _unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """SQLite's own sign for "find no index for this"."""
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)
