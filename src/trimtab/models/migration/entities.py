"""What is read from an MLflow store. Times are milliseconds since 1970, as MLflow has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from trimtab.tracking.experiments import Lifecycle
from trimtab.tracking.inputs import ModelUse, RunDataset
from trimtab.tracking.logged_models import ModelMetric
from trimtab.tracking.logged_models import Status as ModelStatus


class SourceExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment."""

    id: str
    name: str
    lifecycle: Lifecycle
    created_at: int
    updated_at: int
    tags: dict[str, str]


class SourceRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run without its metrics. `artifacts` is the address of its files; `keys` names its metrics, where
    the source needs to be asked for each."""

    id: str
    experiment: str
    name: str
    status: str
    lifecycle: Lifecycle
    user: str
    started_at: int
    ended_at: int | None
    deleted_at: int | None = None
    artifacts: str
    params: dict[str, str]
    tags: dict[str, str]
    datasets: tuple[RunDataset, ...] = ()
    models: tuple[ModelUse, ...] = ()
    keys: tuple[str, ...] = ()


class SourcePoints(msgspec.Struct, frozen=True):
    """Some points of one metric as columns: steps, times, values."""

    key: str
    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]


class SourceLoggedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A logged model; `artifacts` is the address of its files."""

    id: str
    experiment: str
    name: str
    type: str
    status: ModelStatus
    lifecycle: Lifecycle
    run: str | None
    created_at: int
    updated_at: int
    artifacts: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: tuple[ModelMetric, ...]


class SourceVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a registered model. `source` is what was registered, `content` where its files are."""

    version: int
    created_at: int
    description: str
    user: str
    stage: str
    source: str
    content: str
    run: str | None
    tags: dict[str, str]


class SourceRegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    """A registered model with its versions, the lowest first. `next_version` is above all that were given."""

    name: str
    description: str
    created_at: int
    updated_at: int
    tags: dict[str, str]
    aliases: dict[str, int]
    versions: tuple[SourceVersion, ...]
    next_version: int


Owner = Literal["runs", "logged-models"]
"""What has artifacts."""

PROMPT_TAG = "mlflow.prompt.is_prompt"
"""The tag of a registered model that is a prompt."""
