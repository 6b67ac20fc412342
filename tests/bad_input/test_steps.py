"""A training step that raises, hangs or is killed: what becomes of the cycle, the registry and the worker."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from trimtab.data.datasets import Datasets
from trimtab.loop.applying import apply_reference
from trimtab.loop.controller import Controller
from trimtab.loop.cycle import Cycle
from trimtab.loop.loops import Loops
from trimtab.models.registry import Registry
from trimtab.monitoring.alerts import Alerts
from trimtab.serving.endpoints import Endpoints
from trimtab.store import journal
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

PATIENCE = 60.0

LOOP = """
import os, signal, time

import lightgbm as lgb
import polars as pl

import trimtab as tt


@tt.step(timeout=2)
def train(rows: pl.DataFrame, *, how: str) -> tt.Model:
    print(f"about to {how}", flush=True)
    if how == "raise":
        raise ZeroDivisionError("no row has a weight")
    if how == "hang":
        time.sleep(1000)
    if how == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    inputs = tt.inputs(rows, ["x"])
    data = lgb.Dataset(inputs.matrix(rows), rows["y"].to_numpy())
    return tt.Model.lightgbm(lgb.train({"verbose": -1, "num_threads": 1}, data, 5), inputs, target="y")


@tt.pipeline
def training(how: str = "raise") -> tt.Model:
    return train(tt.dataset("rows").window(tt.last(days=30)), how=how)


loop = tt.Loop(
    "sums", train=training, gates=[tt.gates.Signature(), tt.gates.Metric("rmse", max=100)], metric="rmse",
    holdout=tt.last(days=2), budget=tt.Budget(cycles_per_day=9, cooldown="0h"), mode="auto",
)
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Workspace]:
    """The loop above, with rows up to now and a worker process."""
    with Workspace.create(tmp_path / "project", actor="ada") as workspace:
        (workspace.project / "loop.py").write_text(LOOP)
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        at = [now - timedelta(hours=hour) for hour in range(24 * 20)]
        rows = pl.DataFrame({"at": at, "x": [float(hour % 7) for hour in range(len(at))]})
        Datasets(workspace).create("rows", time="at")
        Datasets(workspace).append("rows", rows.with_columns(y=pl.col("x") * 2), key="history")
        apply_reference(workspace, "loop:loop")
        command = [sys.executable, "-m", "trimtab.server.roles", "worker", "--dir", str(workspace.project)]
        unused = ["--host", "127.0.0.1", "--port", "0", "--gateway-port", "0"]
        with subprocess.Popen([*command, *unused], stderr=subprocess.DEVNULL) as worker:
            yield workspace
            assert worker.poll() is None, "the worker died of it"
            worker.terminate()


def finished(workspace: Workspace, number: int) -> Cycle:
    """The loop's cycle of this number, once it has ended."""
    controller = Controller(workspace)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        controller.reconcile()
        cycles = Loops(workspace).cycles("sums")
        if cycles and cycles[0].number == number and cycles[0].state.final:
            controller.close()
            return cycles[0]
        time.sleep(0.05)
    raise AssertionError("the cycle does not end")


def test_a_step_that_fails_ends_its_cycle_with_the_reason_and_nothing_else(project: Workspace) -> None:
    loops, registry = Loops(project), Registry(project)
    failures = {
        "raise": ("ZeroDivisionError: no row has a weight", "loop.py"),
        "hang": ("about to hang", "2"),
        "be killed": ("SIGKILL", "about to be killed"),
    }
    for number, (how, words) in enumerate(failures.items(), 1):
        if number > 1:
            loops.trigger("sums", params={"how": how})
        cycle = finished(project, number)
        assert cycle.state.value == "failed"
        reason = loops.why("sums", number).moves[-1].reason
        for word in ("train", *words):
            assert word in reason
        assert not registry.versions("sums")
        assert Endpoints(project).route("sums") is None
        assert Alerts(project).alerts("sums", limit=1)[0].name == "failure"
        evidence = loops.why("sums", number).moves[-1].evidence
        assert isinstance(evidence, dict)
        assert Tracking(project).get_run(evidence["run"]).status == "FAILED"
    loops.trigger("sums", params={"how": "work"})
    assert finished(project, 4).state.value == "promoted"
    with project.read() as connection:
        journal.verify(connection)
