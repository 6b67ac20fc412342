"""Running a pipeline: a tracking run, its steps, and what came out."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from trimtab.errors import InvalidInputError, StepFailedError, unknown
from trimtab.pipelines.arguments import Arguments, choose_rows
from trimtab.pipelines.cache import CodeKeys
from trimtab.pipelines.codecs import load_object
from trimtab.pipelines.environment import Environment
from trimtab.pipelines.executor import Executor, Failure, module_name, script_of
from trimtab.pipelines.graph import FromNode, Graph, Pipeline, trace
from trimtab.pipelines.pool import Pool
from trimtab.pipelines.project import checkout, importing_from, snapshot
from trimtab.pipelines.source import DataRows
from trimtab.pipelines.step_runs import StepRun, list_steps
from trimtab.pipelines.values import Stored, ValueStore, digest_of, load
from trimtab.store.database import Transaction
from trimtab.tracking import params_and_tags, runs
from trimtab.workspace import Workspace

Status = Literal["finished", "failed"]


class PipelineResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a pipeline run.

    `outputs` are digests of what the pipeline returned (a model's is that of its folder as a tree),
    `stored` how each can be read again (`load_output`); both are empty if a step failed.
    `dataset_versions` are those that were read.
    """

    run_id: str
    status: Status
    outputs: dict[str, str] = {}
    stored: dict[str, Stored] = {}
    dataset_versions: dict[str, int] = {}
    project: str | None = None
    failed_step: str | None = None
    error: str | None = None

    def check(self) -> PipelineResult:
        """This result; raises StepFailedError if a step failed."""
        if self.status == "failed":
            raise StepFailedError(
                self.error or f"The run {self.run_id} failed.",
                hint="Correct it and run again: what is done is cached.",
            )
        return self

    def output(self, name: str = "output") -> Stored:
        """One output; raises NotFoundError if there is none of that name."""
        if name not in self.stored:
            raise unknown("output", name, self.stored)
        return self.stored[name]


class PipelineSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The spec of a job that runs a pipeline.

    `project` is a snapshot's digest, `pipeline` is "module:name" in it; what is left out has the meaning
    that it has for `run_pipeline`.
    """

    pipeline: str
    project: str | None = None
    params: dict[str, Any] = {}
    as_of: str | None = None
    dataset_versions: dict[str, int] = {}
    experiment: str | None = None
    run_id: str | None = None
    tags: dict[str, str] = {}


class PipelineOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a job that ran a pipeline, as it stands in the job queue."""

    run_id: str
    status: Status
    outputs: dict[str, str]
    dataset_versions: dict[str, int]
    project: str | None
    failed_step: str | None
    error: str | None


def run_pipeline(
    workspace: Workspace,
    pipeline: Pipeline[Any, Any] | str,
    *,
    params: Mapping[str, object] | None = None,
    as_of: datetime | None = None,
    dataset_versions: Mapping[str, int] | None = None,
    held_out: Mapping[str, float] | None = None,
    experiment: str | None = None,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    project: Path | str | None = None,
    pool: Pool | None = None,
) -> PipelineResult:
    """Run a pipeline to its end, recorded as a tracking run.

    `pipeline` is a Pipeline of a module that is imported here, or "module:name" in a project: `project`
    is then a folder, of which a snapshot is run, or a snapshot's digest; the workspace's own folder, if
    None. `as_of` (now, if None) is what windows end at. `dataset_versions` names versions to read; other
    datasets are read in their newest. `held_out` is the share of a dataset's rows that the run must not see
    (`trimtab.data.window.share`). The run belongs to `experiment` (the pipeline's name, if None); one
    with a `run_id` that stands is taken up again.

    Steps whose code, inputs and environment are as they were are taken from the cache; all others run in
    processes, as many at a time as the setting `cpu` allows. A step that fails ends the run, and the
    result says which; other errors are raised (unknown parameters or datasets before a run is made).
    """
    at = as_of or workspace.clock.now()
    with contextlib.ExitStack() as stack:
        root, digest = None, None
        if isinstance(pipeline, str):
            root, digest = _project(workspace, project)
            stack.enter_context(importing_from(root))
            pipeline = _load(pipeline)
        graph = trace(pipeline, params, as_of=at)
        environment = Environment(workspace.cache / "distributions.json")
        keys = CodeKeys(root, environment)
        for node in graph.nodes.values():
            if (script := script_of(node.step.function)) is not None:
                keys.add_script(module_name(node.step.function), Path(script))
            module_name(node.step.function)
        rows = choose_rows(workspace, graph, dataset_versions or {}, keys, held_out or {})
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=workspace.cache, prefix="run-")))
        running = _Run(
            workspace,
            graph,
            run_id=run_id or runs.new_run_id(),
            experiment=experiment or graph.pipeline,
            project=digest,
            rows=rows,
        )
        running.start(tags or {})

        def children(modules: list[str]) -> Pool:
            if pool is not None:
                pool.preload(modules)
                return pool
            return stack.enter_context(Pool.start(["trimtab.pipelines.task", *modules]))

        with running.ended_whatever_happens():
            values = ValueStore(workspace.blobs, folder)
            arguments = Arguments(rows, values, folder / "constants")
            executor = Executor(
                workspace,
                graph,
                run_id=running.run_id,
                arguments=arguments,
                values=values,
                keys=keys,
                folder=folder,
                pool=children,
            )
            try:
                executor.run()
            except BaseException:
                executor.break_off()
                raise
            return running.result(executor.failure, arguments)


