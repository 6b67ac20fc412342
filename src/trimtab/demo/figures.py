"""The figures of the report, computed from a workspace after its replay."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from trimtab.demo.chart import Mark
from trimtab.demo.driver import LOOP, REPLAY_FROM, TARGET
from trimtab.demo.example import DATASET, by_month
from trimtab.demo.report import CycleRow, mean_error, rmsle_by_month
from trimtab.loop.cycle import State
from trimtab.loop.loops import Loops, Why
from trimtab.models.model import Model
from trimtab.models.registry import Registry
from trimtab.pipelines.graph import Pipeline
from trimtab.pipelines.project import import_project_object
from trimtab.serving.columnar import feedback_table, prediction_table
from trimtab.store import journal
from trimtab.workspace import Workspace

REFIT_MONTHS = 8
"""Months of rows that the monthly refit learns from."""

_MARKS = {
    State.PROMOTED: "promotion",
    State.REJECTED: "rejection",
    State.ROLLED_BACK: "rollback",
}


def logged_outcomes(workspace: Workspace) -> pl.DataFrame:
    """The prediction log joined to the labels that were told: `id`, `at`, `prediction`, `label` (null where
    none was told)."""
    labels = workspace.tables.read(feedback_table(LOOP)).unique("id", keep="last").select("id", "label")
    logged = workspace.tables.read(prediction_table(LOOP)).select("id", "at", "prediction")
    return logged.join(labels, on="id", how="left").sort("at")


def served_errors(outcomes: pl.DataFrame) -> dict[str, float]:
    """The error by month of what was answered."""
    known = outcomes.drop_nulls("label")
    return rmsle_by_month(known["at"], known["label"].to_numpy(), known["prediction"].to_numpy())


def frozen_errors(workspace: Workspace, rentals: pl.DataFrame) -> dict[str, float]:
    """The error by month that version 1 would have had."""
    first = Registry(workspace).get_version(LOOP, 1)
    folder = workspace.cache / "models" / first.digest.removeprefix("b3:")
    workspace.blobs.fetch_tree(first.digest, folder)
    rows = rentals.filter(pl.col("at") >= REPLAY_FROM)
    return rmsle_by_month(rows["at"], rows[TARGET].to_numpy(), Model.load(folder).predict(rows))


def refit_errors(workspace: Workspace, rentals: pl.DataFrame) -> dict[str, float]:
    """The error by month of a model that is refitted each month, by the project's own pipeline, on the eight
    months before."""
    training = import_project_object(workspace.project, "loop:training")
    assert isinstance(training, Pipeline)
    errors: dict[str, float] = {}
    months = by_month(rentals)
    for place in range(REFIT_MONTHS, len(months)):
        rows = months[place]
        model = training.on({DATASET: pl.concat(months[place - REFIT_MONTHS : place])})
        errors |= rmsle_by_month(rows["at"], rows[TARGET].to_numpy(), model.predict(rows))
    return errors


def cycle_rows(workspace: Workspace) -> list[CycleRow]:
    """All cycles of the loop, oldest first."""
    loops = Loops(workspace)
    return [_cycle_row(loops.why(LOOP, cycle.number)) for cycle in reversed(loops.cycles(LOOP))]


def marks(workspace: Workspace) -> list[Mark]:
    """What the picture marks: alerts, cycles and how they ended."""
    found = []
    with workspace.read() as connection:
        for entry in journal.entries(connection, kind="alert", action="alert.opened"):
            kind = "drift" if entry.name.endswith("/drift") else "alert"
            found.append(Mark(kind, entry.at, entry.reason))
    for cycle in Loops(workspace).cycles(LOOP):
        found.append(Mark("cycle", cycle.triggered_at, f"cycle {cycle.number}: {cycle.reason}"))
        if cycle.state in _MARKS and cycle.finished_at is not None:
            words = f"cycle {cycle.number}, version {cycle.candidate}"
            found.append(Mark(_MARKS[cycle.state], cycle.finished_at, words))
    return found


def count(cycles: Sequence[CycleRow], outcome: State) -> int:
    """How many cycles ended so."""
    return sum(row.outcome == outcome.value for row in cycles)


def means(by_month: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean over months 10 to 24 of each line."""
    return {name: mean_error(errors) for name, errors in by_month.items()}


def labels_due(rentals: pl.DataFrame) -> int:
    """How many predictions were to be labelled: all, since the last label is told at the very end."""
    return rentals.filter(pl.col("at") >= REPLAY_FROM).height


def _cycle_row(why: Why) -> CycleRow:
    cycle = why.cycle
    return CycleRow(
        number=cycle.number,
        started=cycle.triggered_at.isoformat(),
        ended="" if cycle.finished_at is None else cycle.finished_at.isoformat(),
        trigger=cycle.trigger,
        version=cycle.candidate,
        reason=cycle.reason,
        outcome=cycle.state.value,
        because=why.moves[-1].reason,
    )
