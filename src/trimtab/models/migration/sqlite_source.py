"""MLflow's SQLite database, read as it stands.

It is opened to read only, and each question is a short one: a server that works with it is not held up, and
nothing in it is upgraded. Columns that an older MLflow did not have yet count as empty.
"""

# ruff: noqa: S608  (queries are put together from names in this module and question marks)

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from trimtab.errors import InvalidInputError, UnavailableError
from trimtab.models.migration.artifact_places import ArtifactPlaces
from trimtab.models.migration.entities import (
    PROMPT_TAG,
    Owner,
    SourceExperiment,
    SourceLoggedModel,
    SourcePoints,
    SourceRegisteredModel,
    SourceRun,
    SourceVersion,
)
from trimtab.models.migration.source import Found
from trimtab.tracking.inputs import ModelUse, RunDataset
from trimtab.tracking.logged_models import ModelMetric, Status

RUNS_AT_ONCE = 500
POINTS_AT_ONCE = 50_000
WORKSPACE = "default"
"""MLflow's workspace that is copied, where a database has several."""

DELETED_VERSION = "Deleted_Internal"

_NEEDED = {
    "experiments": {"experiment_id", "name", "lifecycle_stage"},
    "runs": {"run_uuid", "experiment_id", "status", "start_time", "end_time", "lifecycle_stage"},
    "metrics": {"run_uuid", "key", "value", "timestamp", "step", "is_nan"},
    "params": {"run_uuid", "key", "value"},
    "tags": {"run_uuid", "key", "value"},
}

_LEFT_OUT = {
    "traces": "SELECT count(*) FROM trace_info",
    "evaluation datasets": "SELECT count(*) FROM evaluation_datasets",
    "scorers": "SELECT count(*) FROM scorers",
    "webhooks": "SELECT count(*) FROM webhooks",
    "prompts": f"SELECT count(*) FROM registered_model_tags WHERE key = '{PROMPT_TAG}' AND value LIKE 'true'",
    "experiments of other MLflow workspaces": (
        f"SELECT count(*) FROM experiments WHERE workspace <> '{WORKSPACE}'"
    ),
    "models of other MLflow workspaces": (
        f"SELECT count(*) FROM registered_models WHERE workspace <> '{WORKSPACE}'"
    ),
}

_STATUSES: dict[int, Status] = {1: "PENDING", 2: "READY", 3: "FAILED"}

_Row = sqlite3.Row


