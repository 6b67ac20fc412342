"""Runs with all that was logged to them, read for many runs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Table, bindparam, select

from trimtab.store.prepared import Prepared, among
from trimtab.tracking.inputs import ModelUse, RunDataset, datasets_of, models_of
from trimtab.tracking.run_search import NAME_TAG, PARENT_TAG
from trimtab.tracking.schema import latest_metrics_table as latest
from trimtab.tracking.schema import metric_keys_table as metric_keys
from trimtab.tracking.schema import params_table, run_tags_table
from trimtab.tracking.schema import runs_table as runs

_RUNS_AT_ONCE = 500


class LatestMetric(msgspec.Struct, frozen=True, gc=False):
    """The latest value of a metric; None is NaN. `at` in microseconds since 1970."""

    key: str
    value: float | None
    step: int
    at: int


class RunDetails(msgspec.Struct, frozen=True):
    """A run's row and what belongs to it. The tags that MLflow keeps a run's name and parent in are there
    for every run."""

    row: Row[Any]
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[LatestMetric]
    datasets: list[RunDataset]
    models: list[ModelUse]


def details_of(connection: Connection, rows: Sequence[Row[Any]]) -> list[RunDetails]:
    """The details of runs, given by their rows, in the same order."""
    found = {row.number: RunDetails(row, {}, {}, [], [], []) for row in rows}
    numbers = list(found)
    for start in range(0, len(numbers), _RUNS_AT_ONCE):
        _fill(connection, found, numbers[start : start + _RUNS_AT_ONCE])
    for row in rows:
        tags = found[row.number].tags
        tags.setdefault(NAME_TAG, row.name)
        if row.parent is not None:
            tags.setdefault(PARENT_TAG, row.parent)
    return list(found.values())


def run_row(connection: Connection, run_id: str) -> Row[Any] | None:
    """The row of a run, or None."""
    return _RUN.first(connection, id=run_id)


def _keyed(table: Table) -> Prepared:
    columns = (table.c.run, table.c.key, table.c.value)
    return Prepared(select(*columns).where(among(table.c.run, "runs")).order_by(table.c.run, table.c.key))


_RUN = Prepared(select(runs).where(runs.c.id == bindparam("id")))
_PARAMS = _keyed(params_table)
_TAGS = _keyed(run_tags_table)
_METRICS = Prepared(
    select(latest.c.run, metric_keys.c.name, latest.c.value, latest.c.step, latest.c.at)
    .join(metric_keys, metric_keys.c.id == latest.c.key)
    .where(among(latest.c.run, "runs"))
    .order_by(latest.c.run, metric_keys.c.name)
)


def _fill(connection: Connection, found: dict[int, RunDetails], numbers: list[int]) -> None:
    for run, key, value in _PARAMS.tuples(connection, runs=numbers):
        found[run].params[key] = value
    for run, key, value in _TAGS.tuples(connection, runs=numbers):
        found[run].tags[key] = value
    for run, key, value, step, at in _METRICS.tuples(connection, runs=numbers):
        found[run].metrics.append(LatestMetric(key, value, step, at))
    for run, dataset in datasets_of(connection, numbers):
        found[run].datasets.append(dataset)
    for run, use in models_of(connection, numbers):
        found[run].models.append(use)
