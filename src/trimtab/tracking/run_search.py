"""Runs searched by MLflow's filters and orders, compiled to SQL."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, exists, or_, select

from trimtab.errors import InvalidInputError
from trimtab.store.types import from_microseconds, to_microseconds
from trimtab.tracking.comparison import compared, offset_of, offset_token
from trimtab.tracking.experiments import Lifecycle
from trimtab.tracking.filters import Condition, Order, Vocabulary, parse_filter, parse_order
from trimtab.tracking.schema import latest_metrics_table as latest
from trimtab.tracking.schema import metric_keys_table as metric_keys
from trimtab.tracking.schema import params_table, run_datasets_table, run_tags_table
from trimtab.tracking.schema import runs_table as runs

VOCABULARY = Vocabulary(
    attributes={
        "run_id": "id",
        "run_name": "name",
        "run name": "name",
        "Run name": "name",
        "Run Name": "name",
        "status": "status",
        "user_id": "actor",
        "artifact_uri": "id",
        "start_time": "started_at",
        "created": "started_at",
        "Created": "started_at",
        "end_time": "ended_at",
    },
    numeric=frozenset({"started_at", "ended_at"}),
    listed=frozenset({"id"}),
    entities=frozenset({"attribute", "metric", "param", "tag", "dataset"}),
)

NAME_TAG = "mlflow.runName"
PARENT_TAG = "mlflow.parentRunId"


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
    query = select(runs).where(runs.c.experiment_id.in_(experiment_ids))
    if lifecycle is not None:
        query = query.where(runs.c.lifecycle == lifecycle)
    for condition in parse_filter(filter, VOCABULARY):
        query = query.where(_met(connection, condition))
    orders = [parse_order(clause, VOCABULARY) for clause in order_by]
    if len({(order.entity, order.key) for order in orders}) < len(orders):
        raise InvalidInputError(f"`order_by` contains duplicate fields: {list(order_by)}"[:500])
    if not orders:
        return _by_start(connection, query, limit, page_token)
    for order in orders:
        query = _ordered(query, order)
    offset = offset_of(page_token)
    query = query.order_by(runs.c.started_at.desc(), runs.c.number.desc()).offset(offset).limit(limit + 1)
    rows = list(connection.execute(query))
    return FoundRuns(rows[:limit], offset_token(offset + limit) if len(rows) > limit else "")


def _by_start(connection: Connection, query: Select[Any], limit: int, page_token: str) -> FoundRuns:
    """The usual order goes on from where the page before ended, however far that is."""
    if page_token:
        at, number = _place(page_token)
        query = query.where(
            or_(runs.c.started_at < at, and_(runs.c.started_at == at, runs.c.number < number))
        )
    query = query.order_by(runs.c.started_at.desc(), runs.c.number.desc()).limit(limit + 1)
    rows = list(connection.execute(query))
    token = ""
    if len(rows) > limit:
        last = [to_microseconds(rows[limit - 1].started_at), rows[limit - 1].number]
        token = base64.urlsafe_b64encode(msgspec.json.encode(last)).decode()
    return FoundRuns(rows[:limit], token)


def _place(token: str) -> tuple[Any, int]:
    try:
        at, number = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[int, int])
        if not 0 <= number < 2**63:
            raise ValueError
        return from_microseconds(at), number
    except (ValueError, OverflowError):
        raise InvalidInputError(f"Invalid page token '{token:.80}'.") from None


def _met(connection: Connection, condition: Condition) -> ColumnElement[bool]:
    key = condition.key
    match condition.entity:
        case "attribute":
            if key in VOCABULARY.numeric:
                return _at(runs.c[key], condition)
            return compared(connection, runs.c[key], condition)
        case "metric":
            value = compared(connection, latest.c.value, condition)
            if condition.comparator == "!=":
                value = value | latest.c.value.is_(None)
            return exists().where(latest.c.run == runs.c.number, latest.c.key == _metric_key(key), value)
        case "dataset":
            table = run_datasets_table
            return exists().where(table.c.run == runs.c.number, compared(connection, table.c[key], condition))
        case entity:
            if entity == "tag" and key in {NAME_TAG, PARENT_TAG}:
                return compared(connection, _column_of_tag(key), condition)
            table = params_table if entity == "param" else run_tags_table
            here = and_(table.c.run == runs.c.number, table.c.key == key)
            if condition.comparator == "IS NULL":
                return ~exists().where(here)
            if condition.comparator == "IS NOT NULL":
                return exists().where(here)
            return exists().where(here, compared(connection, table.c.value, condition))


def _at(column: ColumnElement[Any], condition: Condition) -> ColumnElement[bool]:
    """Times are compared in milliseconds, as the world has them."""
    assert isinstance(condition.value, float)
    at = min(max(condition.value, -6.2e13), 2.5e14)  # the years that a time can have
    milliseconds = from_microseconds(int(at) * 1000)
    sign = "<>" if condition.comparator == "!=" else condition.comparator
    return column.op(sign, is_comparison=True)(milliseconds)


def _ordered(query: Select[Any], order: Order) -> Select[Any]:
    """What has no value comes last, whichever way the order goes; NaN just before."""
    if order.entity == "dataset":
        raise InvalidInputError("Runs cannot be ordered by their datasets.")
    if order.entity == "attribute" or (order.entity == "tag" and order.key in {NAME_TAG, PARENT_TAG}):
        column = runs.c[order.key] if order.entity == "attribute" else _column_of_tag(order.key)
        missing = case((column.is_(None), 1), else_=0)
    elif order.entity == "metric":
        metric = latest.alias()
        on = (metric.c.run == runs.c.number) & (metric.c.key == _metric_key(order.key))
        query, column = query.outerjoin(metric, on), metric.c.value
        missing = case((metric.c.run.is_(None), 2), (column.is_(None), 1), else_=0)
    else:
        table = (params_table if order.entity == "param" else run_tags_table).alias()
        on = (table.c.run == runs.c.number) & (table.c.key == order.key)
        query, column = query.outerjoin(table, on), table.c.value
        missing = case((column.is_(None), 1), else_=0)
    return query.order_by(missing, column.asc() if order.ascending else column.desc())


def _metric_key(key: str) -> Any:
    return select(metric_keys.c.id).where(metric_keys.c.name == key).scalar_subquery()


def _column_of_tag(key: str) -> ColumnElement[Any]:
    return runs.c.name if key == NAME_TAG else runs.c.parent
