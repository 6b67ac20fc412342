"""What is kept of each step of each run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, cast

import msgspec
from sqlalchemy import Connection, select

from trimtab.pipelines.schema import step_runs_table as step_runs
from trimtab.pipelines.values import Stored
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert

StepStatus = Literal["running", "finished", "cached", "failed"]


class StepInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input of a step: its digest, and for rows of a dataset which version and span of event time."""

    digest: str
    dataset: str | None = None
    version: int | None = None
    start: datetime | None = None
    end: datetime | None = None

    def __str__(self) -> str:
        if self.dataset is None:
            return self.digest[:15]
        start = "" if self.start is None else f" from {self.start.isoformat()}"
        end = "" if self.end is None else f" to {self.end.isoformat()}"
        return f"dataset '{self.dataset}' version {self.version}{start}{end}"


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """One step in one run. Times are event times, `seconds` is what the last attempt took."""

    run_id: str
    node: str
    step: str
    position: int
    status: StepStatus
    attempts: int
    cache_key: str
    inputs: dict[str, StepInput]
    output: Stored | None = None
    output_digest: str | None = None
    log_digest: str | None = None
    started_at: datetime
    ended_at: datetime | None = None
    seconds: float | None = None
    error: str = ""


def record(tx: Transaction, found: Sequence[StepRun]) -> None:
    """Write the state of steps; a later state replaces an earlier one."""
    rows: list[dict[str, Any]] = [
        {name: getattr(step, name) for name in StepRun.__struct_fields__} for step in found
    ]
    upsert(tx, step_runs, rows, keys=["run_id", "node"])


def list_steps(connection: Connection, run_id: str) -> list[StepRun]:
    """The steps of a run, in the order of its graph."""
    query = select(step_runs).where(step_runs.c.run_id == run_id).order_by(step_runs.c.position)
    return [_step_run(row) for row in connection.execute(query).mappings()]


def _step_run(row: Any) -> StepRun:
    values = dict(row)
    values["inputs"] = msgspec.convert(values["inputs"], dict[str, StepInput])
    if values["output"] is not None:
        values["output"] = cast("Stored", msgspec.convert(values["output"], Stored))
    return StepRun(**values)
