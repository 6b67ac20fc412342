"""Experiments, runs and logged models from a source into a workspace.

Runs are written many in one transaction; what is in the workspace is whole, so that an import which was cut
off goes on where it was: by asking which runs are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np

from trimtab.errors import ConflictError, InvalidInputError, NotFoundError
from trimtab.models.migration.entities import SourceExperiment, SourceLoggedModel, SourcePoints, SourceRun
from trimtab.models.migration.report import ImportReport, MappedExperiment, Tell
from trimtab.models.migration.source import Found, Source
from trimtab.store.database import Transaction
from trimtab.store.types import from_microseconds
from trimtab.tracking import experiments, imports
from trimtab.tracking.artifacts import confined
from trimtab.tracking.imports import Files, ImportedExperiment, ImportedModel, ImportedRun, Points
from trimtab.tracking.params_and_tags import checked_key, checked_text
from trimtab.tracking.run_search import PARENT_TAG
from trimtab.tracking.runs import Status
from trimtab.workspace import Workspace

POINTS_AT_ONCE = 500_000
"""In one transaction: 12 MB. A run with more takes several."""
RUNS_AT_ONCE = 500

LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999."""

_STATUSES: dict[str, Status] = {
    "RUNNING": "RUNNING", "SCHEDULED": "SCHEDULED", "FINISHED": "FINISHED", "FAILED": "FAILED",
    "KILLED": "KILLED",
}  # fmt: skip


