"""The main job: real roles, real traffic, and a loop that is left to itself."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl
import pytest

from trimtab.demo.driver import LOOP, Driver, Progress
from trimtab.demo.example import load_rentals
from trimtab.demo.figures import logged_outcomes
from trimtab.demo.report import Report
from trimtab.demo.setup import make_project, prepare
from trimtab.errors import ConflictError
from trimtab.loop.cycle import State
from trimtab.loop.loops import Loops
from trimtab.models.registry import Registry
from trimtab.server.supervisor import Address, Supervisor
from trimtab.serving.shipping import ship_all
from trimtab.store import journal
from trimtab.workspace import Workspace


@pytest.mark.timeout(600)
def test_a_fortnight_of_bias_ends_in_a_promotion_with_every_prediction_joined(tmp_path: Path) -> None:
    rentals = load_rentals().filter(pl.col("at") < datetime(2011, 9, 17, tzinfo=UTC))
    make_project(tmp_path / "demo")
    told: list[Progress] = []
    with Workspace.create(tmp_path / "demo", actor="test") as workspace:
        prepare(workspace)
        supervisor = Supervisor(tmp_path / "demo", Address.unused(), report=lambda _: None)
        with supervisor.running(timeout=120):
            driver = Driver(workspace, supervisor, rentals)
            driver.run(told.append)
            ship_all(workspace)
        cycles = Loops(workspace).cycles(LOOP)
        outcomes = logged_outcomes(workspace)
        with workspace.read() as connection:
            assert journal.verify(connection).entries > 20
        champion = Registry(workspace).champion(LOOP)
        why = Loops(workspace).why(LOOP, 2)
    assert [cycle.state for cycle in cycles] == [State.PROMOTED, State.PROMOTED]
    assert champion is not None
    assert champion.version == 2
    assert [move.to_state for move in why.moves][-5:] == ["shadow", "canary", "canary", "canary", "promoted"]
    assert driver.acknowledged == outcomes.height == outcomes["id"].n_unique() == told[-1].requests
    assert outcomes["label"].null_count() == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_demo_shows_what_it_promises(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", "demo", "--dir", str(tmp_path / "demo"), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["rmsle_mean"]["served"] <= 0.44 < 0.55 < report["rmsle_mean"]["frozen"]
    assert (
        report["predictions_acknowledged"] == report["predictions_logged"] == report["labels_joined"] > 11_000
    )
    assert report["promotions"] <= 12
    assert report["cycle_finished_after_kill"]
    assert "<svg" in (tmp_path / "demo" / "report.html").read_text()


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConflictError, match="not empty"):
        make_project(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_report_that_falls_short_says_in_what(report: Report) -> None:
    assert report.failures() == []
    poor = msgspec.structs.replace(report, rmsle_mean={**report.rmsle_mean, "served": 0.45}, labels_joined=1)
    assert [words.partition(",")[0] for words in poor.failures()] == [
        "served a mean RMSLE of 0.450",
        "some predictions are not joined to their label",
    ]


@pytest.fixture
def report() -> Report:
    month = {"2011-10": 0.4}
    return Report(
        rmsle_by_month={"frozen": month, "served": month, "monthly_refit": month},
        rmsle_mean={"frozen": 0.6, "served": 0.4, "monthly_refit": 0.4},
        promotions=9,
        rejections=1,
        rollbacks=1,
        cycles=[],
        alerts=1,
        predictions_acknowledged=2,
        predictions_logged=2,
        labels_joined=2,
        labels_due=2,
        journal_entries=1,
        journal_verified=True,
        controller_kills=1,
        controller_restarts=1,
        cycle_finished_after_kill="bikes-5: promoted",
        seconds=1.0,
        peak_rss_mb=1.0,
        replayed_from="2011-09-01",
        replayed_to="2013-01-01",
    )
