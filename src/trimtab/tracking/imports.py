"""Experiments, runs and logged models that come from elsewhere, written as they were there, many at once.

What is imported keeps its ids, times, states and people. A run with few points is written in one transaction
with all that belongs to it. One with many is written in several: until the last of them it stands as a
deleted run with the tag `UNFINISHED`, so that nobody takes it for whole, and what was written of it can be
dropped.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
import numpy as np
from sqlalchemy import Connection, Table, delete, func, insert, select, update

from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.tracking import logged_models
from trimtab.tracking.experiments import Lifecycle
from trimtab.tracking.inputs import CONTEXT_TAG, ModelUse, RunDataset
from trimtab.tracking.logged_models import ModelMetric
from trimtab.tracking.metrics import PLAIN
from trimtab.tracking.runs import Status
from trimtab.tracking.schema import (
    artifacts_table,
    experiment_tags_table,
    experiments_table,
    latest_metrics_table,
    logged_model_artifacts_table,
    logged_model_params_table,
    logged_model_tags_table,
    logged_models_table,
    metric_chunks_table,
    metric_keys_table,
    metric_writers_table,
    params_table,
    run_datasets_table,
    run_models_table,
    run_tags_table,
    runs_table,
)

UNFINISHED = "trimtab.import"
"""The tag of a run that is not whole yet; its value says so in words."""

WRITER = "import"
"""Under this name imported points stand among those that were logged here."""

LARGEST_CHUNK = 65_536
"""Points."""

HIGHEST_KEPT_ID = 999_999_999_000_000_000
"""Above it ids could run out of the 18 digits that they may have, since others count on from the highest."""

_AT_ONCE = 500
_FEW = 64

Files = Mapping[str, tuple[str, int]]
"""Artifacts by path: digest and size in bytes."""


class ImportedExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment as it was; `id` is kept if no other experiment has it."""

    id: int
    name: str
    lifecycle: Lifecycle
    created_at: datetime
    updated_at: datetime
    tags: dict[str, str]


class ImportedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it was, without its metrics."""

    id: str
    experiment_id: int
    parent: str | None
    name: str
    status: Status
    lifecycle: Lifecycle
    actor: str
    started_at: datetime
    ended_at: datetime | None
    deleted_at: datetime | None
    params: dict[str, str]
    tags: dict[str, str]
    datasets: tuple[RunDataset, ...]
    models: tuple[ModelUse, ...]
    artifacts: Files


class ImportedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A logged model as it was."""

    id: str
    experiment_id: int
    name: str
    type: str
    status: logged_models.Status
    run: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: tuple[ModelMetric, ...]
    artifacts: Files


class Points(msgspec.Struct, frozen=True):
    """Points of one metric as columns of one length: steps, microseconds since 1970, values."""

    key: str
    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]


class Standing(msgspec.Struct, frozen=True):
    """A run that is here already."""

    number: int
    experiment_id: int
    whole: bool


_Latest = tuple[int, int, float]  # step, time, value


def add_experiment(tx: Transaction, given: ImportedExperiment) -> int:
    """Make an experiment, whose name is free, and answer its id."""
    row: dict[str, object] = {
        "name": given.name,
        "lifecycle": given.lifecycle,
        "created_at": given.created_at,
        "updated_at": given.updated_at,
        "deleted_at": given.updated_at if given.lifecycle == "deleted" else None,
    }
    taken = tx.execute(select(experiments_table.c.id).where(experiments_table.c.id == given.id)).first()
    if taken is None and 0 <= given.id <= HIGHEST_KEPT_ID:
        row["id"] = given.id
    tx.execute(insert(experiments_table).values(row))
    made: int = tx.execute(
        select(experiments_table.c.id).where(experiments_table.c.name == given.name)
    ).scalar_one()
    if "id" in row and tx.connection.dialect.name == "postgresql":
        # Postgres does not see ids that it did not give itself.
        newest = func.greatest(select(func.max(experiments_table.c.id)).scalar_subquery(), 1)
        tx.execute(select(func.setval(func.pg_get_serial_sequence("experiments", "id"), newest)))
    add_experiment_tags(tx, made, given.tags)
    return made


def add_experiment_tags(tx: Transaction, experiment_id: int, tags: Mapping[str, str]) -> None:
    """Set the tags that an experiment has not yet."""
    rows = [{"experiment_id": experiment_id, "key": key, "value": value} for key, value in tags.items()]
    upsert(tx, experiment_tags_table, rows, keys=["experiment_id", "key"], update=[])


