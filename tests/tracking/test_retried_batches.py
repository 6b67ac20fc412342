"""A batch that a client sends again counts once, at a cost that does not grow with what was logged before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import START

from trimtab.clock import FixedClock
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.tracking.buffer import MetricBuffer
from trimtab.tracking.metrics import Batch, MetricWriter, Point, batch_of, pack
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

DAY = 86_400_000_000


@contextmanager
def counted(workspace: Workspace, run: str, batch: Batch, sequence: int) -> Iterator[dict[str, Any]]:
    """What a batch costs SQLite: its statements, and the instructions that its machine ran for them."""
    cost: dict[str, Any] = {"statements": [], "instructions": 0}
    driver: Any = None

    def one_more() -> int:
        cost["instructions"] += 1
        return 0

    def watch(tx: Transaction) -> None:
        nonlocal driver
        driver = tx.connection.connection.driver_connection
        driver.set_trace_callback(cost["statements"].append)
        driver.set_progress_handler(one_more, 1)

    writer = MetricWriter(workspace.database)
    try:
        writer.write(run, batch, sequence, actor="tester", also=watch)
    finally:
        driver.set_trace_callback(None)
        driver.set_progress_handler(None, 0)
    yield cost


def points(first: int, count: int) -> Batch:
    steps = list(range(first, first + count))
    return {"loss": pack(steps, [DAY + step for step in steps], [step / 7 for step in steps])}


def fill(workspace: Workspace, run: str, count: int) -> None:
    writer = MetricWriter(workspace.database)
    for first in range(0, count, 10_000):
        writer.write(run, points(first, min(10_000, count - first)), first, actor="tester")


def test_the_cost_of_a_retry_does_not_grow_with_the_history(workspace: Workspace) -> None:
    """As a server sees it: the same points again, which nothing marks as sent before."""
    costs = []
    for count in (1_000, 1_000_000):
        run = Tracking(workspace).start_run("bikes").id
        fill(workspace, run, count)
        with counted(workspace, run, points(count - 500, 500), 1) as cost:
            costs.append((len(cost["statements"]), cost["instructions"]))
        assert len(Tracking(workspace).metric_history(run, "loss")) == count
    small, large = costs
    assert large[0] == small[0] < 20
    assert large[1] < 2 * small[1] < 2000


def test_points_that_are_sent_again_count_once_however_they_are_batched(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes").id
    sent = [Point("loss", step / 3, step, START + timedelta(seconds=step)) for step in range(30)]
    for batch in (sent, sent, sent[10:20], [sent[3]], sent[::-1]):
        MetricWriter(any_workspace.database).write(run, batch_of(batch), 1, actor="tester")
    history = tracking.metric_history(run, "loss")
    assert [int(step) for step in history.steps] == list(range(30))
    assert tracking.metrics(run)["loss"].step == 29


def test_a_process_that_starts_after_the_clock_jumped_back_loses_and_reorders_nothing(tmp_path: Path) -> None:
    """Within a process time never goes back; from one to the next it may."""
    project = tmp_path / "project"
    late = START + timedelta(hours=2)
    with Workspace.create(project, actor="tester", clock=FixedClock(late)) as before:
        run = Tracking(before).start_run("bikes").id
        Tracking(before).log_metrics(run, [Point("loss", 1.0, step, late) for step in range(10)])
        Tracking(before).log_metrics(run, {"once": 1.0})
    with Workspace.open(project, actor="tester", clock=FixedClock(START)) as after:
        tracking = Tracking(after)
        with MetricBuffer(after, run) as buffer:
            for step in range(10, 20):
                buffer.take({"loss": 2.0}, step)
        tracking.log_metrics(run, {"once": 2.0})
        assert sorted(int(step) for step in tracking.metric_history(run, "loss").steps) == list(range(20))
        # The step says what is latest, the time only between points of one step: as in MLflow.
        assert (tracking.metrics(run)["loss"].step, tracking.metrics(run)["loss"].value) == (19, 2.0)
        assert tracking.metrics(run)["once"].value == 1.0
        assert len(tracking.metric_history(run, "once")) == 2
        assert tracking.finish_run(run).ended_at == START
        newer = tracking.start_run("bikes").id
        assert [found.id for found in tracking.search().runs] == [run, newer]
        with after.read() as connection:
            assert journal.verify(connection).entries > 0


@pytest.mark.parametrize("many", [1, 200])
def test_a_batch_takes_as_many_statements_for_many_points_as_for_one(workspace: Workspace, many: int) -> None:
    run = Tracking(workspace).start_run("bikes").id
    with counted(workspace, run, points(0, many), 1) as cost:
        assert len(cost["statements"]) < 20
