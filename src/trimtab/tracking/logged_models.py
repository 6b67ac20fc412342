"""Logged models: what MLflow's clients of version 3 make of a model before anybody registers it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, exists, insert, select, update

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.store.database import Transaction
from trimtab.store.types import from_microseconds
from trimtab.store.upsert import upsert
from trimtab.tracking import experiments
from trimtab.tracking.artifacts import Shelf, shelf_of_model
from trimtab.tracking.comparison import compared, offset_of, offset_token
from trimtab.tracking.filters import Condition, Order, Vocabulary, parse_filter, parse_order
from trimtab.tracking.params_and_tags import checked_key, checked_text
from trimtab.tracking.schema import logged_model_metrics_table as metrics
from trimtab.tracking.schema import logged_model_params_table as params
from trimtab.tracking.schema import logged_model_tags_table as tags
from trimtab.tracking.schema import logged_models_table as models

Status = Literal["PENDING", "READY", "FAILED"]

VOCABULARY = Vocabulary(
    attributes={
        "model_id": "id",
        "name": "name",
        "model_type": "type",
        "status": "status",
        "source_run_id": "run",
        "creation_time": "created_at",
        "creation_timestamp": "created_at",
        "last_updated_timestamp": "updated_at",
        "last_updated_time": "updated_at",
    },
    numeric=frozenset({"created_at", "updated_at"}),
    listed=frozenset({"id", "name", "status", "run"}),
    entities=frozenset({"attribute", "metric", "param", "tag"}),
)


class ModelMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of a logged model, measured in a run, perhaps on a dataset ("" for none). `at` in
    microseconds since 1970."""

    model: str
    run: str
    key: str
    value: float
    step: int
    at: int
    dataset: str = ""
    dataset_digest: str = ""


class LoggedModel(msgspec.Struct, frozen=True):
    """A logged model's row and what belongs to it."""

    row: Row[Any]
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[ModelMetric]


class FoundModels(msgspec.Struct, frozen=True):
    """Some logged models, and the token that asks for those that follow ("" at the end)."""

    models: list[LoggedModel]
    next_page_token: str


