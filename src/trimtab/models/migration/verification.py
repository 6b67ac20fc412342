"""Source and copy compared: every field, every point, every byte."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, select

from trimtab.digest import digest_bytes, digest_file
from trimtab.errors import InvalidInputError, ModelCorruptError, NotFoundError
from trimtab.models import versions
from trimtab.models.migration.entities import (
    SourceExperiment,
    SourceLoggedModel,
    SourcePoints,
    SourceRegisteredModel,
    SourceRun,
)
from trimtab.models.migration.registry_copy import RegistryCopy
from trimtab.models.migration.report import ImportReport, Tell
from trimtab.models.migration.source import Found, Source
from trimtab.models.registry import Registry
from trimtab.store.types import to_microseconds
from trimtab.tracking import artifacts, experiments, logged_models
from trimtab.tracking.metrics import PLAIN
from trimtab.tracking.run_details import RunDetails, details_of
from trimtab.tracking.run_search import NAME_TAG, PARENT_TAG
from trimtab.tracking.schema import (
    metric_chunks_table,
    metric_keys_table,
    runs_table,
)
from trimtab.workspace import Workspace

Seen = tuple[int, str]
"""How many distinct points a metric has, and their digest."""


class Verification:
    """Reads all of a source once more and compares it with what is in the workspace."""

    def __init__(
        self,
        workspace: Workspace,
        source: Source,
        report: ImportReport,
        tell: Tell,
        only: Collection[str] | None = None,
    ) -> None:
        self._workspace = workspace
        self._source = source
        self._counts = report.verified
        self._differences: list[str] = []
        self._tell = tell
        self._sound: set[str] = set()
        scratch = ImportReport(source=report.source, dry_run=True)
        self._registry_copy = RegistryCopy(workspace, source, scratch, tell, only)
        self._only = only

    def compare(self, chosen: Sequence[SourceExperiment]) -> list[str]:
        """Compare experiments, with all that is in them, and registered models; answers what differs."""
        for given in chosen:
            self._experiment(given)
            for page in self._source.runs(given.id):
                self._runs(page)
                self._tell(f"verifying {given.name}", self._counts)
            for model in self._source.logged_models(given.id):
                self._logged_model(model)
        for registered in self._source.registered_models():
            self._registered_model(registered)
        return self._differences

    def _differ(self, what: str, field: str, there: object, here: object) -> None:
        if there != here:
            self._differences.append(
                f"{what}: {field} is {_brief(there)} at the source and {_brief(here)} here"
            )

    def _experiment(self, given: SourceExperiment) -> None:
        with self._workspace.read() as connection:
            try:
                here = experiments.get(connection, given.name)
            except NotFoundError:
                self._differences.append(f"experiment '{given.name}': it is not here")
                return
            tags = experiments.tags_of(connection, [here.id])[here.id]
        what = f"experiment '{given.name}'"
        if given.lifecycle == "active":  # a deleted one may have come to one that stands
            self._differ(what, "lifecycle", given.lifecycle, here.lifecycle)
        self._differ(what, "tags", given.tags, {key: tags.get(key) for key in given.tags})
        self._counts.experiments += 1

    # Runs

    def _runs(self, page: Sequence[SourceRun]) -> None:
        with self._workspace.read() as connection:
            query = select(runs_table).where(runs_table.c.id.in_([run.id for run in page]))
            rows = connection.execute(query).all()
            here = {found.row.id: found for found in details_of(connection, rows)}
            for run in page:
                if run.id in here:
                    self._run(connection, run, here[run.id])
                else:
                    self._differences.append(f"run {run.id}: it is not here")

    def _run(self, connection: Connection, run: SourceRun, here: RunDetails) -> None:
        row, what = here.row, f"run {run.id}"
        fields: dict[str, tuple[object, object]] = {
            "name": (run.name, row.name),
            "status": (run.status, row.status),
            "lifecycle": (run.lifecycle, row.lifecycle),
            "user": (run.user, row.actor),
            "start": (run.started_at, to_microseconds(row.started_at) // 1000),
            "end": (run.ended_at, None if row.ended_at is None else to_microseconds(row.ended_at) // 1000),
            "params": (run.params, here.params),
            "tags": (_with_implied(run), here.tags),
            "datasets": (_sorted(run.datasets), _sorted(here.datasets)),
            "models": (_sorted(run.models), _sorted(here.models)),
            "metrics": (self._there(run), _points_here(connection, row.number)),
        }
        for field, (there, found) in fields.items():
            if field in {"params", "tags", "metrics"}:
                self._differ_by_key(what, field, there, found)
            else:
                self._differ(what, field, there, found)
        listed = artifacts.list_artifacts(connection, run.id)
        self._files(what, self._source.files_of_run(run), listed)
        self._counts.runs += 1
        self._counts.params += len(run.params)
        self._counts.tags += len(run.tags)
        self._counts.datasets += len(run.datasets)

    def _there(self, run: SourceRun) -> dict[str, Seen]:
        found = {}
        for key, pieces in itertools.groupby(self._source.points(run), key=lambda piece: piece.key):
            found[key] = _seen(_joined(pieces))
            self._counts.metric_points += found[key][0]
        return found

    def _differ_by_key(self, what: str, field: str, there: Any, here: Any) -> None:
        for key in sorted(there.keys() | here.keys()):
            if there.get(key) != here.get(key):
                self._differ(what, f"{field} '{key}'", there.get(key), here.get(key))

    def _files(self, what: str, there: Found, here: Sequence[artifacts.Artifact]) -> None:
        kept = {file.path: file for file in here}
        try:
            for path, place in there:
                file = kept.pop(path, None)
                self._differ(
                    what, f"file '{path}'", digest_file(place), None if file is None else file.digest
                )
                if file is not None:
                    self._is_sound(what, path, file.digest)
                    self._counts.artifacts += 1
                    self._counts.artifact_bytes += file.size
        except InvalidInputError as error:
            self._differences.append(f"{what}: its files cannot be compared. {error}")
            return
        for path, file in kept.items():
            self._differ(what, f"file '{path}'", None, file.digest)

    def _is_sound(self, what: str, path: str, digest: str) -> None:
        """Read the content that is kept here, once for each digest: a reader checks it."""
        if digest in self._sound:
            return
        try:
            with self._workspace.blobs.open(digest) as reader:
                for _ in reader:
                    continue
        except (NotFoundError, ModelCorruptError) as error:
            self._differences.append(f"{what}: file '{path}' cannot be read here. {error}")
        self._sound.add(digest)

    # Models

    def _logged_model(self, model: SourceLoggedModel) -> None:
        what = f"logged model {model.id}"
        with self._workspace.read() as connection:
            try:
                here = logged_models.get(connection, model.id, deleted=True)
            except NotFoundError:
                self._differences.append(f"{what}: it is not here")
                return
            shelf = artifacts.shelf_of_model(here.row.number, model.id)
            listed = artifacts.list_on(connection, shelf)
        row = here.row
        for field, there, found in (
            ("name", model.name, row.name),
            ("type", model.type, row.type),
            ("status", model.status, row.status),
            ("lifecycle", model.lifecycle, "active" if row.deleted_at is None else "deleted"),
            ("run", model.run, row.run),
            ("params", model.params, here.params),
            ("tags", model.tags, here.tags),
            ("metrics", _newest(model.metrics), _newest(here.metrics)),
        ):
            self._differ(what, field, there, found)
        self._files(what, self._source.files_of_model(model), listed)
        self._counts.logged_models += 1

    def _registered_model(self, given: SourceRegisteredModel) -> None:
        registry = Registry(self._workspace)
        chosen = self._registry_copy.chosen(given)
        if self._only is not None and not chosen:
            return
        try:
            here = registry.model(given.name)
        except NotFoundError:
            self._differences.append(f"model '{given.name}': it is not here")
            return
        found = {version.version: version for version in registry.versions(given.name)}
        what = f"model '{given.name}'"
        self._differ(what, "description", given.description, here.description)
        self._differ(what, "tags", given.tags, {key: here.tags.get(key) for key in given.tags})
        numbers = {version.version for version in chosen}
        for alias, number in given.aliases.items():
            if here.policy is None and number in numbers:
                self._differ(what, f"alias '{alias}'", number, here.aliases.get(alias))
                self._counts.aliases += 1
        for version in chosen:
            self._version(f"version {version.version} of {what}", version, found.get(version.version), here)
        self._counts.registered_models += 1

    def _version(
        self, what: str, version: Any, here: versions.ModelVersion | None, model: versions.RegisteredModel
    ) -> None:
        if here is None:
            self._differences.append(f"{what}: it is not here")
            return
        self._differ(what, "run", version.run, here.run_id)
        self._differ(what, "description", version.description, here.description)
        self._differ(what, "tags", version.tags, {key: here.tags.get(key) for key in version.tags})
        self._differ(what, "user", version.user, here.actor)
        if model.policy is None:
            self._differ(what, "stage", version.stage, here.stage)
        try:
            self._differ(what, "content", self._registry_copy.content(version).digest, here.digest)
        except (InvalidInputError, NotFoundError) as error:
            self._differences.append(f"{what}: its content cannot be compared. {error}")
        self._counts.model_versions += 1


def _with_implied(run: SourceRun) -> dict[str, str]:
    """The tags that a run is told with here: its name is always among them."""
    implied = {NAME_TAG: run.name}
    parent = run.tags.get(PARENT_TAG)
    return {**implied, **({PARENT_TAG: parent} if parent else {}), **run.tags}


def _sorted(values: Sequence[Any]) -> list[str]:
    return sorted(msgspec.json.encode(value, order="sorted").decode() for value in values)


def _newest(metrics: Sequence[logged_models.ModelMetric]) -> dict[tuple[str, ...], str]:
    ordered = sorted(metrics, key=lambda metric: (metric.step, metric.at))
    return {
        (metric.run, metric.key, metric.dataset, metric.dataset_digest): (
            f"{metric.value!r} at step {metric.step}, {metric.at}"
        )
        for metric in ordered
    }


Columns = tuple[Sequence[int], Sequence[int], Sequence[float]]
"""Steps, times in microseconds, values."""

_FEW = 64


def _joined(pieces: Iterator[SourcePoints]) -> Columns:
    steps: list[int] = []
    times: list[int] = []
    values: list[float] = []
    for piece in pieces:
        steps += piece.steps
        times += [at * 1000 for at in piece.times]
        values += piece.values
    return steps, times, values


def _points_here(connection: Connection, run: int) -> dict[str, Seen]:
    chunks, keys = metric_chunks_table, metric_keys_table
    query = (
        select(keys.c.name, chunks.c.points, chunks.c.encoding, chunks.c.data)
        .join(keys, keys.c.id == chunks.c.key)
        .where(chunks.c.run == run)
        .order_by(chunks.c.key)
    )
    rows = connection.execute(query)
    return {
        name: _seen(_unpacked(list(group)))
        for name, group in itertools.groupby(rows, key=lambda row: str(row.name))
    }


def _unpacked(rows: Sequence[Any]) -> Columns:
    steps: list[int] = []
    times: list[int] = []
    values: list[float] = []
    for row in rows:
        assert row.encoding == PLAIN
        count = row.points
        found = struct.unpack(f"<{2 * count}q{count}d", row.data)
        steps += found[:count]
        times += found[count : 2 * count]
        values += found[2 * count :]
    return steps, times, values


def _seen(columns: Columns) -> Seen:
    """How many distinct points there are, and a digest of them in whatever order they came."""
    steps, times, values = columns
    if len(steps) <= _FEW:
        distinct = {
            (at, step, value != value, 0.0 if value != value else value + 0.0)  # one NaN, one zero
            for step, at, value in zip(steps, times, values, strict=True)
        }
        data = b"".join(
            struct.pack("<qqd", at, step, math.nan if nan else value)
            for at, step, nan, value in sorted(distinct)
        )
        return len(distinct), digest_bytes(data)
    numbers = np.array(values, dtype="<f8")
    numbers = np.where(np.isnan(numbers), np.nan, numbers + 0.0)
    packed = np.empty((len(numbers), 3), dtype="<i8")
    packed[:, 0], packed[:, 1], packed[:, 2] = times, steps, numbers.view("<i8")
    packed = packed[np.lexsort((numbers, packed[:, 1], packed[:, 0]))]
    new = np.ones(len(packed), dtype=bool)
    new[1:] = (packed[1:] != packed[:-1]).any(axis=1)
    return int(new.sum()), digest_bytes(packed[new].tobytes())


def _brief(value: object) -> str:
    return f"{value!r:.200}"
