"""Tracking: experiments, runs and what is logged to them, over an open workspace.

What must share a transaction with something else is in the modules beside this one, as functions that
take the transaction: `experiments`, `runs`, `params_and_tags`, `metrics`, `artifacts`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trimtab.store.database import Transaction
from trimtab.tracking import artifacts, experiments, metrics, params_and_tags, runs
from trimtab.tracking.artifacts import Artifact
from trimtab.tracking.experiments import Experiment, Lifecycle
from trimtab.tracking.history import MetricHistory, metric_history
from trimtab.tracking.metrics import MetricWriter, Point
from trimtab.tracking.runs import Run, RunPage, Status
from trimtab.workspace import Workspace


class Tracking:
    """What a workspace knows about its runs. Each call that writes is one durable transaction."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._writer = MetricWriter(workspace.database)
        self._sequence = itertools.count(1)

    def get_or_create_experiment(self, name: str) -> Experiment:
        """The experiment of that name, made if there is none; raises ConflictError if it was deleted."""
        return self._workspace.write(lambda tx: experiments.get_or_create(tx, name))

    def experiments(self, *, lifecycle: Lifecycle | None = "active") -> list[Experiment]:
        """Experiments by name: active, deleted or (None) all."""
        with self._workspace.read() as connection:
            return experiments.list_all(connection, lifecycle=lifecycle)

    def delete_experiment(self, name: str) -> None:
        """Delete an experiment; it can be restored."""
        self._workspace.write(lambda tx: experiments.set_lifecycle(tx, name, "deleted"))

    def restore_experiment(self, name: str) -> None:
        """Restore a deleted experiment."""
        self._workspace.write(lambda tx: experiments.set_lifecycle(tx, name, "active"))

    def start_run(
        self,
        experiment: str,
        *,
        name: str = "",
        parent: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """Start a run in an experiment, which is made if there is none.

        With a `run_id` that stands already, in the same experiment and with the same parent, that run is
        taken up again; ConflictError if it belongs elsewhere.
        """
        chosen = run_id or runs.new_run_id()

        def work(tx: Transaction) -> Run:
            run = runs.start(tx, chosen, experiment, name=name, parent=parent)
            params_and_tags.set_tags(tx, chosen, tags or {})
            return run

        return self._workspace.write(work)

    def finish_run(self, run_id: str, status: Status = "FINISHED") -> Run:
        """End a run as FINISHED, FAILED or KILLED."""
        return self._workspace.write(lambda tx: runs.finish(tx, run_id, status))

    def delete_run(self, run_id: str) -> None:
        """Delete a run; it can be restored."""
        self._workspace.write(lambda tx: runs.set_lifecycle(tx, run_id, "deleted"))

    def restore_run(self, run_id: str) -> None:
        """Restore a deleted run."""
        self._workspace.write(lambda tx: runs.set_lifecycle(tx, run_id, "active"))

    def get_run(self, run_id: str) -> Run:
        """The run of that id; raises NotFoundError."""
        with self._workspace.read() as connection:
            return runs.get(connection, run_id)

    def children(self, run_id: str) -> list[Run]:
        """The active runs whose parent this is, in the order in which they were started."""
        with self._workspace.read() as connection:
            return runs.children(connection, run_id)

    def search(
        self,
        experiment_names: Sequence[str] | None = None,
        *,
        statuses: Sequence[Status] = (),
        tags: Mapping[str, str] | None = None,
        lifecycle: Lifecycle = "active",
        limit: int = 100,
        page_token: str = "",
    ) -> RunPage:
        """Runs that meet every condition, the latest started first, a page at a time."""
        with self._workspace.read() as connection:
            return runs.search(
                connection,
                experiment_names,
                statuses=statuses,
                tags=tags,
                lifecycle=lifecycle,
                limit=limit,
                page_token=page_token,
            )

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Set params, all or none, kept as text; raises ConflictError if one has another value already."""
        texts = {key: value if isinstance(value, str) else str(value) for key, value in params.items()}
        self._workspace.write(lambda tx: params_and_tags.log_params(tx, run_id, texts))

    def params(self, run_id: str) -> dict[str, str]:
        """The params of a run, by key."""
        with self._workspace.read() as connection:
            return params_and_tags.get_params(connection, run_id)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags; one that stands is replaced."""
        self._workspace.write(lambda tx: params_and_tags.set_tags(tx, run_id, tags))

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags of a run, by key."""
        with self._workspace.read() as connection:
            return params_and_tags.get_tags(connection, run_id)

    def log_metrics(self, run_id: str, points: Iterable[Point] | Mapping[str, float]) -> None:
        """Log metrics, durable on return: points, or values by key (of this moment, at step 0)."""
        if isinstance(points, Mapping):
            now = self._workspace.clock.now()
            points = [Point(key, value, 0, now) for key, value in points.items()]
        batch = metrics.batch_of(points)
        self._writer.write(run_id, batch, next(self._sequence), actor=self._workspace.actor)

    def metrics(self, run_id: str) -> dict[str, Point]:
        """The latest point of each metric of a run, by key."""
        with self._workspace.read() as connection:
            return metrics.latest_metrics(connection, run_id)

    def metric_history(
        self, run_id: str, key: str, *, first_step: int | None = None, last_step: int | None = None
    ) -> MetricHistory:
        """All points of a metric, or those within a range of steps (both ends included)."""
        with self._workspace.read() as connection:
            return metric_history(connection, run_id, key, first_step=first_step, last_step=last_step)

    def log_artifact(self, run_id: str, source: Path | bytes, path: str = "") -> None:
        """Keep a file, all files below a folder, or bytes with a run, below or at `path`.

        For a file `path` defaults to its name; bytes need a path. Raises InvalidInputError for a path that
        leads out of the run.
        """
        blobs = self._workspace.blobs
        if isinstance(source, bytes):
            files = {artifacts.confined(path): (blobs.put(source), len(source))}
        else:
            found = {path or source.name: source}
            if source.is_dir():
                prefix = f"{path}/" if path else ""
                found = {prefix + name: file for name, file in artifacts.files_below(source).items()}
            files = {
                artifacts.confined(name): (blobs.put_file(file), file.stat().st_size)
                for name, file in found.items()
            }
        self._workspace.write(lambda tx: artifacts.record(tx, run_id, files))

    def artifacts(self, run_id: str, folder: str = "") -> list[Artifact]:
        """The files of a run by path: all of them, or those below `folder`."""
        with self._workspace.read() as connection:
            return artifacts.list_artifacts(connection, run_id, folder)

    def load_artifact(self, run_id: str, path: str) -> bytes:
        """The content of one file of a run; raises NotFoundError."""
        with self._workspace.read() as connection:
            digest = artifacts.get(connection, run_id, path).digest
        return self._workspace.blobs.get(digest)

    def fetch_artifact(self, run_id: str, path: str, to: Path) -> None:
        """Write one file of a run to the file `to`, at flat memory."""
        with self._workspace.read() as connection:
            digest = artifacts.get(connection, run_id, path).digest
        self._workspace.blobs.fetch_file(digest, to)
