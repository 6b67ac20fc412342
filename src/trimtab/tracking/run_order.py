"""In what order runs come, and where in it a page ended.

What has no value comes last, whichever way the order goes, NaN just before; runs that are alike come in the
order in which they started, the last first.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    exists,
    false,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.sql.selectable import NamedFromClause

from trimtab.errors import InvalidInputError
from trimtab.tracking.filters import Order
from trimtab.tracking.run_conditions import VOCABULARY, beginning, column_of, metric_key, table_of
from trimtab.tracking.schema import latest_metrics_table as latest
from trimtab.tracking.schema import runs_table as runs

Place: TypeAlias = "list[int | float | str | None]"
"""Where a run stands in an order: the values of all its terms."""

_NULLABLE = frozenset({"ended_at", "parent"})


class Term:
    """One expression that runs are ordered by. What is NULL there is NULL in all rows that are alike in the
    term before."""

    def __init__(self, column: ColumnElement[Any], kind: type, *, ascending: bool) -> None:
        self.column = column
        self.kind = kind
        self.ascending = ascending

    def sorted(self) -> ColumnElement[Any]:
        """The term in ORDER BY."""
        return self.column.asc() if self.ascending else self.column.desc()

    def beyond(self, value: Any, *, reached: bool = False) -> ColumnElement[bool]:
        """Whether a row comes after one with this value; `reached`: or with it."""
        if value is None:
            return true() if reached else false()
        sign = (">" if self.ascending else "<") + ("=" if reached else "")
        return self.column.op(sign, is_comparison=True)(value)


class Key:
    """One key of an order. `classes` are those that rows fall into by it, in this order: those with a value,
    those with NaN (of metrics alone), and those with none. The first term tells them apart where there are
    several."""

    def __init__(self, connection: Connection, order: Order) -> None:
        if order.entity == "dataset":
            raise InvalidInputError("Runs cannot be ordered by their datasets.")
        self.table: NamedFromClause[Any] | None = None
        self.classes = 1
        self.named: ColumnElement[bool] = true()
        way = order.ascending
        column = column_of(order)
        if column is not None:
            self.column = type_coerce(column, BigInteger) if column.key in VOCABULARY.numeric else column
            absent = case((self.column.is_(None), 1), else_=0)
            self.classes = 2 if column.key in _NULLABLE else 1
            classed = [Term(absent, int, ascending=True)] if column.key in _NULLABLE else []
            kind = int if column.key in VOCABULARY.numeric else str
            prefix = [Term(beginning(column), str, ascending=way)] if column.key == "name" else []
            self.terms = [*classed, *prefix, Term(self.column, kind, ascending=way)]
        elif order.entity == "metric":
            self.table = metric = latest.alias()
            self.classes = 3
            self.column = metric.c.value
            self.named = metric.c.key == metric_key(connection, order.key)
            absent = case((metric.c.run.is_(None), 2), (metric.c.value.is_(None), 1), else_=0)
            self.terms = [
                Term(absent, int, ascending=True),
                Term(metric.c.value, float, ascending=way),
            ]
        else:
            self.table = text = table_of(order).alias()
            self.classes = 2
            self.column = text.c.value
            self.named = text.c.key == order.key
            self.terms = [
                Term(case((text.c.run.is_(None), 1), else_=0), int, ascending=True),
                Term(beginning(text.c.value), str, ascending=way),
                Term(text.c.value, str, ascending=way),
            ]

    def joined(self, query: Select[Any], *, outer: bool) -> Select[Any]:
        """The query with the table of this key; outer: runs without a value stay."""
        if self.table is None:
            return query
        return query.join(self.table, and_(self.table.c.run == runs.c.number, self.named), isouter=outer)

    def given(self, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        """Whether a run has a row in the table of this key that meets the conditions."""
        assert self.table is not None
        return (
            exists().select_from(self.table).where(self.table.c.run == runs.c.number, self.named, *conditions)
        )

    def first_value(self, connection: Connection, *conditions: ColumnElement[bool]) -> Place | None:
        """The first value in this order, of whatever run, as the values of all terms but the first."""
        terms = self.terms[1:]
        query = select(*(term.column for term in terms)).where(
            self.named, self.column.is_not(None), *conditions
        )
        row = connection.execute(query.order_by(*(term.sorted() for term in terms)).limit(1)).one_or_none()
        return None if row is None else list(row)

    def alike(self, values: Place) -> list[ColumnElement[bool]]:
        """That a row of this key's table has just this value."""
        *begins, last = values
        # Two comparisons for one: see `run_conditions`.
        exact = [self.column >= last, self.column <= last]
        return [*(term.column == value for term, value in zip(self.terms[1:], begins, strict=False)), *exact]

    def beyond(self, values: Place) -> ColumnElement[bool]:
        """That a row of this key's table has a later value."""
        return after(self.terms[1:], values)


STARTED = Term(type_coerce(runs.c.started_at, BigInteger), int, ascending=False)
NUMBER = Term(type_coerce(runs.c.number, BigInteger), int, ascending=False)


def terms_of(keys: Sequence[Key]) -> list[Term]:
    """All terms of an order, to the one that tells any two runs apart."""
    return [*(term for key in keys for term in key.terms), STARTED, NUMBER]


def after(terms: Sequence[Term], place: Place) -> ColumnElement[bool]:
    """Whether a row comes after this place."""
    condition: ColumnElement[bool] = false()
    for term, value in zip(reversed(terms), reversed(place), strict=True):
        if value is not None:
            condition = or_(term.beyond(value), and_(term.column == value, condition))
    return and_(terms[0].beyond(place[0], reached=True), condition)  # the first part: for the index


def token_of(place: Sequence[Any]) -> str:
    """The token of a page that begins after this place."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(list(place))).decode()


def place_of(token: str, terms: Sequence[Term]) -> Place:
    """The place that a token names in this order; raises InvalidInputError."""
    try:
        place: Place = msgspec.msgpack.decode(
            base64.urlsafe_b64decode(token), type=list[int | float | str | None]
        )
        if len(place) != len(terms):
            raise ValueError
        for term, value in zip(terms, place, strict=True):
            if value is not None and type(value) is not term.kind:
                raise ValueError
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError
            if isinstance(value, str) and "\0" in value:
                raise ValueError
        if place[-1] is None or place[-2] is None:
            raise ValueError
    except ValueError:
        raise InvalidInputError(f"Invalid page token '{token:.80}'.") from None
    return place
