"""What was deleted long enough ago, and how it goes for good: runs, experiments and logged models with all
that belongs to them. A deleted experiment takes its runs and logged models along, as in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, or_, select

from trimtab.store.database import Transaction
from trimtab.tracking.schema import (
    artifacts_table,
    experiment_tags_table,
    experiments_table,
    latest_metrics_table,
    logged_model_artifacts_table,
    logged_model_metrics_table,
    logged_model_params_table,
    logged_model_tags_table,
    logged_models_table,
    metric_chunks_table,
    params_table,
    run_datasets_table,
    run_models_table,
    run_tags_table,
    runs_table,
)

OF_RUNS: tuple[Table, ...] = (
    metric_chunks_table,
    latest_metrics_table,
    params_table,
    run_tags_table,
    artifacts_table,
    run_datasets_table,
    run_models_table,
)
"""The tables whose rows belong to the run whose number they have."""

OF_MODELS: tuple[Table, ...] = (
    logged_model_params_table,
    logged_model_tags_table,
    logged_model_metrics_table,
    logged_model_artifacts_table,
)
"""The tables whose rows belong to the logged model whose number they have."""

DEFAULT_EXPERIMENT = 0
"""It is made anew wherever it is missing, so its row stays."""


class Doomed(msgspec.Struct, frozen=True):
    """How much there is that was deleted long enough ago."""

    runs: int
    experiments: int
    logged_models: int


def doomed_experiment(before: datetime) -> ColumnElement[bool]:
    """Whether a row of the experiments was deleted before that."""
    table = experiments_table
    return (table.c.lifecycle == "deleted") & (table.c.deleted_at < before)


def _doomed_experiments(before: datetime) -> Select[Any]:
    return select(experiments_table.c.id).where(doomed_experiment(before))


def doomed_run(before: datetime) -> ColumnElement[bool]:
    """Whether a row of the runs was deleted before that, or its experiment was."""
    table = runs_table
    its_experiment = table.c.experiment_id.in_(_doomed_experiments(before))
    return ((table.c.lifecycle == "deleted") & (table.c.deleted_at < before)) | its_experiment


def doomed_model(before: datetime) -> ColumnElement[bool]:
    """Whether a row of the logged models was deleted before that, or its experiment was."""
    table = logged_models_table
    its_experiment = table.c.experiment_id.in_(_doomed_experiments(before))
    return or_(table.c.deleted_at < before, its_experiment)


def count_doomed(connection: Connection, before: datetime) -> Doomed:
    """How much would be purged."""

    def count(table: Table, condition: ColumnElement[bool]) -> int:
        return int(connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one())

    kept = experiments_table.c.id != DEFAULT_EXPERIMENT
    return Doomed(
        runs=count(runs_table, doomed_run(before)),
        experiments=count(experiments_table, doomed_experiment(before) & kept),
        logged_models=count(logged_models_table, doomed_model(before)),
    )


def doomed_runs(connection: Connection, before: datetime) -> list[int]:
    """The numbers of the runs that would be purged."""
    return list(connection.execute(select(runs_table.c.number).where(doomed_run(before))).scalars())


def doomed_models(connection: Connection, before: datetime) -> list[int]:
    """The numbers of the logged models that would be purged."""
    table = logged_models_table
    return list(connection.execute(select(table.c.number).where(doomed_model(before))).scalars())


def purge_runs(tx: Transaction, before: datetime, among: Sequence[int]) -> list[str]:
    """Let go of these runs with all that is theirs, if they are still doomed; answers their ids."""
    mine = runs_table.c.number.in_(among)
    query = select(runs_table.c.number, runs_table.c.id).where(mine, doomed_run(before))
    found = tx.execute(query.with_for_update(of=runs_table)).all()
    numbers = [row.number for row in found]
    for table in OF_RUNS:
        tx.execute(delete(table).where(table.c.run.in_(numbers)))
    tx.execute(delete(runs_table).where(runs_table.c.number.in_(numbers)))
    return [row.id for row in found]


def purge_models(tx: Transaction, before: datetime, among: Sequence[int]) -> list[str]:
    """Let go of these logged models with all that is theirs, if they are still doomed; answers their ids."""
    table = logged_models_table
    query = select(table.c.number, table.c.id).where(table.c.number.in_(among), doomed_model(before))
    found = tx.execute(query.with_for_update(of=table)).all()
    numbers = [row.number for row in found]
    for each in OF_MODELS:
        tx.execute(delete(each).where(each.c.model.in_(numbers)))
    tx.execute(delete(run_models_table).where(run_models_table.c.model.in_([row.id for row in found])))
    tx.execute(delete(table).where(table.c.number.in_(numbers)))
    return [row.id for row in found]


def purge_experiments(tx: Transaction, before: datetime) -> list[int]:
    """Let go of experiments that have neither runs nor logged models any more; answers their ids."""
    table = experiments_table
    holding = (runs_table, logged_models_table)
    empty = [table.c.id.not_in(select(each.c.experiment_id)) for each in holding]
    query = select(table.c.id).where(doomed_experiment(before), table.c.id != DEFAULT_EXPERIMENT, *empty)
    found = list(tx.execute(query.with_for_update(of=table)).scalars())
    tags = experiment_tags_table
    tx.execute(delete(tags).where(tags.c.experiment_id.in_(found)))
    tx.execute(delete(table).where(table.c.id.in_(found)))
    return found
