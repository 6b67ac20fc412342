"""What workers do for loops: the handlers of a controller's orders. User code runs here, and only here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from trimtab.config import FILE_NAME
from trimtab.data.datasets import Datasets
from trimtab.data.profiles import Profile
from trimtab.data.sources import Sources
from trimtab.data.versions import find_version
from trimtab.errors import InvalidInputError, ModelCorruptError, NotFoundError, StepFailedError
from trimtab.loop.cycles import get_cycle
from trimtab.loop.findings import evaluate_monitors
from trimtab.loop.measure import measure_cycle
from trimtab.loop.orders import (
    GatesAnswer,
    GatesOrder,
    IngestOrder,
    LabelsOrder,
    MeasureAnswer,
    MeasureOrder,
    TrainAnswer,
    TrainOrder,
    WatchAnswer,
    WatchOrder,
)
from trimtab.loop.records import get_applied
from trimtab.models.confined.confinement import Confinement
from trimtab.models.gate_evaluation import GatesRequest, judge
from trimtab.models.runtimes.runtime import may_run_code
from trimtab.models.specification import Specification, read_specification
from trimtab.models.versions import DataVersion, VersionRecord
from trimtab.monitoring.outcomes import LabelCounts
from trimtab.pipelines.codecs import load_object
from trimtab.pipelines.graph import Pipeline, trace
from trimtab.pipelines.project import checkout, importing_from
from trimtab.pipelines.run import PipelineResult, run_pipeline
from trimtab.serving.labels import tell_version
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

if TYPE_CHECKING:
    from trimtab.pipelines.worker import RunningJob


def ingest(workspace: Workspace, spec: object, running: RunningJob) -> dict[str, object]:
    """Look at a dataset's sources; answers the versions that came of it."""
    order = msgspec.convert(spec, IngestOrder)
    versions = Sources(workspace).poll(order.dataset)
    return {"versions": [version.number for version in versions]}


def labels(workspace: Workspace, spec: object, running: RunningJob) -> LabelCounts:
    """Tell an endpoint labels that came in by a folder or a table; answers what became of them."""
    order = msgspec.convert(spec, LabelsOrder)
    return tell_version(workspace, order.endpoint, order.version)


def train(workspace: Workspace, spec: object, running: RunningJob) -> TrainAnswer:
    """Run the training pipeline. What the user's code does wrong is an answer, not a failed job."""
    order = msgspec.convert(spec, TrainOrder)
    run_id = running.job.id
    try:
        result = run_pipeline(
            workspace,
            order.pipeline,
            params=order.params,
            as_of=order.as_of,
            dataset_versions=order.datasets,
            held_out={order.dataset: order.held_out},
            experiment=order.loop,
            run_id=run_id,
            tags={"trimtab.loop": order.loop, "trimtab.cycle": order.cycle},
            project=order.project,
            pool=running.pool,
        )
    except (InvalidInputError, NotFoundError, StepFailedError) as error:
        return TrainAnswer(run_id=run_id, failure=str(error))
    if result.status == "failed":
        failure = result.error or f"the step '{result.failed_step}' failed"
        return TrainAnswer(run_id=result.run_id, failure=failure)
    return _trained(workspace, order, result)


def _trained(workspace: Workspace, order: TrainOrder, result: PipelineResult) -> TrainAnswer:
    digest = result.outputs.get("output", "")
    try:
        specification = _specification(workspace, digest)
    except (ModelCorruptError, NotFoundError, InvalidInputError):
        failure = f"the pipeline '{order.pipeline}' does not return a model; return one trimtab.Model"
        return TrainAnswer(run_id=result.run_id, failure=failure)
    if failure := _not_served(workspace, order, specification):
        return TrainAnswer(run_id=result.run_id, failure=failure)
    record = VersionRecord(
        signature=specification.signature,
        data=tuple(
            _data(workspace, name, number) for name, number in sorted(result.dataset_versions.items())
        ),
        features=tuple(column.name for column in specification.signature.columns),
        pipeline=order.pipeline,
        params=order.params,
        code=order.project,
        as_of=order.as_of,
        held_out={order.dataset: order.held_out} if order.held_out else {},
        metrics={name: point.value for name, point in Tracking(workspace).metrics(result.run_id).items()},
    )
    return TrainAnswer(
        run_id=result.run_id,
        digest=digest,
        target=specification.target,
        profile=_profile(workspace, order, record.features),
        record=record,
    )


