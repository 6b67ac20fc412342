"""Experiments searched by MLflow's filters and orders, compiled to SQL."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, exists, false, select

from trimtab.store.types import from_microseconds
from trimtab.tracking.comparison import compared, offset_of, offset_token
from trimtab.tracking.experiments import Experiment, Lifecycle, experiment_of
from trimtab.tracking.filters import Condition, Vocabulary, parse_filter, parse_order
from trimtab.tracking.schema import experiment_tags_table as tags
from trimtab.tracking.schema import experiments_table as experiments

VOCABULARY = Vocabulary(
    attributes={
        "name": "name",
        "experiment_id": "id",
        "creation_time": "created_at",
        "last_update_time": "updated_at",
    },
    numeric=frozenset({"created_at", "updated_at"}),
    listed=frozenset({"id"}),
)


class FoundExperiments(msgspec.Struct, frozen=True):
    """Some experiments, and the token that asks for those that follow ("" at the end)."""

    experiments: list[Experiment]
    next_page_token: str


def search(
    connection: Connection,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    lifecycle: Lifecycle | None = "active",
    limit: int = 1000,
    page_token: str = "",
) -> FoundExperiments:
    """Experiments that meet the filter, a page at a time, those made last first where the order says
    nothing else. Raises InvalidInputError for a filter, an order or a token that cannot be read."""
    query = select(experiments)
    if lifecycle is not None:
        query = query.where(experiments.c.lifecycle == lifecycle)
    for condition in parse_filter(filter, VOCABULARY):
        query = query.where(_met(connection, condition))
    for clause in order_by:
        order = parse_order(clause, VOCABULARY)
        column = experiments.c[order.key if order.entity == "attribute" else "id"]
        query = query.order_by(column.asc() if order.ascending else column.desc())
    if not order_by:
        query = query.order_by(experiments.c.created_at.desc())
    offset = offset_of(page_token)
    query = query.order_by(experiments.c.id.desc()).offset(offset).limit(limit + 1)
    rows = list(connection.execute(query))
    token = offset_token(offset + limit) if len(rows) > limit else ""
    return FoundExperiments([experiment_of(row) for row in rows[:limit]], token)


def _met(connection: Connection, condition: Condition) -> ColumnElement[bool]:
    key, value = condition.key, condition.value
    if condition.entity == "tag":
        here = (tags.c.experiment_id == experiments.c.id) & (tags.c.key == key)
        if condition.comparator == "IS NULL":
            return ~exists().where(here)
        if condition.comparator == "IS NOT NULL":
            return exists().where(here)
        return exists().where(here, compared(connection, tags.c.value, condition))
    if key in VOCABULARY.numeric:
        assert isinstance(value, float)
        at = from_microseconds(int(min(max(value, -6.2e13), 2.5e14)) * 1000)
        sign = "<>" if condition.comparator == "!=" else condition.comparator
        return experiments.c[key].op(sign, is_comparison=True)(at)
    if key == "id":
        wanted = value if isinstance(value, tuple) else (str(value),)
        numbers = [int(each) for each in wanted if each.isdecimal() and len(each) < 19]
        chosen = experiments.c.id.in_(numbers) if numbers else false()
        return ~chosen if condition.comparator in {"!=", "NOT IN"} else chosen
    return compared(connection, experiments.c[key], condition)