def create(
    tx: Transaction,
    experiment_id: int,
    *,
    name: str,
    type: str = "",
    run: str | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Make a logged model, pending until it is finalized, and answer its id."""
    experiments.active(tx.connection, experiment_id)
    model_id = f"m-{uuid.uuid4().hex}"
    values = {
        "id": model_id,
        "experiment_id": experiment_id,
        "name": checked_text("the name", name),
        "type": checked_text("the type", type),
        "status": "PENDING",
        "run": run,
        "created_at": tx.at,
        "updated_at": tx.at,
    }
    tx.execute(insert(models).values(values))
    log_params(tx, model_id, params or {})
    set_tags(tx, model_id, tags or {})
    return model_id


def finalize(tx: Transaction, model_id: str, status: Status) -> None:
    """Say that a logged model is whole (or failed), also of one that was deleted meanwhile, as in MLflow."""
    row = find(tx.connection, model_id, deleted=True)
    tx.execute(update(models).where(models.c.number == row.number).values(status=status, updated_at=tx.at))


def remove(tx: Transaction, model_id: str) -> None:
    """Delete a logged model, once or again; its row stays."""
    row = find(tx.connection, model_id, deleted=True)
    if row.deleted_at is None:
        gone = {"deleted_at": tx.at, "updated_at": tx.at}
        tx.execute(update(models).where(models.c.number == row.number).values(gone))


def log_params(tx: Transaction, model_id: str, values: Mapping[str, str]) -> None:
    """Set params of a logged model; one that stands stays."""
    number = find(tx.connection, model_id).number
    upsert(tx, params, _rows(number, values), keys=["model", "key"], update=[])


def set_tags(tx: Transaction, model_id: str, values: Mapping[str, str]) -> None:
    """Set tags of a logged model; one that stands is replaced."""
    number = find(tx.connection, model_id).number
    upsert(tx, tags, _rows(number, values), keys=["model", "key"])


def delete_tag(tx: Transaction, model_id: str, key: str) -> None:
    """Take a tag off a logged model; raises NotFoundError if it has none of that key."""
    number = find(tx.connection, model_id, deleted=True).number  # as in MLflow
    if tx.execute(delete(tags).where(tags.c.model == number, tags.c.key == key)).rowcount == 0:
        raise NotFoundError(f"No tag with key {key!r} found for model with ID {model_id!r}.")


def log_metrics(tx: Transaction, logged: Sequence[ModelMetric]) -> None:
    """Keep the latest value of each metric of logged models, also of deleted ones: the run that measures them
    need not know. Raises NotFoundError for an unknown model."""
    names = {metric.model for metric in logged}
    numbers = {name: find(tx.connection, name, deleted=True).number for name in names}
    newest: dict[tuple[Any, ...], ModelMetric] = {}
    for metric in sorted(logged, key=lambda metric: (metric.step, metric.at)):
        newest[metric.model, metric.run, metric.key, metric.dataset, metric.dataset_digest] = metric
    rows = [
        {
            "model": numbers[metric.model],
            "run": metric.run,
            "key": checked_key(metric.key),
            "dataset": metric.dataset,
            "dataset_digest": metric.dataset_digest,
            "value": None if math.isnan(metric.value) else metric.value,
            "step": metric.step,
            "at": metric.at,
        }
        for metric in newest.values()
    ]
    upsert(
        tx,
        metrics,
        rows,
        keys=["model", "run", "key", "dataset", "dataset_digest"],
        where=lambda new: (
            (new["step"] > metrics.c.step) | ((new["step"] == metrics.c.step) & (new["at"] >= metrics.c.at))
        ),
    )


def find(connection: Connection, model_id: str, *, deleted: bool = False) -> Row[Any]:
    """The row of a logged model; raises NotFoundError, also for a deleted one unless `deleted`."""
    row = connection.execute(select(models).where(models.c.id == model_id)).one_or_none()
    if row is None or (row.deleted_at is not None and not deleted):
        raise NotFoundError(f"Logged model with ID '{model_id}' not found.")
    return row


def get(connection: Connection, model_id: str, *, deleted: bool = False) -> LoggedModel:
    """A logged model; raises NotFoundError."""
    return _described(connection, [find(connection, model_id, deleted=deleted)])[0]


def shelf(connection: Connection, model_id: str) -> Shelf:
    """The shelf of a logged model's artifacts; raises NotFoundError."""
    return shelf_of_model(find(connection, model_id).number, model_id)


def search(
    connection: Connection,
    experiment_ids: Sequence[int],
    *,
    filter: str = "",
    order_by: Sequence[Order] = (),
    datasets: Sequence[tuple[str, str | None]] = (),
    limit: int = 100,
    page_token: str = "",
) -> FoundModels:
    """Logged models of these experiments that meet the filter, the newest first where the order says nothing
    else. A metric in the filter counts only if measured on one of `datasets` (name, digest), if any given."""
    query = select(models).where(models.c.experiment_id.in_(experiment_ids), models.c.deleted_at.is_(None))
    for condition in parse_filter(filter, VOCABULARY):
        query = query.where(_met(connection, condition, datasets))
    for order in order_by:
        query = _ordered(query, order)
    offset = offset_of(page_token)
    query = query.order_by(models.c.created_at.desc(), models.c.id).offset(offset).limit(limit + 1)
    rows = list(connection.execute(query))
    token = offset_token(offset + limit) if len(rows) > limit else ""
    return FoundModels(_described(connection, rows[:limit]), token)


def order(field: str, *, ascending: bool) -> Order:
    """The order by a field, as a search takes it; raises InvalidInputError for one that is not known."""
    parsed = parse_order(field, VOCABULARY)
    if parsed.entity in {"param", "tag"}:
        raise InvalidInputError(f"Logged models cannot be ordered by '{field:.80}'.")
    return Order(parsed.entity, parsed.key, ascending)


def _ordered(query: Select[Any], order: Order) -> Select[Any]:
    if order.entity == "attribute":
        column: ColumnElement[Any] = models.c[order.key]
    else:
        column = (
            select(metrics.c.value)
            .where(metrics.c.model == models.c.number, metrics.c.key == order.key)
            .order_by(metrics.c.at.desc())
            .limit(1)
            .scalar_subquery()
        )
    return query.order_by(column.is_(None), column.asc() if order.ascending else column.desc())


def _met(
    connection: Connection, condition: Condition, datasets: Sequence[tuple[str, str | None]]
) -> ColumnElement[bool]:
    key = condition.key
    if condition.entity == "attribute":
        column = models.c[key]
        if key not in VOCABULARY.numeric:
            return compared(connection, column, condition)
        assert isinstance(condition.value, float)
        at = from_microseconds(int(min(max(condition.value, -6.2e13), 2.5e14)) * 1000)
        sign = "<>" if condition.comparator == "!=" else condition.comparator
        return column.op(sign, is_comparison=True)(at)
    table = {"metric": metrics, "param": params, "tag": tags}[condition.entity]
    here = (table.c.model == models.c.number) & (table.c.key == key)
    if condition.comparator in {"IS NULL", "IS NOT NULL"}:
        there = exists().where(here)
        return there if condition.comparator == "IS NOT NULL" else ~there
    if condition.entity == "metric" and datasets:
        measured = [
            (metrics.c.dataset == name) & (metrics.c.dataset_digest == digest if digest else True)
            for name, digest in datasets
        ]
        here = here & _any(measured)
    return exists().where(here, compared(connection, table.c.value, condition))


def _any(conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
    found = conditions[0]
    for condition in conditions[1:]:
        found = found | condition
    return found


def _described(connection: Connection, rows: Sequence[Row[Any]]) -> list[LoggedModel]:
    found = {row.number: LoggedModel(row, {}, {}, []) for row in rows}
    numbers = list(found)
    for start in range(0, len(numbers), 500):
        some = numbers[start : start + 500]
        for row in connection.execute(select(params).where(params.c.model.in_(some)).order_by(params.c.key)):
            found[row.model].params[row.key] = row.value
        for row in connection.execute(select(tags).where(tags.c.model.in_(some)).order_by(tags.c.key)):
            found[row.model].tags[row.key] = row.value
        for row in connection.execute(
            select(metrics).where(metrics.c.model.in_(some)).order_by(metrics.c.key)
        ):
            metric = ModelMetric(
                model=found[row.model].row.id,
                run=row.run,
                key=row.key,
                value=math.nan if row.value is None else row.value,
                step=row.step,
                at=row.at,
                dataset=row.dataset,
                dataset_digest=row.dataset_digest,
            )
            found[row.model].metrics.append(metric)
    return list(found.values())


def _rows(number: int, values: Mapping[str, str]) -> list[dict[str, object]]:
    return [
        {"model": number, "key": checked_key(key), "value": checked_text(f"'{key}'", value)}
        for key, value in values.items()
    ]
