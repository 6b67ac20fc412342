"""Monitors judge by what is stored, say by which numbers, and say so when there is too little."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from trimtab.data.profiles import Profile
from trimtab.monitoring.evaluation import Subject, evaluate
from trimtab.monitoring.live_profiles import LATENCY, LiveProfiles, count_service, merge_profile
from trimtab.monitoring.monitors import Bias, Drift, Monitor, Performance, ServiceLevel
from trimtab.monitoring.outcomes import LabelRecord, PredictionRecord, record_labels, record_predictions
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

START = datetime(2011, 9, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def subject(reference: pl.DataFrame | None = None, since: datetime | None = START) -> Subject:
    return Subject(
        endpoint="bikes",
        champion=1,
        champion_since=since,
        reference=None if reference is None else Profile.of(reference),
    )


def serve(
    workspace: Workspace,
    answers: Sequence[float],
    labels: Sequence[float],
    *,
    start: datetime = START,
    version: int = 1,
    scores: Sequence[dict[int, float | None]] | None = None,
) -> None:
    ids = [f"{start:%m%d}-{version}-{number}" for number in range(len(answers))]
    at = [to_microseconds(start + number * HOUR) for number in range(len(answers))]
    predictions = [
        PredictionRecord(
            id=ids[n],
            endpoint="bikes",
            at=at[n],
            key=None,
            version=version,
            answer=answers[n],
            scores={version: answers[n]} if scores is None else scores[n],
        )
        for n in range(len(answers))
    ]
    told = [
        LabelRecord(endpoint="bikes", label=value, labelled_at=at[n], id=ids[n])
        for n, value in enumerate(labels)
        if not np.isnan(value)
    ]

    def work(tx: object) -> None:
        record_predictions(tx, predictions)  # type: ignore[arg-type]
        record_labels(tx, told)  # type: ignore[arg-type]

    workspace.write(work)


def ask(workspace: Workspace, rows: pl.DataFrame, at: datetime = START) -> None:
    workspace.write(lambda tx: merge_profile(tx, "bikes", 1, at, Profile.of(rows), rows.height))


def test_bias_alerts_on_either_side_and_only_beyond_its_limit(workspace: Workspace) -> None:
    serve(workspace, [12.0] * 100, [10.0] * 100)
    at = START + 7 * DAY
    found = evaluate(workspace, subject(), Bias(max_abs=1.5), at)
    assert (found.status, found.numbers["value"], found.numbers["labels"]) == ("alert", 2.0, 100)
    assert evaluate(workspace, subject(), Bias(max_abs=2.0), at).status == "ok"
    log = evaluate(workspace, subject(), Bias(max_abs=0.1, log=True), at)
    assert log.numbers["value"] == pytest.approx(np.log(13 / 11))
    assert (log.monitor, log.status) == ("log bias", "alert")


def test_labels_that_have_not_come_do_not_count(workspace: Workspace) -> None:
    serve(workspace, [12.0] * 120, [10.0] * 99 + [float("nan")] * 21)
    found = evaluate(workspace, subject(), Bias(max_abs=0.1), START + 7 * DAY)
    assert (found.status, found.numbers) == ("insufficient", {"labels": 99, "needed": 100})


def test_only_the_window_counts(workspace: Workspace) -> None:
    serve(workspace, [99.0] * 100, [10.0] * 100)
    serve(workspace, [10.0] * 100, [10.0] * 100, start=START + 10 * DAY)
    found = evaluate(workspace, subject(), Bias(max_abs=1.0), START + 15 * DAY)
    assert (found.status, found.numbers["labels"]) == ("ok", 100)


def test_the_champion_is_judged_by_what_it_said_itself_where_a_challenger_answered(
    workspace: Workspace,
) -> None:
    serve(workspace, [50.0] * 100, [10.0] * 100, version=2, scores=[{1: 10.0, 2: 50.0} for _ in range(100)])
    assert evaluate(workspace, subject(), Bias(max_abs=1.0), START + 7 * DAY).numbers["value"] == 0.0


def test_performance_alerts_at_an_absolute_limit(workspace: Workspace) -> None:
    serve(workspace, [13.0] * 100, [10.0] * 100)
    at = START + 7 * DAY
    assert evaluate(workspace, subject(), Performance("rmse", max=2.9), at).status == "alert"
    found = evaluate(workspace, subject(), Performance("rmse", max=3.1), at)
    assert found.status == "ok"
    assert found.numbers["value"] == pytest.approx(3.0)
    assert evaluate(workspace, subject(), Performance("r2", min=0.5), at).status == "insufficient"


@pytest.mark.parametrize(("name", "expected"), [("rmse", "alert"), ("mae", "alert")])
def test_performance_alerts_when_it_got_worse_than_in_the_champions_first_days(
    workspace: Workspace, name: str, expected: str
) -> None:
    serve(workspace, [11.0] * 100, [10.0] * 100)
    serve(workspace, [13.0] * 100, [10.0] * 100, start=START + 10 * DAY)
    at = START + 16 * DAY
    found = evaluate(workspace, subject(), Performance(name, drop=1.5), at)
    assert found.status == expected
    assert found.numbers["worse by"] == pytest.approx(2.0)
    assert evaluate(workspace, subject(), Performance(name, drop=2.5), at).status == "ok"
    assert evaluate(workspace, subject(since=None), Performance(name, drop=1.5), at).status == "insufficient"


def test_a_metric_that_is_not_a_number_alerts_nobody(workspace: Workspace) -> None:
    serve(workspace, [0.5] * 100, [1.0] * 100)
    found = evaluate(workspace, subject(), Performance("auc", min=0.7, max=0.9), START + 7 * DAY)
    assert (found.status, found.numbers["value"]) == ("insufficient", None)


def weather(temperature: float, rows: int = 200) -> pl.DataFrame:
    generator = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "temp": generator.normal(temperature, 3.0, rows),
            "wind": generator.normal(10.0, 2.0, rows),
            "sky": generator.choice(["clear", "mist"], rows),
        }
    )


def test_drift_names_the_features_that_drifted_and_by_how_much(any_workspace: Workspace) -> None:
    ask(any_workspace, weather(25.0))
    found = evaluate(any_workspace, subject(weather(15.0)), Drift(), START + 7 * DAY)
    assert found.status == "alert"
    assert (found.numbers["drifted"], found.numbers["features"], found.numbers["rows"]) == (1, 3, 200)
    effect = found.numbers["effect of temp"]
    assert isinstance(effect, float)
    assert effect > 0.8
    assert evaluate(any_workspace, subject(weather(25.0)), Drift(), START + 7 * DAY).status == "ok"


def test_drift_needs_rows_a_reference_and_the_features_it_is_told(workspace: Workspace) -> None:
    at = START + 7 * DAY
    assert evaluate(workspace, subject(weather(15.0)), Drift(), at).status == "insufficient"
    ask(workspace, weather(25.0, rows=99))
    assert evaluate(workspace, subject(weather(15.0)), Drift(), at).numbers["rows"] == 99
    assert evaluate(workspace, subject(weather(15.0)), Drift(min_rows=99), at).status == "alert"
    assert evaluate(workspace, subject(), Drift(min_rows=99), at).status == "insufficient"
    lost = evaluate(workspace, subject(weather(15.0)), Drift(min_rows=9, features=("tmp",)), at)
    assert (lost.status, lost.numbers["not comparable"]) == ("insufficient", "tmp")
    assert (
        evaluate(workspace, subject(weather(15.0)), Drift(min_rows=9, features=("wind",)), at).status == "ok"
    )


def test_live_profiles_merge_by_day_and_version(any_workspace: Workspace) -> None:
    for number in range(3):
        ask(any_workspace, weather(20.0, rows=50), at=START + number * DAY)
        ask(any_workspace, weather(20.0, rows=25), at=START + number * DAY)
    live = LiveProfiles(any_workspace)
    whole = live.read("bikes", START, START + 3 * DAY)
    assert whole is not None
    assert whole.rows == 225
    late = live.read("bikes", START + DAY + 13 * HOUR, START + 3 * DAY, version=1)
    assert late is not None
    assert late.rows == 150
    assert live.read("bikes", START, START + 3 * DAY, version=2) is None
    assert live.read("cars", START, START + 3 * DAY) is None


def level(workspace: Workspace, monitor: Monitor, at: datetime = START + DAY) -> tuple[str, object]:
    found = evaluate(workspace, subject(), monitor, at)
    return found.status, found.numbers.get("p99_ms")


def test_service_levels_are_judged_by_failures_and_by_the_slowest_answers(workspace: Workspace) -> None:
    assert level(workspace, ServiceLevel(error_rate=0.01))[0] == "insufficient"
    for failures in (0, 3):
        workspace.write(
            lambda tx, failures=failures: count_service(  # type: ignore[misc]
                tx, "bikes", START, requests=100, failures=failures
            )
        )
    assert level(workspace, ServiceLevel(error_rate=0.01))[0] == "alert"
    assert level(workspace, ServiceLevel(error_rate=0.02))[0] == "ok"
    assert level(workspace, ServiceLevel(p99_ms=5)) == ("insufficient", None)
    ask(workspace, pl.DataFrame({LATENCY: [1.0] * 95 + [9.0] * 5}))
    assert level(workspace, ServiceLevel(p99_ms=5)) == ("alert", 9.0)
    assert level(workspace, ServiceLevel(p99_ms=10)) == ("ok", 9.0)
