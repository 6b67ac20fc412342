from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from tests.loop.scene import NAME, START, declared, fit

import trimtab as tt
from trimtab.clock import FixedClock
from trimtab.data.datasets import Datasets
from trimtab.errors import InvalidInputError
from trimtab.loop.controller import Controller
from trimtab.loop.intake import data_time, held_out_share
from trimtab.loop.loops import Loops
from trimtab.loop.orders import HANDLERS
from trimtab.pipelines.jobs import Jobs
from trimtab.workspace import Workspace

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TEN_DAYS = tt.last(days=10)


@tt.pipeline
def on_everything(rate: float = 0.1) -> tt.Model:
    """A pipeline that asks for no span of time."""
    return fit(tt.dataset("rentals").window(tt.everything()), rate=rate)


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(days=9), timedelta(days=10), -timedelta(days=3)])
def test_windows_count_from_now_while_rows_reach_into_the_hold_out(ago: timedelta) -> None:
    assert data_time(NOW, NOW - ago, TEN_DAYS) == NOW


@pytest.mark.parametrize("ago", [timedelta(days=10, seconds=1), timedelta(days=5000)])
def test_windows_count_from_the_end_of_data_that_ended_before(ago: timedelta) -> None:
    newest = NOW - ago
    as_of = data_time(NOW, newest, TEN_DAYS)
    assert as_of == newest + MICROSECOND
    start, end = TEN_DAYS.bounds(as_of)
    assert start is not None
    assert end is not None
    assert start <= newest < end


def test_where_a_share_is_held_out_windows_count_from_the_end_of_the_data() -> None:
    newest = NOW - timedelta(days=1)
    assert data_time(NOW, newest, tt.share(0.1)) == newest + MICROSECOND
    assert data_time(NOW, NOW + timedelta(days=1), tt.share(0.1)) == NOW
    assert data_time(NOW, None, tt.share(0.1)) == NOW


def test_only_a_share_is_kept_from_training_by_number() -> None:
    assert held_out_share(tt.share(0.25)) == 0.25
    assert held_out_share(TEN_DAYS) == 0


def timeless(folder: Path, time: str | None = None) -> Workspace:
    workspace = Workspace.create(folder / "project", clock=FixedClock(START))
    datasets = Datasets(workspace)
    datasets.create("rentals", time=time)
    at = [START - timedelta(days=1000 + day) for day in range(100)]
    datasets.append("rentals", pl.DataFrame({"at": at, "cnt": range(100)}), key="history")
    return workspace


def test_a_dataset_without_time_cannot_hold_out_its_last_days(tmp_path: Path) -> None:
    with timeless(tmp_path) as workspace:
        with pytest.raises(InvalidInputError, match=r"no time column.*tt\.share\(0\.1\)"):
            Loops(workspace).apply(declared())
        with pytest.raises(InvalidInputError, match="leaves none to train on"):
            Loops(workspace).apply(declared(holdout=tt.everything()))
        assert not Loops(workspace).list()


def orders(workspace: Workspace) -> list[dict[str, object]]:
    """What the first cycle orders."""
    controller = Controller(workspace)
    while controller.reconcile():
        pass
    controller.close()
    return [job.spec for job in Jobs(workspace).list() if job.kind in HANDLERS and isinstance(job.spec, dict)]


def test_a_cycle_keeps_the_share_that_its_loop_holds_out_from_training(tmp_path: Path) -> None:
    with timeless(tmp_path) as workspace:
        Loops(workspace).apply(declared(train=on_everything, holdout=tt.share(0.2)))
        (order,) = orders(workspace)
        assert order["held_out"] == 0.2
        assert Loops(workspace).active_cycle(NAME) is not None


def test_a_cycle_on_old_data_trains_up_to_its_last_days(tmp_path: Path) -> None:
    with timeless(tmp_path, time="at") as workspace:
        Loops(workspace).apply(declared())
        (order,) = orders(workspace)
        newest = START - timedelta(days=1000)
        assert order["as_of"] == (newest + MICROSECOND - timedelta(days=5)).isoformat().replace("+00:00", "Z")
        cycle = Loops(workspace).active_cycle(NAME)
        assert cycle is not None
        assert cycle.as_of == newest + MICROSECOND
