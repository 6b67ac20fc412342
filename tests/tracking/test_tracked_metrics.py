from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.tracking.metrics import MetricWriter, Point, batch_of
from trimtab.tracking.schema import metric_chunks_table
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

START = datetime(2011, 9, 1, tzinfo=UTC)


def point(value: float, step: int, seconds: float = 0, key: str = "loss") -> Point:
    return Point(key, value, step, START + timedelta(seconds=seconds))


def test_a_history_has_all_points_in_order_of_time(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    tracking.log_metrics(run.id, [point(0.5, 2, 20), point(9.0, 0, 0, "other")])
    tracking.log_metrics(run.id, [point(0.9, 0, 0), point(0.7, 1, 10), point(-1.5, -7, 30)])
    history = tracking.metric_history(run.id, "loss")
    assert history.values.tolist() == [0.9, 0.7, 0.5, -1.5]
    assert history.steps.tolist() == [0, 1, 2, -7]
    assert np.diff(history.times).tolist() == [10_000_000] * 3
    with pytest.raises(NotFoundError, match="no metric 'los'"):
        tracking.metric_history(run.id, "los")
    with pytest.raises(NotFoundError):
        tracking.metric_history(tracking.start_run("bikes").id, "loss")


def test_a_history_is_read_by_range_of_steps(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    for start in range(0, 100, 10):
        tracking.log_metrics(run.id, [point(step, step, step) for step in range(start, start + 10)])
    some = tracking.metric_history(run.id, "loss", first_step=15, last_step=32)
    assert some.steps.tolist() == list(range(15, 33))
    assert len(tracking.metric_history(run.id, "loss", first_step=95)) == 5
    assert len(tracking.metric_history(run.id, "loss", last_step=-1)) == 0


def test_nan_and_infinities_are_kept(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    odd = [math.nan, math.inf, -math.inf, -0.0, 5e-324]
    tracking.log_metrics(run.id, [point(value, step, step) for step, value in enumerate(odd)])
    assert np.array_equal(tracking.metric_history(run.id, "loss").values, odd, equal_nan=True)
    for value in odd:
        tracking.log_metrics(run.id, {f"only {value}": value})
        kept = tracking.metrics(run.id)[f"only {value}"].value
        assert kept == value or (math.isnan(kept) and math.isnan(value))


def test_the_latest_value_is_that_of_the_highest_step_then_time_then_value(
    any_workspace: Workspace,
) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")

    def latest_after(*points: Point) -> float:
        tracking.log_metrics(run.id, points)
        return tracking.metrics(run.id)["loss"].value

    assert latest_after(point(1, 5), point(2, 4, 99)) == 1
    assert latest_after(point(3, 4, 999)) == 1
    assert latest_after(point(4, 5, 1)) == 4
    assert latest_after(point(3, 5, 1), point(math.nan, 5, 1)) == 4
    assert latest_after(point(5, 5, 1)) == 5
    assert math.isnan(latest_after(point(math.nan, 6)))
    assert latest_after(point(-9, 6)) == -9


@given(
    batches=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b"]),
                st.floats(width=16),
                st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
                st.integers(0, 3),
            ),
            max_size=6,
        ),
        max_size=6,
    ),
    data=st.data(),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_the_set_of_what_was_logged_however_often_batches_are_repeated(
    any_workspace: Workspace, batches: list[list[tuple[str, float, int, int]]], data: st.DataObject
) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    writer = MetricWriter(any_workspace.database)
    said: dict[str, set[tuple[int, int, float]]] = {}
    for sequence, rows in enumerate(batches):
        batch = batch_of(
            Point(key, value, step, START + timedelta(microseconds=at)) for key, value, step, at in rows
        )
        for _ in range(data.draw(st.integers(1, 3))):
            writer.write(run.id, batch, sequence, actor="tester")
        for key, value, step, at in rows:
            # All NaN count as one value here, as they do in the history.
            said.setdefault(key, set()).add((at, step, math.inf if math.isnan(value) else value))
    kept = tracking.metrics(run.id)
    assert kept.keys() == said.keys()
    for key, points in said.items():
        history = tracking.metric_history(run.id, key)
        read = zip(history.times, history.steps, history.values, strict=True)
        offset = int(START.timestamp()) * 10**6
        found = [
            (int(time) - offset, int(step), math.inf if math.isnan(value) else float(value))
            for time, step, value in read
        ]
        assert set(found) == points
        assert [each[:2] for each in found] == sorted(each[:2] for each in found)
        step, at = max((step, at) for at, step, _ in points)
        assert (kept[key].step, kept[key].at) == (step, START + timedelta(microseconds=at))


def test_a_batch_that_is_sent_again_adds_no_row(any_workspace: Workspace) -> None:
    run = Tracking(any_workspace).start_run("bikes")
    writer = MetricWriter(any_workspace.database)
    for sequence in (1, 1, 2, 1, 2):
        writer.write(run.id, batch_of([point(1, 1), point(2, 2, key="b")]), sequence, actor="tester")
    other = MetricWriter(any_workspace.database)
    other.write(run.id, batch_of([point(1, 1)]), 1, actor="tester")
    with any_workspace.read() as connection:
        assert connection.execute(select(func.count()).select_from(metric_chunks_table)).scalar() == 5


def test_a_run_keeps_thousands_of_metric_keys(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    tracking.log_metrics(run.id, {f"layer/{number}": number for number in range(12_000)})
    assert len(tracking.metrics(run.id)) == 12_000
    assert tracking.metric_history(run.id, "layer/11999").values.tolist() == [11999]


@pytest.mark.parametrize("value", ["1.5", b"1", None, [1.0], 1j, 10**400])
def test_what_is_no_number_is_refused(workspace: Workspace, value: Any) -> None:
    tracking = Tracking(workspace)
    run = tracking.start_run("bikes")
    with pytest.raises(InvalidInputError, match="no number"):
        tracking.log_metrics(run.id, {"good": 1.0, "bad": value})
    assert tracking.metrics(run.id) == {}


@pytest.mark.parametrize("step", [1.5, "1", 2**63, None])
def test_what_is_no_step_is_refused(workspace: Workspace, step: Any) -> None:
    tracking = Tracking(workspace)
    run = tracking.start_run("bikes")
    with pytest.raises(InvalidInputError, match="no step"):
        tracking.log_metrics(run.id, [point(1.0, step)])


def test_numbers_and_steps_of_numpy_are_taken(workspace: Workspace) -> None:
    tracking = Tracking(workspace)
    run = tracking.start_run("bikes")
    for value, step in itertools.product((np.float32(1.5), np.int8(3), True), (np.int64(4), 5)):
        tracking.log_metrics(run.id, [point(value, step)])  # type: ignore[arg-type]
    assert len(tracking.metric_history(run.id, "loss")) == 6


def test_logging_to_an_unknown_run_is_refused(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="no run"):
        Tracking(workspace).log_metrics("c" * 32, {"loss": 1.0})
