"""MLflow's messages, as its clients expect them in JSON.

Times are milliseconds since 1970. Numbers of 64 bits are JSON numbers, as MLflow's own server has them. What
has no value is left out, as protobuf does.
"""

# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from trimtab.errors import InvalidInputError
from trimtab.store.types import from_microseconds, to_microseconds
from trimtab.tracking.experiments import Experiment as StoredExperiment
from trimtab.tracking.experiments import Lifecycle
from trimtab.tracking.run_details import RunDetails

Text = Annotated[str, Meta(min_length=1)]
"""A text that must be given."""

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999."""


class KeyValue(msgspec.Struct, gc=False):
    """A tag or a param. (A page has thousands: the collector of garbage need not look at texts.)"""

    key: str = ""
    value: str = ""


class Experiment(msgspec.Struct, omit_defaults=True):
    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    creation_time: int
    last_update_time: int
    tags: list[KeyValue] = []


class RunInfo(msgspec.Struct, omit_defaults=True, gc=False):
    run_id: str
    run_uuid: str
    run_name: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    artifact_uri: str
    lifecycle_stage: str
    end_time: int | None = None


class Metric(msgspec.Struct, omit_defaults=True, gc=False):
    key: str
    value: float | str
    timestamp: int
    step: int
    run_id: str | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class RunData(msgspec.Struct, omit_defaults=True):
    metrics: list[Metric] = []
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class Dataset(msgspec.Struct, omit_defaults=True):
    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


class DatasetInput(msgspec.Struct, omit_defaults=True):
    dataset: Dataset
    tags: list[KeyValue] = []


class ModelInput(msgspec.Struct):
    model_id: str


class ModelOutput(msgspec.Struct):
    model_id: str
    step: int


class RunInputs(msgspec.Struct, omit_defaults=True):
    dataset_inputs: list[DatasetInput] = []
    model_inputs: list[ModelInput] = []


class RunOutputs(msgspec.Struct, omit_defaults=True):
    model_outputs: list[ModelOutput] = []


class Run(msgspec.Struct, omit_defaults=True):
    info: RunInfo
    data: RunData
    inputs: RunInputs
    outputs: RunOutputs | None = None


def key_values(values: dict[str, str]) -> list[KeyValue]:
    """Tags or params as messages."""
    return [KeyValue(key, value) for key, value in values.items()]


def experiment(stored: StoredExperiment, tags: dict[str, str]) -> Experiment:
    """An experiment as MLflow tells of it."""
    return Experiment(
        str(stored.id),
        stored.name,
        experiment_root(stored.id),
        stored.lifecycle,
        milliseconds(stored.created_at),
        milliseconds(stored.updated_at),
        key_values(tags),
    )


def run(details: RunDetails) -> Run:
    """A run as MLflow tells of it."""
    row = details.row
    datasets = [
        DatasetInput(
            Dataset(each.name, each.digest, each.source_type, each.source, each.schema, each.profile),
            key_values(each.tags),
        )
        for each in details.datasets
    ]
    read = [ModelInput(use.model) for use in details.models if use.direction == "in"]
    made = [ModelOutput(use.model, use.step) for use in details.models if use.direction == "out"]
    metrics = [
        Metric(metric.key, double(metric.value), metric.at // 1000, metric.step, run_id=row.id)
        for metric in details.metrics
    ]
    return Run(
        run_info(row),
        RunData(metrics, key_values(details.params), key_values(details.tags)),
        RunInputs(datasets, read),
        RunOutputs(made),
    )


def run_info(row: Any) -> RunInfo:
    """The head of a run, from its row."""
    return RunInfo(
        run_id=row.id,
        run_uuid=row.id,
        run_name=row.name,
        experiment_id=str(row.experiment_id),
        user_id=row.actor,
        status=row.status,
        start_time=milliseconds(row.started_at),
        end_time=None if row.ended_at is None else milliseconds(row.ended_at),
        artifact_uri=f"{experiment_root(row.experiment_id)}/{row.id}/artifacts",
        lifecycle_stage=row.lifecycle,
    )


def experiment_root(experiment_id: int) -> str:
    """Where the artifacts of an experiment are, as its clients address them."""
    return f"mlflow-artifacts:/{experiment_id}"


def double(value: float | None) -> float | str:
    """A number as protobuf's JSON has it; None is NaN."""
    if value is None or math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970."""
    return to_microseconds(at) // 1000


def time_of(value: int) -> datetime:
    """The time of milliseconds since 1970; raises InvalidInputError after the year 9999 or before 1970."""
    if not 0 <= value <= LATEST:
        raise InvalidInputError(f"Invalid value {value}: a time is milliseconds from 1970 to the year 9999.")
    return from_microseconds(value * 1000)


def experiment_number(text: str) -> int:
    """An experiment's id; raises InvalidInputError if it cannot be one."""
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise InvalidInputError(f"Invalid experiment ID '{text:.80}'. Experiment ID must be a valid integer.")
    return int(text)


def lifecycle(view: str | int | None) -> Lifecycle | None:
    """What a view type asks for; None for both. Raises InvalidInputError."""
    match view:
        case None | "" | "ACTIVE_ONLY" | 1:
            return "active"
        case "DELETED_ONLY" | 2:
            return "deleted"
        case "ALL" | 3:
            return None
    raise InvalidInputError(f"Invalid value '{view!s:.80}' for a view type supplied.")
