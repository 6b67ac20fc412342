"""What a filter of runs asks for, in SQL: for a run that is at hand, and as the runs that meet it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    exists,
    func,
    literal_column,
    select,
)

from trimtab.store.types import from_microseconds
from trimtab.tracking.comparison import compared, literal_beginning
from trimtab.tracking.filters import Condition, Order, Vocabulary
from trimtab.tracking.schema import INDEXED_CHARACTERS, params_table, run_datasets_table, run_tags_table
from trimtab.tracking.schema import latest_metrics_table as latest
from trimtab.tracking.schema import metric_keys_table as metric_keys
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

_COLUMNS = {NAME_TAG: "name", PARENT_TAG: "parent"}
"""Tags that are columns of runs."""


def met(connection: Connection, condition: Condition) -> ColumnElement[bool]:
    """Whether a run of `runs` meets the condition."""
    key = condition.key
    match condition.entity:
        case "metric":
            value = compared(connection, latest.c.value, condition)
            if condition.comparator == "!=":
                value = value | latest.c.value.is_(None)
            here = and_(latest.c.run == runs.c.number, latest.c.key == metric_key(connection, key))
            return exists().where(here, value)
        case "dataset":
            table = run_datasets_table
            return exists().where(table.c.run == runs.c.number, compared(connection, table.c[key], condition))
        case _ if (column := column_of(condition)) is not None:
            return _compared_column(connection, column, condition)
    table = table_of(condition)
    here = and_(table.c.run == runs.c.number, table.c.key == key)
    if condition.comparator == "IS NULL":
        return ~exists().where(here)
    if condition.comparator == "IS NOT NULL":
        return exists().where(here)
    return exists().where(here, compared(connection, table.c.value, condition))


def numbers_met(
    connection: Connection, condition: Condition, experiment_ids: Sequence[int]
) -> Select[Any] | None:
    """The numbers of the runs that meet the condition, where an index has them; None where none does. There
    may be runs of other experiments among them."""
    key, comparator = condition.key, condition.comparator
    if comparator in {"!=", "NOT IN", "ILIKE", "IS NULL"}:
        return None
    if condition.entity == "metric":
        query = select(latest.c.run).where(latest.c.key == metric_key(connection, key))
        return query.where(compared(connection, latest.c.value, condition))
    if condition.entity == "dataset":
        datasets = run_datasets_table
        if key != "name" or comparator == "LIKE":
            return None
        return select(datasets.c.run).where(compared(connection, datasets.c.name, condition))
    column = column_of(condition)
    if column is None:
        table = table_of(condition)
        query = select(table.c.run).where(table.c.key == key)
        if comparator == "IS NOT NULL":
            return query
        return _beginning_alike(connection, query, table.c.value, condition)
    if column is runs.c.name and comparator != "IS NOT NULL":
        query = select(runs.c.number).where(runs.c.experiment_id.in_(experiment_ids))
        return _beginning_alike(connection, query, column, condition)
    if (column is runs.c.id and comparator != "LIKE") or (column is runs.c.parent and comparator == "="):
        return select(runs.c.number).where(compared(connection, column, condition))
    return None


def beginning(column: ColumnElement[Any]) -> ColumnElement[str]:
    """What the indexes keep of a text, spelled as they spell it."""
    return func.substr(column, literal_column("1"), literal_column(str(INDEXED_CHARACTERS)))


def column_of(asked: Condition | Order) -> Column[Any] | None:
    """The column of runs that a condition or an order is about; None if it is in another table."""
    if asked.entity == "attribute":
        return runs.c[asked.key]
    if asked.entity == "tag" and asked.key in _COLUMNS:
        return runs.c[_COLUMNS[asked.key]]
    return None


def table_of(asked: Condition | Order) -> Table:
    """The table of params or of tags."""
    return params_table if asked.entity == "param" else run_tags_table


def metric_key(connection: Connection, key: str) -> int:
    """The number of a metric's name; 0, which none has, if it was never logged."""
    found = connection.execute(select(metric_keys.c.id).where(metric_keys.c.name == key)).scalar_one_or_none()
    return 0 if found is None else found


def _compared_column(
    connection: Connection, column: ColumnElement[Any], condition: Condition
) -> ColumnElement[bool]:
    if column.key not in VOCABULARY.numeric:
        return compared(connection, column, condition)
    # Times are compared in milliseconds, as the world has them.
    assert isinstance(condition.value, float)
    at = min(max(condition.value, -6.2e13), 2.5e14)  # the years that a time can have
    sign = "<>" if condition.comparator == "!=" else condition.comparator
    return column.op(sign, is_comparison=True)(from_microseconds(int(at) * 1000))


def _beginning_alike(
    connection: Connection, query: Select[Any], column: ColumnElement[Any], condition: Condition
) -> Select[Any] | None:
    """The query narrowed to where the column compares as asked, by what the index has of it."""
    begins, value = beginning(column), str(condition.value)
    if condition.comparator == "=":
        query = query.where(begins == value[:INDEXED_CHARACTERS])
        if len(value) < INDEXED_CHARACTERS:
            return query
        # Not "=": SQLite would put the value into the other comparison too, and find no index for that.
        return query.where(column >= value, column <= value)
    known = literal_beginning(value)[:INDEXED_CHARACTERS]
    if not known:
        return None
    query = query.where(begins >= known, compared(connection, column, condition))
    following = _following(known)
    return query if following is None else query.where(begins < following)


def _following(text: str) -> str | None:
    """The first text after all that begin with `text`, in the order of UTF-8; None if there is none."""
    last = ord(text[-1]) + 1
    if last == 0xD800:
        last = 0xE000  # what lies between is no text
    return text[:-1] + chr(last) if last < 0x110000 else None