class RunCopy:
    """Copies experiments with their runs and logged models."""

    def __init__(self, workspace: Workspace, source: Source, report: ImportReport, tell: Tell) -> None:
        self._workspace = workspace
        self._source = source
        self._report = report
        self._tell = tell
        self._writer = imports.PointsWriter()

    # Experiments

    def experiment(self, given: SourceExperiment) -> int | None:
        """Make an experiment, or find the one of its name; answers its id, None where a dry run made none."""
        with self._workspace.read() as connection:
            try:
                standing = experiments.get(connection, given.name)
            except NotFoundError:
                standing = None
        if standing is not None:
            if standing.lifecycle == "deleted" and given.lifecycle == "active":
                raise ConflictError(
                    f"The experiment '{given.name}' was deleted here, and the source still has it.",
                    hint="Restore it, or rename one of the two, and run the same command again.",
                )
            if not self._report.dry_run:
                self._workspace.write(
                    lambda tx: imports.add_experiment_tags(tx, standing.id, checked_texts(given.tags))
                )
            self._report.here.experiments += 1
            self._told(given, standing.id, new=False)
            return standing.id
        imported = ImportedExperiment(
            id=int(given.id) if given.id.isdecimal() else -1,
            name=checked_text("the experiment's name", given.name),
            lifecycle=given.lifecycle,
            created_at=time_of(given.created_at),
            updated_at=time_of(given.updated_at),
            tags=checked_texts(given.tags),
        )

        def work(tx: Transaction) -> int:
            made = imports.add_experiment(tx, imported)
            details = {"from": self._source.address, "source_id": given.id, "id": made}
            tx.journal("experiment.imported", "experiment", given.name, details=details)
            return made

        made = None if self._report.dry_run else self._workspace.write(work)
        self._report.copied.experiments += 1
        self._told(given, made, new=True)
        return made

    def _told(self, given: SourceExperiment, id: int | None, *, new: bool) -> None:
        self._report.experiments.append(
            MappedExperiment(
                source_id=given.id, id=id, name=given.name, how="new" if new else "already there"
            )
        )

    # Runs

    def runs(self, given: SourceExperiment, experiment: int | None) -> None:
        """Copy the runs of an experiment which are not here."""
        running = 0
        for page in self._source.runs(given.id):
            missing = self._missing(page)
            running += sum(run.status not in {"FINISHED", "FAILED", "KILLED"} for run in missing)
            if experiment is None or self._report.dry_run:
                self._report.copied.runs += len(missing)
            else:
                self._copy(missing, experiment)
            self._tell(given.name, self._report.copied)
        if running:
            self._report.notes.append(
                f"{running:,} runs of '{given.name}' had not ended at the source: they are copied as they "
                "were then, and what is logged there later stays there."
            )

    def _missing(self, page: Sequence[SourceRun]) -> list[SourceRun]:
        with self._workspace.read() as connection:
            standing = imports.standing_runs(connection, [run.id for run in page])
        whole = {id for id, found in standing.items() if found.whole}
        self._report.here.runs += len(whole)
        unfinished = [found.number for found in standing.values() if not found.whole]
        if unfinished and not self._report.dry_run:
            self._workspace.write(lambda tx: imports.drop_runs(tx, unfinished))
        return [run for run in page if run.id not in whole]

    def _copy(self, page: Sequence[SourceRun], experiment: int) -> None:
        pending: list[tuple[ImportedRun, list[Points]]] = []
        waiting = 0
        for run in page:
            try:
                imported = self._imported(run, experiment)
                few: list[Points] = []
                count = 0
                pieces = self._points(run)
                for piece in pieces:
                    few.append(piece)
                    count += len(piece.steps)
                    if count > POINTS_AT_ONCE:
                        break
            except (InvalidInputError, NotFoundError) as error:
                self._problem(f"run {run.id}", error)
                continue
            if count > POINTS_AT_ONCE:
                self._copy_large(imported, few, pieces)
                continue
            pending.append((imported, few))
            waiting += count
            if waiting > POINTS_AT_ONCE or len(pending) >= RUNS_AT_ONCE:
                self._write(pending)
                pending, waiting = [], 0
        if pending:
            self._write(pending)

    def _write(self, pending: Sequence[tuple[ImportedRun, list[Points]]]) -> None:
        def work(tx: Transaction) -> dict[str, int]:
            keys = self._writer.learn(tx, {piece.key for _, pieces in pending for piece in pieces})
            numbers = imports.add_runs(tx, [run for run, _ in pending])
            pairs = ((numbers[run.id], piece) for run, pieces in pending for piece in pieces)
            self._writer.write(tx, keys, pairs)
            return keys

        self._writer.remember(self._workspace.write(work))
        for run, pieces in pending:
            self._count(run, sum(len(piece.steps) for piece in pieces))

    def _copy_large(self, run: ImportedRun, first: list[Points], pieces: Iterator[Points]) -> None:
        number = self._workspace.write(lambda tx: imports.begin_run(tx, run))
        sequence, points = 0, 0
        try:
            for batch in _batches(first, pieces):
                sequence = self._write_some(number, batch, sequence)
                points += sum(len(piece.steps) for piece in batch)
                self._tell(f"{run.name}: {points:,} points", self._report.copied)
        except (InvalidInputError, NotFoundError) as error:
            self._workspace.write(lambda tx: imports.drop_runs(tx, [number]))
            self._problem(f"run {run.id}", error)
            return
        self._workspace.write(lambda tx: imports.finish_run(tx, number, run))
        self._count(run, points)

    def _write_some(self, number: int, batch: Sequence[Points], sequence: int) -> int:
        def work(tx: Transaction) -> tuple[dict[str, int], int]:
            keys = self._writer.learn(tx, {piece.key for piece in batch})
            pairs = ((number, piece) for piece in batch)
            return keys, self._writer.write(tx, keys, pairs, sequence=sequence)

        keys, following = self._workspace.write(work)
        self._writer.remember(keys)
        return following

    def _imported(self, run: SourceRun, experiment: int) -> ImportedRun:
        status = _STATUSES.get(run.status)
        if status is None:
            raise InvalidInputError(f"'{run.status:.40}' is no status of a run.")
        return ImportedRun(
            id=run.id,
            experiment_id=experiment,
            parent=run.tags.get(PARENT_TAG),
            name=checked_text("the run's name", run.name),
            status=status,
            lifecycle=run.lifecycle,
            actor=checked_text("the user", run.user),
            started_at=time_of(run.started_at),
            ended_at=None if run.ended_at is None else time_of(run.ended_at),
            deleted_at=self._deleted_at(run),
            params=checked_texts(run.params),
            tags=checked_texts(run.tags),
            datasets=run.datasets,
            models=run.models,
            artifacts=self._kept(self._source.files_of_run(run)),
        )

    def _deleted_at(self, run: SourceRun) -> datetime | None:
        if run.lifecycle == "active":
            return None
        # Where the source does not say when, the time of grace begins now.
        return self._workspace.clock.now() if run.deleted_at is None else time_of(run.deleted_at)

    def _points(self, run: SourceRun) -> Iterator[Points]:
        for piece in self._source.points(run):
            yield Points(checked_key(piece.key), piece.steps, microseconds(piece), piece.values)

    def _kept(self, found: Found) -> Files:
        """Keep the content of files, before anything points at it."""
        blobs = self._workspace.blobs
        files: dict[str, tuple[str, int]] = {}
        for path, place in found:
            size = place.stat().st_size
            files[confined(path)] = (blobs.put_file(place), size)
        return files

    def _count(self, run: ImportedRun, points: int) -> None:
        copied = self._report.copied
        copied.runs += 1
        copied.metric_points += points
        copied.params += len(run.params)
        copied.tags += len(run.tags)
        copied.datasets += len(run.datasets)
        self._count_files(run.artifacts)

    def _count_files(self, files: Files) -> None:
        self._report.copied.artifacts += len(files)
        self._report.copied.artifact_bytes += sum(size for _, size in files.values())

    # Logged models

    def logged_models(self, given: SourceExperiment, experiment: int | None) -> None:
        """Copy the logged models of an experiment which are not here."""
        for model in self._source.logged_models(given.id):
            with self._workspace.read() as connection:
                if imports.standing_models(connection, [model.id]):
                    self._report.here.logged_models += 1
                    continue
            if experiment is not None and not self._report.dry_run:
                try:
                    imported = self._imported_model(model, experiment)
                except (InvalidInputError, NotFoundError) as error:
                    self._problem(f"logged model {model.id}", error)
                    continue
                self._workspace.write(lambda tx, imported=imported: imports.add_model(tx, imported))  # type: ignore[misc]  # read at once
                self._count_files(imported.artifacts)
            self._report.copied.logged_models += 1
            self._tell(given.name, self._report.copied)

    def _imported_model(self, model: SourceLoggedModel, experiment: int) -> ImportedModel:
        newest = {
            (metric.run, metric.key, metric.dataset, metric.dataset_digest): metric
            for metric in sorted(model.metrics, key=lambda metric: (metric.step, metric.at))
        }
        if len(newest) < len(model.metrics):
            self._report.notes.append(
                f"Of the logged model {model.id} each metric keeps its newest value; the older ones are in "
                "the histories of the runs that measured them."
            )
        return ImportedModel(
            id=model.id,
            experiment_id=experiment,
            name=checked_text("the model's name", model.name),
            type=checked_text("the model's type", model.type),
            status=model.status,
            run=model.run,
            created_at=time_of(model.created_at),
            updated_at=time_of(model.updated_at),
            deleted_at=time_of(model.updated_at) if model.lifecycle == "deleted" else None,
            params=checked_texts(model.params),
            tags=checked_texts(model.tags),
            metrics=tuple(newest.values()),
            artifacts=self._kept(self._source.files_of_model(model)),
        )

    def _problem(self, what: str, error: InvalidInputError | NotFoundError) -> None:
        self._report.problems.append(f"{what} was not copied. {error}")