def standing_runs(connection: Connection, ids: Sequence[str]) -> dict[str, Standing]:
    """Those of these runs that are here, by id."""
    found = {}
    runs, tags = runs_table, run_tags_table
    for some in _slices(ids):
        query = (
            select(runs.c.id, runs.c.number, runs.c.experiment_id, tags.c.value)
            .outerjoin(tags, (tags.c.run == runs.c.number) & (tags.c.key == UNFINISHED))
            .where(runs.c.id.in_(some))
        )
        for row in connection.execute(query):
            found[row.id] = Standing(row.number, row.experiment_id, row.value is None)
    return found


def standing_models(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these logged models that are here."""
    table = logged_models_table
    return {
        found
        for some in _slices(ids)
        for found in connection.execute(select(table.c.id).where(table.c.id.in_(some))).scalars()
    }


class PointsWriter:
    """Writes points of runs that nobody else writes to, and remembers the numbers of keys."""

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}

    def learn(self, tx: Transaction, keys: Iterable[str]) -> dict[str, int]:
        """The numbers of all keys so far, for `write`. To be given to `remember` after the commit."""
        missing = sorted({key for key in keys if key not in self._keys})
        return {**self._keys, **_interned(tx, metric_keys_table, missing)} if missing else self._keys

    def remember(self, keys: dict[str, int]) -> None:
        """Keep what `learn` found, now that it is committed."""
        self._keys = keys

    def write(
        self,
        tx: Transaction,
        keys: Mapping[str, int],
        points: Iterable[tuple[int, Points]],
        *,
        sequence: int = 0,
    ) -> int:
        """Write points, each with its run's number, and answer the next free sequence."""
        writer = _interned(tx, metric_writers_table, [WRITER])[WRITER]
        chunks: list[dict[str, object]] = []
        latest: dict[tuple[int, int], _Latest] = {}
        for run, block in points:
            key = keys[block.key]
            for start in range(0, len(block.steps), LARGEST_CHUNK):
                end = start + LARGEST_CHUNK
                steps = block.steps[start:end]
                first, last, data, newest = _packed(steps, block.times[start:end], block.values[start:end])
                chunks.append(
                    {
                        "run": run,
                        "key": key,
                        "writer": writer,
                        "sequence": sequence,
                        "points": len(steps),
                        "first_step": first,
                        "last_step": last,
                        "encoding": PLAIN,
                        "data": data,
                    }
                )
                sequence += 1
                before = latest.get((run, key))
                if before is None or _rank(newest) > _rank(before):
                    latest[run, key] = newest
        if chunks:
            tx.execute(insert(metric_chunks_table), chunks)
        self._keep_latest(tx, latest)
        return sequence

    @staticmethod
    def _keep_latest(tx: Transaction, latest: Mapping[tuple[int, int], _Latest]) -> None:
        table = latest_metrics_table
        rows = [
            {"run": run, "key": key, "value": None if math.isnan(value) else value, "step": step, "at": at}
            for (run, key), (step, at, value) in sorted(latest.items())
        ]
        upsert(
            tx,
            table,
            rows,
            keys=["run", "key"],
            where=lambda new: (
                (new["step"] > table.c.step)
                | ((new["step"] == table.c.step) & (new["at"] > table.c.at))
                | (
                    (new["step"] == table.c.step)
                    & (new["at"] == table.c.at)
                    & ((new["value"] > table.c.value) | table.c.value.is_(None))
                )
            ),
        )


def add_runs(tx: Transaction, runs: Sequence[ImportedRun]) -> dict[str, int]:
    """Write runs that are not here, whole but for their metrics; answers their numbers by id."""
    tx.execute(insert(runs_table), [_run_row(run) for run in runs])
    numbers: dict[str, int] = {}
    for some in _slices([run.id for run in runs]):
        query = select(runs_table.c.id, runs_table.c.number).where(runs_table.c.id.in_(some))
        numbers.update({row.id: row.number for row in tx.execute(query)})
    pairs = [(numbers[run.id], run) for run in runs]
    _insert(tx, params_table, [_pair(n, pair) for n, run in pairs for pair in run.params.items()])
    _insert(tx, run_tags_table, [_pair(n, pair) for n, run in pairs for pair in run.tags.items()])
    _insert(tx, run_datasets_table, [row for n, run in pairs for row in _dataset_rows(n, run.datasets)])
    models = {(n, use.direction, use.model): use.step for n, run in pairs for use in run.models}
    _insert(
        tx,
        run_models_table,
        [
            {"run": n, "direction": direction, "model": model, "step": step}
            for (n, direction, model), step in models.items()
        ],
    )
    files = [row for n, run in pairs for row in _file_rows(tx, "run", n, run.artifacts)]
    _insert(tx, artifacts_table, files)
    return numbers


def begin_run(tx: Transaction, run: ImportedRun) -> int:
    """Write a run that will take several transactions, hidden; answers its number."""
    hidden = msgspec.structs.replace(
        run,
        lifecycle="deleted",
        deleted_at=tx.at,
        tags={**run.tags, UNFINISHED: "not whole yet: let the import go on"},
    )
    return add_runs(tx, [hidden])[run.id]


def finish_run(tx: Transaction, number: int, run: ImportedRun) -> None:
    """Show a run as what it is, now that it is whole."""
    state = {"lifecycle": run.lifecycle, "deleted_at": run.deleted_at}
    tx.execute(update(runs_table).where(runs_table.c.number == number).values(state))
    tags = run_tags_table
    tx.execute(delete(tags).where(tags.c.run == number, tags.c.key == UNFINISHED))


def drop_runs(tx: Transaction, numbers: Sequence[int]) -> None:
    """Take back all that was written of runs which are not whole."""
    for table in (
        params_table, run_tags_table, run_datasets_table, run_models_table, artifacts_table,
        metric_chunks_table, latest_metrics_table,
    ):  # fmt: skip
        tx.execute(delete(table).where(table.c.run.in_(numbers)))
    tx.execute(delete(runs_table).where(runs_table.c.number.in_(numbers)))


def add_model(tx: Transaction, model: ImportedModel) -> None:
    """Write a logged model that is not here."""
    row = {
        name: getattr(model, name)
        for name in (
            "id", "experiment_id", "name", "type", "status", "run", "created_at", "updated_at", "deleted_at",
        )
    }  # fmt: skip
    tx.execute(insert(logged_models_table).values({**row, "deleted_at": None}))
    number = tx.execute(
        select(logged_models_table.c.number).where(logged_models_table.c.id == model.id)
    ).scalar_one()
    for table, values in ((logged_model_params_table, model.params), (logged_model_tags_table, model.tags)):
        _insert(tx, table, [{"model": number, "key": k, "value": v} for k, v in values.items()])
    logged_models.log_metrics(tx, model.metrics)
    _insert(tx, logged_model_artifacts_table, list(_file_rows(tx, "model", number, model.artifacts)))
    if model.deleted_at is not None:  # now that all is written, which nobody may do to a deleted one
        this = logged_models_table.c.number == number
        tx.execute(update(logged_models_table).where(this).values(deleted_at=model.deleted_at))


def _run_row(run: ImportedRun) -> dict[str, object]:
    return {
        name: getattr(run, name)
        for name in (
            "id", "experiment_id", "parent", "name", "status", "lifecycle", "actor", "started_at", "ended_at",
            "deleted_at",
        )
    }  # fmt: skip


def _pair(number: int, pair: tuple[str, str]) -> dict[str, object]:
    return {"run": number, "key": pair[0], "value": pair[1]}


def _dataset_rows(number: int, datasets: Sequence[RunDataset]) -> Iterable[dict[str, object]]:
    distinct = {(dataset.name, dataset.digest): dataset for dataset in reversed(datasets)}
    for place, dataset in enumerate(reversed(distinct.values())):
        yield {
            "run": number,
            "place": place,
            "context": dataset.tags.get(CONTEXT_TAG),
            **{name: getattr(dataset, name) for name in dataset.__struct_fields__},
        }


def _file_rows(tx: Transaction, owner: str, number: int, files: Files) -> Iterable[dict[str, object]]:
    for path, (digest, size) in files.items():
        yield {owner: number, "path": path, "digest": digest, "size": size, "created_at": tx.at}


def _insert(tx: Transaction, table: Table, rows: Sequence[dict[str, object]]) -> None:
    if rows:
        tx.execute(insert(table), rows)


def _packed(
    steps: Sequence[int], times: Sequence[int], values: Sequence[float]
) -> tuple[int, int, bytes, _Latest]:
    """The first and the last step, the chunk's bytes, and the latest point."""
    count = len(steps)
    if count <= _FEW:
        data = struct.pack(f"<{count}q{count}q{count}d", *steps, *times, *values)
        newest = max(zip(steps, times, values, strict=True), key=_rank)
        return min(steps), max(steps), data, newest
    columns = np.array((steps, times), dtype="<i8")
    numbers = np.array(values, dtype="<f8")
    order = np.lexsort((np.where(np.isnan(numbers), -np.inf, numbers), columns[1], columns[0]))
    at = order[-1]
    newest = (int(columns[0, at]), int(columns[1, at]), float(numbers[at]))
    return (
        int(columns[0].min()),
        int(columns[0].max()),
        columns.tobytes() + numbers.tobytes(),
        newest,
    )


def _rank(point: _Latest) -> _Latest:
    step, at, value = point
    return step, at, -math.inf if math.isnan(value) else value


def _interned(tx: Transaction, table: Table, names: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in _slices(names):
        upsert(tx, table, [{"name": name} for name in sorted(some)], keys=["name"], update=[])
        query = select(table.c.name, table.c.id).where(table.c.name.in_(some))
        found.update({row.name: row.id for row in tx.execute(query)})
    return found


def _slices(names: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]
