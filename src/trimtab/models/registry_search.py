"""Models and their versions searched by MLflow's filters and orders, compiled to SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, exists, select

from trimtab.errors import InvalidInputError
from trimtab.models import versions
from trimtab.models.schema import model_tags_table, model_versions_table, models_table
from trimtab.models.versions import ModelVersion, RegisteredModel
from trimtab.tracking.comparison import compared, offset_of, offset_token
from trimtab.tracking.filters import Condition, Vocabulary, parse_filter, parse_order

PROMPT_TAG = "mlflow.prompt.is_prompt"
"""MLflow's clients ask for models whose tag of this key is not "true", and mean those that have none too."""

MODELS = Vocabulary(attributes={"name": "name"}, listed=frozenset({"name"}))
ORDERS_OF_MODELS = Vocabulary(
    attributes={
        "name": "name",
        "timestamp": "updated_at",
        "last_updated_timestamp": "updated_at",
    },
    entities=frozenset({"attribute"}),
)
VERSIONS = Vocabulary(
    attributes={"name": "name", "run_id": "run_id", "source_path": "source", "version_number": "version"},
    numeric=frozenset({"version"}),
    listed=frozenset({"name", "run_id"}),
)
ORDERS_OF_VERSIONS = Vocabulary(
    attributes={
        "name": "name",
        "version_number": "version",
        "creation_timestamp": "created_at",
        "last_updated_timestamp": "created_at",
    },
    entities=frozenset({"attribute"}),
)


class FoundModel(msgspec.Struct, frozen=True):
    """A model, and the newest version in each stage."""

    model: RegisteredModel
    newest: list[ModelVersion]


class FoundModels(msgspec.Struct, frozen=True):
    """Some models, and the token that asks for those that follow ("" at the end)."""

    models: list[FoundModel]
    next_page_token: str


class FoundVersions(msgspec.Struct, frozen=True):
    """Some versions, and the token that asks for those that follow ("" at the end)."""

    versions: list[ModelVersion]
    next_page_token: str


def search_models(
    connection: Connection,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    limit: int = 100,
    page_token: str = "",
) -> FoundModels:
    """Models that meet the filter, by name where the order says nothing else. Raises InvalidInputError for
    a filter, an order or a token that cannot be read."""
    query = select(models_table).where(models_table.c.lifecycle == "active")
    for condition in parse_filter(filter, MODELS):
        column = models_table.c.name if condition.entity == "attribute" else None
        query = query.where(_met(connection, condition, column, 0))
    query = _ordered(query, order_by, ORDERS_OF_MODELS)
    offset = offset_of(page_token)
    rows = list(connection.execute(query.order_by(models_table.c.name).offset(offset).limit(limit + 1)))
    token = offset_token(offset + limit) if len(rows) > limit else ""
    found = [
        FoundModel(versions.registered_model(connection, row), versions.newest_in_stages(connection, row))
        for row in rows[:limit]
    ]
    return FoundModels(found, token)


def search_versions(
    connection: Connection,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    limit: int = 10_000,
    page_token: str = "",
) -> FoundVersions:
    """Versions that meet the filter, the newest first where the order says nothing else. Raises
    InvalidInputError for a filter, an order or a token that cannot be read."""
    table = model_versions_table
    query: Select[Any] = (
        select(table)
        .join(models_table, models_table.c.id == table.c.model_id)
        .where(table.c.deleted_at.is_(None))
    )
    for condition in parse_filter(filter, VERSIONS):
        column = _column_of_version(condition.key) if condition.entity == "attribute" else None
        if isinstance(condition.value, float) and not condition.value.is_integer():
            raise InvalidInputError(f"A version's number is whole, and not {condition.value}.")
        query = query.where(_met(connection, condition, column, table.c.version))
    query = _ordered(query, order_by or ("last_updated_timestamp DESC",), ORDERS_OF_VERSIONS)
    query = query.order_by(models_table.c.name, table.c.version.desc())
    offset = offset_of(page_token)
    rows = list(connection.execute(query.offset(offset).limit(limit + 1)))
    token = offset_token(offset + limit) if len(rows) > limit else ""
    return FoundVersions(_described(connection, rows[:limit]), token)


def _described(connection: Connection, rows: Sequence[Row[Any]]) -> list[ModelVersion]:
    """The rows of versions of several models, in their order."""
    of_model: dict[int, list[Row[Any]]] = {}
    for row in rows:
        of_model.setdefault(row.model_id, []).append(row)
    found: dict[tuple[int, int], ModelVersion] = {}
    for model_id, own in of_model.items():
        model = connection.execute(_MODEL, {"id": model_id}).one()
        for version in versions.described(connection, model, own):
            found[model_id, version.version] = version
    return [found[row.model_id, row.version] for row in rows]


_MODEL = select(models_table).where(models_table.c.id == bindparam("id"))


def _met(
    connection: Connection, condition: Condition, column: Any, version: ColumnElement[int] | int
) -> ColumnElement[bool]:
    if condition.entity == "attribute":
        met = compared(connection, column, condition)
        # A version that came from no run has the empty run id for MLflow.
        return met | column.is_(None) if condition.comparator in {"!=", "NOT IN"} else met
    tags = model_tags_table
    here = (tags.c.model_id == models_table.c.id) & (tags.c.version == version)
    here = here & (tags.c.key == condition.key)
    if condition.comparator == "IS NULL":
        return ~exists().where(here)
    if condition.comparator == "IS NOT NULL":
        return exists().where(here)
    if condition.comparator == "!=" and condition.key == PROMPT_TAG:
        return ~exists().where(here, tags.c.value == condition.value)
    return exists().where(here, compared(connection, tags.c.value, condition))


def _ordered(query: Select[Any], clauses: Sequence[str], vocabulary: Vocabulary) -> Select[Any]:
    seen: set[str] = set()
    for clause in clauses:
        order = parse_order(clause, vocabulary)
        if order.entity != "attribute":
            raise InvalidInputError(f"Invalid order by key '{order.key:.80}' specified.")
        word = clause.split()[0]
        if word in seen:
            raise InvalidInputError(f"`order_by` contains duplicate fields: {list(clauses)}")
        seen.add(word)
        if vocabulary is ORDERS_OF_MODELS:
            column: ColumnElement[Any] = models_table.c[order.key]
        else:
            column = _column_of_version(order.key)
        query = query.order_by(column.asc() if order.ascending else column.desc())
    return query


def _column_of_version(key: str) -> ColumnElement[Any]:
    return models_table.c.name if key == "name" else model_versions_table.c[key]
