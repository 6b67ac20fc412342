"""What a controller orders from workers, and what they answer: both travel as JSON through the job queue."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from trimtab.loop.rollout import Measure
from trimtab.models.gates import AnyGate
from trimtab.models.reports import GateReport
from trimtab.models.versions import VersionRecord
from trimtab.monitoring.monitors import Finding


class IngestOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Look at the sources of a dataset and append what is new."""

    dataset: str


class LabelsOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Tell an endpoint the labels that came in as a version of its dataset of labels."""

    endpoint: str
    version: int


class TrainOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Run a loop's training pipeline. `as_of` is the run's event time, where the held-out rows begin;
    `dataset`, among `datasets`, is the one whose rows are profiled, and of which the share `held_out` is
    kept from the run."""

    loop: str
    cycle: str
    pipeline: str
    project: str
    params: dict[str, Any]
    dataset: str
    datasets: dict[str, int]
    as_of: datetime
    held_out: float = 0.0


class TrainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended. `digest`: the model's; `target`: what it says it predicts; `profile`: the digest of
    the profile of the rows that it was trained on; `failure`: what went wrong, where it did."""

    run_id: str
    digest: str = ""
    target: str = ""
    profile: str = ""
    record: VersionRecord = VersionRecord()
    failure: str = ""


class GatesOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Judge a candidate by the loop's gates, on held-out rows of the dataset. The fields are those of
    `trimtab.models.gate_evaluation.GatesRequest`, which takes Polars to load."""

    model: str
    digest: str
    champion: str | None
    gates: tuple[AnyGate, ...]
    dataset: str
    dataset_version: int
    target: str
    start: datetime | None
    end: datetime | None
    part: tuple[float, float] | None
    project: str


class GatesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The report; whoever ordered it stores it."""

    report: GateReport


class WatchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluate the monitors of a loop that need the user's code, as of a moment."""

    loop: str
    version: int
    moment: datetime


class WatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What they found."""

    findings: tuple[Finding, ...]


class MeasureOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Measure a challenger by a metric that needs the user's code, as of a moment."""

    cycle: str
    moment: datetime


class MeasureAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    measure: Measure


Order = IngestOrder | LabelsOrder | TrainOrder | GatesOrder | WatchOrder | MeasureOrder

KINDS: dict[type, str] = {
    IngestOrder: "loop.ingest",
    LabelsOrder: "loop.labels",
    TrainOrder: "loop.train",
    GatesOrder: "loop.gates",
    WatchOrder: "loop.watch",
    MeasureOrder: "loop.measure",
}
"""What each order is called in the job queue."""

HANDLERS = {
    "loop.ingest": "trimtab.loop.jobs:ingest",
    "loop.labels": "trimtab.loop.jobs:labels",
    "loop.train": "trimtab.loop.jobs:train",
    "loop.gates": "trimtab.loop.jobs:gates",
    "loop.watch": "trimtab.loop.jobs:watch",
    "loop.measure": "trimtab.loop.jobs:measure",
}
"""Which function of a worker does which kind of order."""

HOUR = 3600.0
LIMITS = {
    "loop.ingest": HOUR,
    "loop.labels": HOUR,
    "loop.gates": HOUR,
    "loop.watch": HOUR,
    "loop.measure": HOUR,
}
"""Seconds after which an order that should take moments is given up: a user's metric may never come back.
Training may take its time; its steps have time limits of their own."""