class SqliteSource:
    """See `trimtab.models.migration.source.Source`."""

    def __init__(self, path: Path, proxied: str | None = None) -> None:
        self.damaged: list[str] = []
        self.address = f"sqlite:///{path.absolute()}"
        self._path = path
        if proxied is None and (path.parent / "mlartifacts").is_dir():
            proxied = str(
                path.parent / "mlartifacts"
            )  # where `mlflow server` puts them, unless told otherwise
        self._places = ArtifactPlaces(path.absolute().parent, proxied)
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=60, isolation_level=None
            )
            self._connection.row_factory = sqlite3.Row
            self._columns = self._described()
        except sqlite3.Error as error:
            raise _unreadable(path, error) from None
        try:
            _check(path, self._columns)
        except InvalidInputError:
            self.close()
            raise
        known = "workspace" in self._columns["experiments"]
        self._here = f"workspace = '{WORKSPACE}'" if known else "1"

    def experiments(self) -> list[SourceExperiment]:
        """See `Source.experiments`."""
        tags = self._grouped(
            "SELECT experiment_id AS owner, key, value FROM experiment_tags", "experiment_tags"
        )
        wanted = ("experiment_id", "name", "lifecycle_stage", "creation_time", "last_update_time")
        rows = self._all("experiments", wanted, f"{self._here} ORDER BY experiment_id")
        return [
            SourceExperiment(
                id=str(row["experiment_id"]),
                name=row["name"],
                lifecycle=_lifecycle(row["lifecycle_stage"]),
                created_at=row["creation_time"] or 0,
                updated_at=row["last_update_time"] or row["creation_time"] or 0,
                tags=tags.get(row["experiment_id"], {}),
            )
            for row in rows
        ]

    def runs(self, experiment: str) -> Iterator[list[SourceRun]]:
        """See `Source.runs`: the earliest started first."""
        query = "SELECT run_uuid FROM runs WHERE experiment_id = ? ORDER BY start_time, run_uuid"
        ids = [row[0] for row in self._rows(query, (int(experiment),))]
        for start in range(0, len(ids), RUNS_AT_ONCE):
            yield self._described_runs(ids[start : start + RUNS_AT_ONCE])

    def points(self, run: SourceRun) -> Iterator[SourcePoints]:
        """See `Source.points`."""
        query = (
            "SELECT key, step, timestamp, CASE WHEN is_nan THEN NULL ELSE value END "
            "FROM metrics WHERE run_uuid = ? ORDER BY key"
        )
        with _translated(self._path):
            cursor = self._connection.cursor()
            cursor.row_factory = None
            cursor.execute(query, (run.id,))
            while rows := cursor.fetchmany(POINTS_AT_ONCE):
                yield from _by_key(rows)

    def logged_models(self, experiment: str) -> Iterator[SourceLoggedModel]:
        """See `Source.logged_models`: deleted ones too."""
        if "logged_models" not in self._columns:
            return
        wanted = (
            "model_id", "experiment_id", "name", "artifact_location", "creation_timestamp_ms",
            "last_updated_timestamp_ms", "status", "lifecycle_stage", "model_type", "source_run_id",
        )  # fmt: skip
        rows = self._all(
            "logged_models",
            wanted,
            "experiment_id = ? ORDER BY creation_timestamp_ms, model_id",
            int(experiment),
        )
        for row in rows:
            one = (row["model_id"],)
            params = self._rows(
                "SELECT param_key, param_value FROM logged_model_params WHERE model_id = ?", one
            )
            tags = self._rows("SELECT tag_key, tag_value FROM logged_model_tags WHERE model_id = ?", one)
            metrics = self._rows("SELECT * FROM logged_model_metrics WHERE model_id = ?", one)
            yield SourceLoggedModel(
                id=row["model_id"],
                experiment=experiment,
                name=row["name"],
                type=row["model_type"] or "",
                status=_STATUSES.get(row["status"], "PENDING"),
                lifecycle=_lifecycle(row["lifecycle_stage"]),
                run=row["source_run_id"] or None,
                created_at=row["creation_timestamp_ms"],
                updated_at=row["last_updated_timestamp_ms"],
                artifacts=row["artifact_location"],
                params=dict(map(tuple, params)),
                tags=dict(map(tuple, tags)),
                metrics=tuple(_model_metric(metric) for metric in metrics),
            )

    def registered_models(self) -> Iterator[SourceRegisteredModel]:
        """See `Source.registered_models`."""
        if "registered_models" not in self._columns:
            return
        tags = self._grouped(
            f"SELECT name AS owner, key, value FROM registered_model_tags WHERE {self._here}",
            "registered_model_tags",
        )
        aliases = self._grouped(
            f"SELECT name AS owner, alias, version FROM registered_model_aliases WHERE {self._here}",
            "registered_model_aliases",
        )
        wanted = ("name", "creation_time", "last_updated_time", "description")
        for row in self._all("registered_models", wanted, f"{self._here} ORDER BY creation_time, name"):
            name = row["name"]
            if tags.get(name, {}).get(PROMPT_TAG, "").lower() == "true":
                continue
            highest = self._rows(
                f"SELECT max(version) FROM model_versions WHERE name = ? AND {self._here}",
                (name,),
            )
            yield SourceRegisteredModel(
                name=name,
                description=row["description"] or "",
                created_at=row["creation_time"] or 0,
                updated_at=row["last_updated_time"] or row["creation_time"] or 0,
                tags=tags.get(name, {}),
                aliases={alias: int(version) for alias, version in aliases.get(name, {}).items()},
                versions=tuple(self._versions(name)),
                next_version=(highest[0][0] or 0) + 1,
            )

    def root_of(self, kind: Owner, id: str) -> str | None:
        """See `Source.root_of`."""
        table, column, key = {
            "runs": ("runs", "artifact_uri", "run_uuid"),
            "logged-models": ("logged_models", "artifact_location", "model_id"),
        }[kind]
        if table not in self._columns:
            return None
        found = self._all(table, (column,), f"{key} = ?", id)
        return found[0][column] if found else None

    def files_of_run(self, run: SourceRun) -> Found:
        """See `Source.files_of_run`."""
        return self.files_at(run.artifacts)

    def files_of_model(self, model: SourceLoggedModel) -> Found:
        """See `Source.files_of_model`."""
        return self.files_at(model.artifacts)

    def files_at(self, address: str) -> Found:
        """See `Source.files_at`."""
        return self._places.files_at(address) if address else iter(())

    def left_out(self) -> dict[str, int]:
        """See `Source.left_out`."""
        found = {}
        for kind, query in _LEFT_OUT.items():
            table = query.split(" FROM ")[1].split()[0]
            if table in self._columns and ("workspace" not in query or self._here != "1"):
                found[kind] = self._rows(query)[0][0]
        return {kind: count for kind, count in found.items() if count}

    def close(self) -> None:
        """See `Source.close`."""
        self._connection.close()

    def _described_runs(self, ids: Sequence[str]) -> list[SourceRun]:
        these = f"run_uuid IN ({', '.join('?' * len(ids))})"
        wanted = (
            "run_uuid", "experiment_id", "name", "user_id", "status", "start_time", "end_time",
            "lifecycle_stage", "deleted_time", "artifact_uri",
        )  # fmt: skip
        rows = {row["run_uuid"]: row for row in self._all("runs", wanted, these, *ids)}
        params = self._grouped(
            f"SELECT run_uuid AS owner, key, value FROM params WHERE {these}", "params", ids
        )
        tags = self._grouped(f"SELECT run_uuid AS owner, key, value FROM tags WHERE {these}", "tags", ids)
        datasets, models = self._datasets(ids), self._models(ids)
        return [
            SourceRun(
                id=id,
                experiment=str(row["experiment_id"]),
                name=row["name"] or tags.get(id, {}).get("mlflow.runName", ""),
                status=row["status"] or "RUNNING",
                lifecycle=_lifecycle(row["lifecycle_stage"]),
                user=row["user_id"] or "",
                started_at=row["start_time"] or 0,
                ended_at=row["end_time"],
                deleted_at=row["deleted_time"],
                artifacts=row["artifact_uri"] or "",
                params=params.get(id, {}),
                tags=tags.get(id, {}),
                datasets=tuple(datasets.get(id, ())),
                models=tuple(models.get(id, ())),
            )
            for id, row in ((id, rows[id]) for id in ids if id in rows)
        ]

    def _datasets(self, ids: Sequence[str]) -> dict[str, list[RunDataset]]:
        if "datasets" not in self._columns:
            return {}
        these = ", ".join("?" * len(ids))
        tags = self._grouped(
            "SELECT i.input_uuid AS owner, t.name, t.value FROM inputs i JOIN input_tags t "
            "ON t.input_uuid = i.input_uuid WHERE i.destination_type = 'RUN' AND i.source_type = 'DATASET' "
            f"AND i.destination_id IN ({these})",
            "input_tags",
            ids,
        )
        rows = self._rows(
            "SELECT i.destination_id, i.input_uuid, d.* FROM inputs i JOIN datasets d "
            "ON d.dataset_uuid = i.source_id WHERE i.destination_type = 'RUN' AND i.source_type = 'DATASET' "
            f"AND i.destination_id IN ({these}) ORDER BY i.rowid",
            ids,
        )
        found: dict[str, list[RunDataset]] = {}
        for row in rows:
            dataset = RunDataset(
                name=row["name"],
                digest=row["digest"],
                source_type=row["dataset_source_type"],
                source=row["dataset_source"],
                schema=row["dataset_schema"],
                profile=row["dataset_profile"],
                tags=tags.get(row["input_uuid"], {}),
            )
            found.setdefault(row["destination_id"], []).append(dataset)
        return found

    def _models(self, ids: Sequence[str]) -> dict[str, list[ModelUse]]:
        if "step" not in self._columns.get("inputs", ()):
            return {}
        these = ", ".join("?" * len(ids))
        rows = self._rows(
            "SELECT source_type, source_id, destination_id, step FROM inputs "
            "WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') "
            "AND destination_type IN ('MODEL_INPUT', 'MODEL_OUTPUT') "
            f"AND source_id IN ({these}) ORDER BY rowid",
            ids,
        )
        found: dict[str, list[ModelUse]] = {}
        for row in rows:
            direction: Literal["in", "out"] = "in" if row["source_type"] == "RUN_INPUT" else "out"
            step = row["step"] if direction == "out" else 0
            found.setdefault(row["source_id"], []).append(ModelUse(row["destination_id"], direction, step))
        return found

    def _versions(self, name: str) -> Iterator[SourceVersion]:
        wanted = (
            "version", "creation_time", "description", "user_id", "current_stage", "source", "run_id",
            "storage_location",
        )  # fmt: skip
        rows = self._all("model_versions", wanted, f"{self._here} AND name = ? ORDER BY version", name)
        tags = self._grouped(
            f"SELECT version AS owner, key, value FROM model_version_tags WHERE {self._here} AND name = ?",
            "model_version_tags",
            (name,),
        )
        for row in rows:
            if row["current_stage"] == DELETED_VERSION:
                continue
            yield SourceVersion(
                version=row["version"],
                created_at=row["creation_time"] or 0,
                description=row["description"] or "",
                user=row["user_id"] or "",
                stage=row["current_stage"] or "None",
                source=row["source"] or "",
                content=row["storage_location"] or row["source"] or "",
                run=row["run_id"] or None,
                tags=tags.get(row["version"], {}),
            )

    def _described(self) -> dict[str, set[str]]:
        tables = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            table[0]: {
                row[0]
                for row in self._connection.execute("SELECT name FROM pragma_table_info(?)", (table[0],))
            }
            for table in tables
        }

    def _all(self, table: str, wanted: Sequence[str], where: str, *values: object) -> list[_Row]:
        there = self._columns[table]
        columns = ", ".join(name if name in there else f"NULL AS {name}" for name in wanted)
        return self._rows(f"SELECT {columns} FROM {table} WHERE {where}", values)

    def _grouped(self, query: str, table: str, values: Sequence[object] = ()) -> dict[Any, dict[str, str]]:
        """Two columns as a dictionary for each value of the column `owner`."""
        found: dict[Any, dict[str, str]] = {}
        if table in self._columns:
            for owner, key, value in self._rows(query, values):
                found.setdefault(owner, {})[key] = "" if value is None else value
        return found

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with _translated(self._path):
            return self._connection.execute(query, tuple(values)).fetchall()