def _not_served(workspace: Workspace, order: TrainOrder, specification: Specification) -> str:
    """Why no gateway would serve the model, which would keep its cycle in its rollout; "" if one does."""
    if not may_run_code(specification.runtime):
        return ""
    with workspace.read() as connection:
        cycle = get_cycle(connection, order.cycle)
        model = get_applied(connection, cycle.loop, cycle.declaration).declaration.model
    if Confinement.of(workspace.settings).permits(model):
        return ""
    return (
        "the model runs code of its own where it answers, which no gateway may run yet; "
        f'allow it: confined_models = ["{model}"] in {FILE_NAME}'
    )


def _profile(workspace: Workspace, order: TrainOrder, features: Sequence[str]) -> str:
    """Keep the profile of the rows that the pipeline read of the loop's dataset: what drift is told by."""
    root = checkout(workspace, order.project)
    with importing_from(root):
        pipeline = load_object(order.pipeline)
        assert isinstance(pipeline, Pipeline)
        refs = trace(pipeline, order.params, as_of=order.as_of).datasets
    read = [ref for ref in refs if ref.name == order.dataset]
    spans = [ref.bounds(order.as_of) for ref in read]
    start = min((start for start, _ in spans if start is not None), default=None)
    end = max((end for _, end in spans if end is not None), default=None)
    parts = {ref.part(order.held_out) for ref in read}
    part = parts.pop() if len(parts) == 1 else None
    datasets = Datasets(workspace)
    if end is None and datasets.get(order.dataset).time is not None:
        end = order.as_of
    rows = datasets.read(order.dataset, order.datasets[order.dataset], start=start, end=end, part=part)
    columns = [name for name in features if name in rows.columns]
    return workspace.blobs.put(Profile.of(rows, columns).to_bytes())


def _specification(workspace: Workspace, digest: str) -> Specification:
    folder = workspace.cache / "models" / digest.removeprefix("b3:")
    workspace.blobs.fetch_tree(digest, folder)
    return read_specification(folder)


def _data(workspace: Workspace, name: str, number: int) -> DataVersion:
    with workspace.read() as connection:
        version = find_version(connection, name, number)
    return DataVersion(dataset=name, version=version.number, digest=version.digest)


def gates(workspace: Workspace, spec: object, running: RunningJob) -> GatesAnswer:
    """Judge a candidate; whoever ordered it stores the report."""
    order = msgspec.convert(spec, GatesOrder)
    request = GatesRequest(**{field: getattr(order, field) for field in GatesOrder.__struct_fields__})
    return GatesAnswer(report=judge(workspace, request))


def watch(workspace: Workspace, spec: object, running: RunningJob) -> WatchAnswer:
    """Evaluate the monitors of a loop that need the user's code."""
    order = msgspec.convert(spec, WatchOrder)
    with workspace.read() as connection:
        applied = get_applied(connection, order.loop, order.version)
    with importing_from(checkout(workspace, applied.project)):
        findings = evaluate_monitors(workspace, applied.declaration, order.moment, user_code=True)
    return WatchAnswer(findings=findings)


def measure(workspace: Workspace, spec: object, running: RunningJob) -> MeasureAnswer:
    """Measure a challenger by a metric of the user's."""
    order = msgspec.convert(spec, MeasureOrder)
    with workspace.read() as connection:
        cycle = get_cycle(connection, order.cycle)
        applied = get_applied(connection, cycle.loop, cycle.declaration)
    with importing_from(checkout(workspace, applied.project)):
        return MeasureAnswer(measure=measure_cycle(workspace, applied.declaration, cycle, order.moment))