def load_output(workspace: Workspace, stored: Stored, *, trusted_only: bool = True) -> object:
    """Read what a pipeline returned, or what a step did (`StepRun.output`), into this process.

    A value that had no codec was pickled: it is refused with RefusedError unless `trusted_only=False`,
    since reading it runs code.
    """
    folder = workspace.cache / "values"
    folder.mkdir(exist_ok=True)
    return load(workspace.blobs, stored, folder, trusted_only=trusted_only)


def steps_of(workspace: Workspace, run_id: str) -> list[StepRun]:
    """The steps of a run, in the order of its graph."""
    with workspace.read() as connection:
        return list_steps(connection, run_id)


class _Run:
    """The tracking run of one pipeline run."""

    def __init__(
        self,
        workspace: Workspace,
        graph: Graph,
        *,
        run_id: str,
        experiment: str,
        project: str | None,
        rows: Mapping[int, tuple[DataRows, object]],
    ) -> None:
        self.run_id = run_id
        self._ws = workspace
        self._graph = graph
        self._experiment = experiment
        self._project = project
        self._versions = {found.dataset: found.version for found, _ in rows.values()}

    def start(self, tags: Mapping[str, str]) -> None:
        """Write the run with its params and tags."""
        own = {"trimtab.pipeline": self._graph.pipeline, "trimtab.as_of": self._graph.as_of.isoformat()}
        if self._project is not None:
            own["trimtab.project"] = self._project
        for dataset, version in self._versions.items():
            own[f"trimtab.dataset.{dataset}"] = str(version)
        params = {name: _text(value) for name, value in self._graph.params.items()}
        name = self._graph.pipeline.rpartition(".")[2]

        def work(tx: Transaction) -> None:
            runs.start(tx, self.run_id, self._experiment, name=name)
            params_and_tags.log_params(tx, self.run_id, params)
            params_and_tags.set_tags(tx, self.run_id, {**own, **tags})

        self._ws.write(work)

    @contextlib.contextmanager
    def ended_whatever_happens(self) -> Iterator[None]:
        """End the run as failed or killed if what is done within breaks off."""
        try:
            yield
        except Exception:
            self._finish("FAILED")
            raise
        except BaseException:
            self._finish("KILLED")
            raise

    def result(self, failure: Failure | None, arguments: Arguments) -> PipelineResult:
        """End the run and tell what came of it."""
        if failure is not None:
            self._finish("FAILED", {"trimtab.failed_step": failure.node})
            return PipelineResult(
                run_id=self.run_id,
                status="failed",
                dataset_versions=self._versions,
                project=self._project,
                failed_step=failure.node,
                error=failure.message,
            )
        stored = {
            name: arguments.output(argument)
            for name, argument in self._graph.outputs.items()
            if isinstance(argument, FromNode)
        }
        self._finish("FINISHED")
        return PipelineResult(
            run_id=self.run_id,
            status="finished",
            outputs={name: digest_of(value) for name, value in stored.items()},
            stored=stored,
            dataset_versions=self._versions,
            project=self._project,
        )

    def _finish(self, status: runs.Status, tags: Mapping[str, str] | None = None) -> None:
        def work(tx: Transaction) -> None:
            params_and_tags.set_tags(tx, self.run_id, tags or {})
            runs.finish(tx, self.run_id, status)

        self._ws.write(work)


def _project(workspace: Workspace, project: Path | str | None) -> tuple[Path, str]:
    if isinstance(project, str):
        return checkout(workspace, project), project
    digest = snapshot(workspace, project)
    return checkout(workspace, digest), digest


def _load(reference: str) -> Pipeline[Any, Any]:
    found = load_object(reference)
    if not isinstance(found, Pipeline):
        raise InvalidInputError(
            f"'{reference}' is not a pipeline.", hint="Decorate the function with @tt.pipeline."
        )
    return found


def _text(value: object) -> str:
    """A parameter as tracking keeps it."""
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        return repr(value)
