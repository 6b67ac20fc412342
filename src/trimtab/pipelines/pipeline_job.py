"""The job that runs a pipeline of a project snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trimtab.clock import parse_time
from trimtab.errors import InvalidInputError
from trimtab.pipelines.run import PipelineOutcome, PipelineSpec, run_pipeline
from trimtab.workspace import Workspace

if TYPE_CHECKING:
    from trimtab.pipelines.worker import RunningJob

KIND = "pipeline"


def pipeline_job(workspace: Workspace, spec: object, running: RunningJob) -> PipelineOutcome:
    """Run the pipeline that `spec` (a PipelineSpec as builtins) names.

    A step that fails makes no failed job: the outcome says so. The run's id is the job's own unless the
    spec has one, so that a job that is tried again takes up its run.
    """
    try:
        wanted = msgspec.convert(spec, PipelineSpec)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"This is not the spec of a pipeline job: {error}.") from None
    result = run_pipeline(
        workspace,
        wanted.pipeline,
        params=wanted.params,
        as_of=None if wanted.as_of is None else parse_time(wanted.as_of),
        dataset_versions=wanted.dataset_versions,
        experiment=wanted.experiment,
        run_id=wanted.run_id or running.job.id,
        tags=wanted.tags,
        project=wanted.project,
        pool=running.pool,
    )
    return PipelineOutcome(
        run_id=result.run_id,
        status=result.status,
        outputs=result.outputs,
        dataset_versions=result.dataset_versions,
        project=result.project,
        failed_step=result.failed_step,
        error=result.error,
    )
