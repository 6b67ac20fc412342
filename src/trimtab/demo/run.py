"""`trimtab demo` from its first step to its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from trimtab.demo import figures
from trimtab.demo.driver import REPLAY_FROM, Driver, Progress
from trimtab.demo.example import load_rentals
from trimtab.demo.memory import PeakMemory
from trimtab.demo.report import Report, write_report
from trimtab.demo.setup import make_project, prepare
from trimtab.errors import JournalBrokenError
from trimtab.loop.cycle import State
from trimtab.loop.loops import Loops
from trimtab.monitoring.alerts import Alerts
from trimtab.server.supervisor import Address, Supervisor
from trimtab.serving.shipping import ship_all
from trimtab.store import journal
from trimtab.workspace import Workspace

ACTOR = "demo"


def run_demo(folder: Path, *, say: Callable[[str], None], tell: Callable[[Progress, int], None]) -> Report:
    """Make the project in `folder`, replay, and write `report.json` and `report.html` there.

    `say` is told each stage in a line; `tell` the progress after each day of event time, with the number of
    requests that there will be. Raises ConflictError if the folder holds something else.
    """
    started = time.monotonic()
    memory = PeakMemory()
    rentals = load_rentals()
    make_project(folder)
    with memory.watching(), Workspace.create(folder, actor=ACTOR) as workspace:
        say("the first eight months are appended, checked against the contract; the loop is applied")
        prepare(workspace)
        supervisor = Supervisor(folder, Address.unused(), report=say)
        with supervisor.running():
            say("server, gateway, worker and controller are ready; the replay begins")
            driver = Driver(workspace, supervisor, rentals)
            requests = rentals.filter(pl.col("at") >= REPLAY_FROM).height
            driver.run(lambda progress: tell(progress, requests))
            say("the prediction log is shipped")
            ship_all(workspace)
            restarts = supervisor.roles["controller"].restarts
        say("the report is computed")
        report = _report(workspace, rentals, driver, restarts, started, memory)
        write_report(report, figures.marks(workspace), folder)
    return report


def _report(
    workspace: Workspace,
    rentals: pl.DataFrame,
    driver: Driver,
    restarts: int,
    started: float,
    memory: PeakMemory,
) -> Report:
    outcomes = figures.logged_outcomes(workspace)
    errors = {
        "frozen": figures.frozen_errors(workspace, rentals),
        "served": figures.served_errors(outcomes),
        "monthly_refit": figures.refit_errors(workspace, rentals),
    }
    cycles = figures.cycle_rows(workspace)
    killed = None if not driver.killed_cycle else Loops(workspace).why("bikes", driver.killed_cycle).cycle
    entries, verified = _verified(workspace)
    return Report(
        rmsle_by_month=errors,
        rmsle_mean=figures.means(errors),
        promotions=figures.count(cycles, State.PROMOTED),
        rejections=figures.count(cycles, State.REJECTED),
        rollbacks=figures.count(cycles, State.ROLLED_BACK),
        cycles=cycles,
        alerts=len(Alerts(workspace).alerts(limit=10_000)),
        predictions_acknowledged=driver.acknowledged,
        predictions_logged=outcomes["id"].n_unique(),
        labels_joined=outcomes["label"].drop_nulls().len(),
        labels_due=figures.labels_due(rentals),
        journal_entries=entries,
        journal_verified=verified,
        controller_kills=int(killed is not None),
        controller_restarts=restarts,
        cycle_finished_after_kill="" if killed is None else f"{killed.id}: {killed.state.value}",
        seconds=round(time.monotonic() - started, 1),
        peak_rss_mb=round(memory.peak_mb, 1),
        replayed_from=REPLAY_FROM.isoformat(),
        replayed_to=workspace.clock.now().isoformat(),
    )


def _verified(workspace: Workspace) -> tuple[int, bool]:
    with workspace.read() as connection:
        try:
            return journal.verify(connection).entries, True
        except JournalBrokenError:
            return sum(1 for _ in journal.entries(connection)), False
