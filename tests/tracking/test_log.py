from __future__ import annotations

import contextvars
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import pytest

from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from trimtab.store.database import Database, Transaction
from trimtab.tracking.buffer import MetricBuffer
from trimtab.tracking.log import active_run, active_run_id, log
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

T = TypeVar("T")


class Unreliable:
    """A metadata store that fails before or after it has committed, for as many writes as it is told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fail_before = 0
        self.fail_after = 0
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def write(self, work: Callable[[Transaction], T], *, actor: str) -> T:
        self.writes += 1
        if self.fail_before > 0:
            self.fail_before -= 1
            raise UnavailableError("It is away.")
        answer = self._database.write(work, actor=actor)
        if self.fail_after > 0:
            self.fail_after -= 1
            raise UnavailableError("The answer was lost.")
        return answer


def make_unreliable(workspace: Workspace) -> Unreliable:
    unreliable = Unreliable(workspace.database)
    workspace.database = cast("Database", unreliable)
    return unreliable


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def values(workspace: Workspace, run_id: str, key: str) -> list[float]:
    try:
        return [float(each) for each in Tracking(workspace).metric_history(run_id, key).values]
    except NotFoundError:
        return []


def test_what_is_logged_is_kept_with_its_steps(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    with active_run(any_workspace, run.id):
        assert active_run_id() == run.id
        for epoch in range(5):
            log({"val/auc": 0.5}, step=10 * epoch, loss=1 - epoch / 10)
        log(rmse=3, bias=np.float32(0.25), odd=math.nan)
        log(rmse=2)
    assert active_run_id() is None
    assert tracking.metric_history(run.id, "val/auc").steps.tolist() == [0, 10, 20, 30, 40]
    assert values(any_workspace, run.id, "loss") == [1.0, 0.9, 0.8, 0.7, 0.6]
    assert tracking.metric_history(run.id, "rmse").steps.tolist() == [0, 1]
    latest = tracking.metrics(run.id)
    assert latest["rmse"].value == 2
    assert latest["bias"].value == 0.25
    assert math.isnan(latest["odd"].value)


def test_without_an_active_run_the_error_says_what_to_do() -> None:
    with pytest.raises(ConflictError, match=r"no active run.*active_run\("):
        log(loss=1.0)


def test_an_inner_run_takes_what_is_logged_within_it(workspace: Workspace) -> None:
    tracking = Tracking(workspace)
    outer, inner = tracking.start_run("bikes"), tracking.start_run("bikes")
    with active_run(workspace, outer.id):
        log(loss=1)
        with active_run(workspace, inner.id):
            log(loss=2)
        log(loss=3)
    assert values(workspace, outer.id, "loss") == [1, 3]
    assert values(workspace, inner.id, "loss") == [2]


def test_values_become_durable_without_being_asked_to(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    with active_run(workspace, run.id):
        log(loss=1.0)
        wait_for(lambda: values(workspace, run.id, "loss") == [1.0])
        log(loss=2.0)
        wait_for(lambda: values(workspace, run.id, "loss") == [1.0, 2.0])


def test_many_calls_share_few_writes(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    counted = make_unreliable(workspace)
    with active_run(workspace, run.id):
        for number in range(20_000):
            log(loss=number)
    assert values(workspace, run.id, "loss") == list(range(20_000))
    assert counted.writes < 200


@pytest.mark.parametrize("kind", ["fail_before", "fail_after"])
def test_a_write_that_is_tried_again_counts_once(any_workspace: Workspace, kind: str) -> None:
    run = Tracking(any_workspace).start_run("bikes")
    unreliable = make_unreliable(any_workspace)
    with active_run(any_workspace, run.id):
        for number in range(30):
            setattr(unreliable, kind, 2 if number % 10 == 0 else 0)
            log(loss=1.0)  # the same value: a doubled batch would show as steps that repeat or go missing
            log({"count": number}, step=7)
            wait_for(lambda: len(values(any_workspace, run.id, "count")) == number + 1)  # noqa: B023
    history = Tracking(any_workspace).metric_history(run.id, "loss")
    assert history.steps.tolist() == list(range(30))
    assert values(any_workspace, run.id, "count") == list(range(30))


def test_threads_lose_nothing(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    with active_run(workspace, run.id):

        def logs(name: str) -> None:
            for number in range(5_000):
                log({name: number}, step=number)

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(logs, f"thread {index}"))
            for index in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for index in range(4):
        assert values(workspace, run.id, f"thread {index}") == list(range(5_000))


@pytest.mark.parametrize("bad", [{"loss": "high"}, {"": 1.0}, {"a\nb": 1.0}, {"loss": None}])
def test_what_cannot_be_logged_is_refused_by_the_call_itself(workspace: Workspace, bad: Any) -> None:
    run = Tracking(workspace).start_run("bikes")
    with active_run(workspace, run.id):
        with pytest.raises(InvalidInputError):
            log(bad)
        with pytest.raises(InvalidInputError, match="no step"):
            log(loss=1.0, step=1.5)  # type: ignore[arg-type]
        log(fine=1.0)
    assert Tracking(workspace).metrics(run.id).keys() == {"fine"}


def test_a_caller_may_reuse_the_dictionary_that_it_logged(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    metrics = {"loss": 1.0, "whole": 2}
    with active_run(workspace, run.id):
        log(metrics)
        metrics["loss"] = 5.0
    assert metrics == {"loss": 5.0, "whole": 2}
    assert values(workspace, run.id, "loss") == [1.0]


def test_a_run_that_is_deleted_meanwhile_is_told_to_the_next_call(workspace: Workspace) -> None:
    tracking = Tracking(workspace)
    run = tracking.start_run("bikes")
    buffer = MetricBuffer(workspace, run.id)
    tracking.delete_run(run.id)
    buffer.take({"loss": 1.0})
    with pytest.raises(ConflictError, match="was deleted"):
        buffer.flush()
    with pytest.raises(ConflictError, match="was deleted"):
        buffer.take({"loss": 1.0})
    with pytest.raises(ConflictError, match="was deleted"):
        buffer.close()


def test_the_first_error_of_a_step_is_the_one_that_is_seen(workspace: Workspace) -> None:
    tracking = Tracking(workspace)
    run = tracking.start_run("bikes")

    def step() -> None:
        with active_run(workspace, run.id):
            tracking.delete_run(run.id)
            log(loss=1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        step()
    assert "were not written" in caught.value.__notes__[0]


def test_a_closed_log_takes_no_more(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    buffer = MetricBuffer(workspace, run.id)
    buffer.take({"loss": 1.0})
    buffer.close()
    buffer.close()
    with pytest.raises(ConflictError, match="closed"):
        buffer.take({"loss": 2.0})
    assert values(workspace, run.id, "loss") == [1.0]


SCRIPT = """
import sys, time
from pathlib import Path
from trimtab.tracking.buffer import MetricBuffer
from trimtab.workspace import Workspace

