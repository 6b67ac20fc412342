"""What Trimtab keeps, as MLflow's entities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    ExperimentTag,
    InputTag,
    LoggedModel,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException

from trimtab.models.addresses import artifacts_address
from trimtab.store.types import from_microseconds, to_microseconds
from trimtab.tracking import experiments, logged_models
from trimtab.tracking.inputs import RunDataset
from trimtab.tracking.run_details import RunDetails

LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999."""

STATUSES: Mapping[str, LoggedModelStatus] = {
    "PENDING": LoggedModelStatus.PENDING,
    "READY": LoggedModelStatus.READY,
    "FAILED": LoggedModelStatus.FAILED,
}


def experiment_entity(project: Path, stored: experiments.Experiment, tags: Mapping[str, str]) -> Experiment:
    """An experiment."""
    return Experiment(
        experiment_id=str(stored.id),
        name=stored.name,
        artifact_location=artifacts_address(project, "experiments", str(stored.id)),
        lifecycle_stage=stored.lifecycle,
        tags=[ExperimentTag(key, value) for key, value in tags.items()],
        creation_time=milliseconds(stored.created_at),
        last_update_time=milliseconds(stored.updated_at),
    )


def run_entity(project: Path, details: RunDetails) -> Run:
    """A run with all that was logged to it."""
    metrics = [
        Metric(metric.key, double(metric.value), metric.at // 1000, metric.step) for metric in details.metrics
    ]
    params = [Param(key, value) for key, value in details.params.items()]
    tags = [RunTag(key, value) for key, value in details.tags.items()]
    return Run(
        run_info(project, details.row),
        RunData(metrics, params, tags),
        RunInputs(
            [_dataset_input(dataset) for dataset in details.datasets],
            [LoggedModelInput(use.model) for use in details.models if use.direction == "in"],
        ),
        RunOutputs(
            [LoggedModelOutput(use.model, use.step) for use in details.models if use.direction == "out"]
        ),
    )


def run_info(project: Path, row: Any) -> RunInfo:
    """The head of a run, from its row."""
    return RunInfo(
        run_id=row.id,
        experiment_id=str(row.experiment_id),
        user_id=row.actor,
        status=row.status,
        start_time=milliseconds(row.started_at),
        end_time=None if row.ended_at is None else milliseconds(row.ended_at),
        lifecycle_stage=row.lifecycle,
        artifact_uri=artifacts_address(project, "runs", row.id),
        run_name=row.name,
    )


def stored_dataset(given: DatasetInput) -> RunDataset:
    """A dataset as Trimtab keeps it."""
    dataset = given.dataset
    return RunDataset(
        name=dataset.name,
        digest=dataset.digest,
        source_type=dataset.source_type,
        source=dataset.source,
        schema=dataset.schema,
        profile=dataset.profile,
        tags={tag.key: tag.value for tag in given.tags or []},
    )


def logged_model_entity(project: Path, stored: logged_models.LoggedModel) -> LoggedModel:
    """A logged model."""
    row = stored.row
    return LoggedModel(
        experiment_id=str(row.experiment_id),
        model_id=row.id,
        name=row.name,
        artifact_location=artifacts_address(project, "logged-models", row.id),
        creation_timestamp=milliseconds(row.created_at),
        last_updated_timestamp=milliseconds(row.updated_at),
        model_type=row.type or None,
        source_run_id=row.run,
        status=STATUSES[row.status],
        tags=dict(stored.tags),
        params=dict(stored.params),
        metrics=[
            Metric(
                metric.key,
                metric.value,
                metric.at // 1000,
                metric.step,
                model_id=metric.model,
                dataset_name=metric.dataset or None,
                dataset_digest=metric.dataset_digest or None,
                run_id=metric.run,
            )
            for metric in stored.metrics
        ],
    )


def lifecycle_of(view: int) -> experiments.Lifecycle | None:
    """What a view type asks for; None for both."""
    match view:
        case ViewType.ACTIVE_ONLY:
            return "active"
        case ViewType.DELETED_ONLY:
            return "deleted"
    return None


def experiment_number(experiment_id: str | int) -> int:
    """An experiment's id as a number; raises MlflowException if it cannot be one."""
    text = str(experiment_id)
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise MlflowException.invalid_parameter_value(
            f"Invalid experiment ID '{text:.80}'. Experiment ID must be a valid integer."
        )
    return int(text)


def double(value: float | None) -> float:
    """A value as MLflow has it; None is NaN."""
    return math.nan if value is None else value


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970."""
    return to_microseconds(at) // 1000


def time_of(value: int) -> datetime:
    """The time of milliseconds since 1970; raises MlflowException before that and after the year 9999."""
    if not 0 <= value <= LATEST:
        raise MlflowException.invalid_parameter_value(
            f"Invalid value {value}: a time is milliseconds from 1970 to the year 9999."
        )
    return from_microseconds(int(value) * 1000)


def _dataset_input(stored: RunDataset) -> DatasetInput:
    return DatasetInput(
        Dataset(stored.name, stored.digest, stored.source_type, stored.source, stored.schema, stored.profile),
        [InputTag(key, value) for key, value in stored.tags.items()],
    )