def checked_texts(values: dict[str, str]) -> dict[str, str]:
    """Params or tags, if they can be kept; raises InvalidInputError."""
    return {checked_key(key): checked_text(f"'{key}'", value) for key, value in values.items()}


def time_of(milliseconds: int) -> datetime:
    """The time of milliseconds since 1970; raises InvalidInputError outside of 1970 to 9999."""
    if not 0 <= milliseconds <= LATEST:
        raise InvalidInputError(f"{milliseconds} is no time in milliseconds from 1970 to the year 9999.")
    return from_microseconds(milliseconds * 1000)


def microseconds(piece: SourcePoints) -> Sequence[int]:
    """The times of points; raises InvalidInputError for one outside of 1970 to 9999."""
    times = piece.times
    if min(times) < 0 or max(times) > LATEST:
        raise InvalidInputError(f"A point of '{piece.key:.250}' has no time from 1970 to the year 9999.")
    if len(times) > 100:
        found: list[int] = (np.array(times, dtype=np.int64) * 1000).tolist()
        return found
    return [at * 1000 for at in times]


def _batches(first: list[Points], pieces: Iterator[Points]) -> Iterator[list[Points]]:
    batch, count = first, sum(len(piece.steps) for piece in first)
    for piece in pieces:
        if count >= POINTS_AT_ONCE:
            yield batch
            batch, count = [], 0
        batch.append(piece)
        count += len(piece.steps)
    yield batch