workspace = Workspace.open(Path(sys.argv[1]), actor="child")
buffer = MetricBuffer(workspace, sys.argv[2])
"""


def run_script(workspace: Workspace, run_id: str, rest: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + rest, str(workspace.project), run_id],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_process_that_just_ends_has_written_all_that_it_logged(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    with run_script(workspace, run.id, "for i in range(1000): buffer.take({'loss': i})") as child:
        assert child.wait(60) == 0
    assert values(workspace, run.id, "loss") == list(range(1000))


def test_a_killed_process_has_written_what_it_logged_a_moment_before(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    script = """
for i in range(100): buffer.take({'loss': i})
buffer.flush()
print('durable', flush=True)
while True:
    buffer.take({'more': 1.0})
    time.sleep(0.001)
"""
    with run_script(workspace, run.id, script) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "durable\n"
        wait_for(lambda: len(values(workspace, run.id, "more")) > 3)
        child.send_signal(signal.SIGKILL)
    assert values(workspace, run.id, "loss") == list(range(100))
    steps = Tracking(workspace).metric_history(run.id, "more").steps
    assert steps.tolist() == list(range(len(steps)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_told_to_open_the_run_itself(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child() -> None:
        try:
            log(loss=2.0)
        except ConflictError as error:
            answers.put(str(error))
        os._exit(0)

    with active_run(workspace, run.id):
        log(loss=1.0)
        process = context.Process(target=child)
        process.start()
        assert "was forked" in answers.get()
        process.join()
    assert values(workspace, run.id, "loss") == [1.0]


def test_a_value_that_is_logged_many_times_is_kept_as_many_times(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes")
    with active_run(workspace, run.id):
        for _ in range(100):
            log(loss=1.0)
    assert len(values(workspace, run.id, "loss")) == 100