class _translated:  # noqa: N801  (used as a function)
    """SQLite's errors in words of ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise _unreadable(self._path, error) from None


def _by_key(rows: list[tuple[str, int, int, float | None]]) -> Iterator[SourcePoints]:
    start = 0
    while start < len(rows):
        key = rows[start][0]
        if rows[-1][0] == key:
            end = len(rows)
        else:
            end = start + 1
            while rows[end][0] == key:
                end += 1
        _, steps, times, values = zip(*rows[start:end], strict=True)
        if None in values:
            values = tuple(math.nan if value is None else value for value in values)
        yield SourcePoints(key, steps, times, values)
        start = end


def _model_metric(row: _Row) -> ModelMetric:
    value = row["metric_value"]
    return ModelMetric(
        model=row["model_id"],
        run=row["run_id"],
        key=row["metric_name"],
        value=float("nan") if value is None else value,
        step=row["metric_step"],
        at=row["metric_timestamp_ms"] * 1000,
        dataset=row["dataset_name"] or "",
        dataset_digest=row["dataset_digest"] or "",
    )


def _lifecycle(stage: str | None) -> Literal["active", "deleted"]:
    return "deleted" if stage == "deleted" else "active"


def _check(path: Path, columns: dict[str, set[str]]) -> None:
    if {"journal", "metric_chunks"} <= columns.keys():
        raise InvalidInputError(
            f"{path} is the metadata of a Trimtab workspace, and no database of MLflow's.",
            hint="Start its server with `trimtab up`, and import from the server's address.",
        )
    if "experiments" not in columns or "runs" not in columns:
        raise InvalidInputError(
            f"{path} is a SQLite database, but none of MLflow's: it has no tables of experiments and runs.",
            hint="Name the file of --backend-store-uri.",
        )
    missing = [
        f"{table}.{column}"
        for table, needed in _NEEDED.items()
        for column in sorted(needed - columns.get(table, set()))
    ]
    if missing:
        raise InvalidInputError(
            f"{path} has a schema of MLflow's that cannot be read: {', '.join(missing)} is not there.",
            hint=f"Bring a copy of it up to date with `mlflow db upgrade sqlite:///{path}` and import that.",
        )


def _unreadable(path: Path, error: sqlite3.Error) -> InvalidInputError | UnavailableError:
    if "locked" in str(error):
        return UnavailableError(f"{path} is locked by another process.", hint="Run the same command again.")
    return InvalidInputError(
        f"{path} cannot be read as a SQLite database: {error}.",
        hint="See that it is the right file, and whole.",
    )
