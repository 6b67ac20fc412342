from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trimtab.loop.measure import Pairs, measure_pairs, next_look
from trimtab.loop.rollout import Canary, Measure
from trimtab.statistics.metrics import Metric, metric
from trimtab.statistics.sequential import judge
from trimtab.store.types import to_microseconds

START = datetime(2011, 9, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PLAN = Canary(margin=0.05, alpha=0.1, min_blocks=2, look="6h").plan


def pairs(hours: int, *, champion: float = 1.0, challenger: float = 1.0, seed: int = 0) -> Pairs:
    """Hourly requests from the start on; each version errs by its factor."""
    random = np.random.default_rng(seed)
    label = random.uniform(50, 150, hours)
    at = np.array([to_microseconds(START + hour * HOUR) for hour in range(hours)], dtype=np.int64)
    noise = random.uniform(0.95, 1.05, hours)
    return Pairs(at=at, label=label, champion=label * champion * noise, challenger=label * challenger * noise)


def measured(given: Pairs, *, hours: int, of: str = "rmsle") -> Measure:
    return measure_pairs(
        given,
        metric=metric(of),
        bias=metric("log_bias"),
        plan=PLAN,
        start=START,
        complete=START + hours * HOUR,
    )


def hole(values: NDArray[np.float64], *places: int) -> NDArray[np.float64]:
    out = values.copy()
    out[list(places)] = np.nan
    return out


def test_only_whole_days_from_the_start_count_as_blocks() -> None:
    found = measured(pairs(60), hours=60)
    assert found.days == ("2011-09-01", "2011-09-02")
    assert (found.pairs, found.verdict.blocks) == (60, 2)
    waiting = measured(pairs(60), hours=47)
    assert waiting.days == ("2011-09-01",)


def test_the_verdict_is_that_of_the_paired_losses_day_by_day() -> None:
    given = pairs(72, champion=1.4)
    found = measured(given, hours=72)
    loss = metric("rmsle").row_loss
    ours, theirs = loss(given.label, given.challenger), loss(given.label, given.champion)
    assert ours is not None
    assert theirs is not None
    expected = [float((ours - theirs)[day * 24 : (day + 1) * 24].mean()) for day in range(3)]
    assert found.differences == pytest.approx(expected)
    assert found.verdict == judge(expected, margin=0.05, alpha=0.1, min_blocks=2)
    assert found.verdict.decision == "superior"


def test_what_one_of_them_could_not_answer_is_an_error_and_no_pair() -> None:
    given = pairs(48)
    broken = Pairs(given.at, hole(given.label, 5), given.champion, hole(given.challenger, 1, 2, 3))
    found = measured(broken, hours=48)
    assert (found.errors, found.answers, found.pairs) == (3, 45, 44)
    assert found.error_rate == pytest.approx(3 / 48)


def test_the_checks_need_no_whole_day() -> None:
    found = measured(pairs(12, challenger=3.0), hours=12)
    assert found.verdict.decision == "undecided"
    assert found.answer_ratio == pytest.approx(3.0)
    assert found.challenger_bias == pytest.approx(np.log(3), abs=0.05)


def test_a_metric_that_is_no_mean_over_rows_is_compared_day_by_day() -> None:
    steep = Metric("steep", True, lambda y, p: -float(np.max(np.abs(y - p))))
    given = pairs(72, challenger=1.3)
    found = measure_pairs(
        given, metric=steep, bias=metric("bias"), plan=PLAN, start=START, complete=START + 3 * DAY
    )
    assert len(found.differences) == 3
    assert all(difference > 0 for difference in found.differences)


def test_nothing_seen_is_nothing_said() -> None:
    found = measured(pairs(0), hours=48)
    assert (found.pairs, found.answers, found.errors) == (0, 0, 0)
    assert found.answer_ratio is None
    assert found.error_rate is None
    assert found.challenger_metric is None
    assert found.verdict.decision == "undecided"


@given(hours=st.floats(0, 600), since=st.floats(0, 100))
def test_no_moment_at_which_a_decision_could_change_is_missed(hours: float, since: float) -> None:
    at, ends = START + hours * HOUR, START + since * HOUR
    wait = 2 * HOUR
    moments: list[datetime] = []
    while at < START + 30 * DAY and len(moments) < 200:
        at = next_look(PLAN, at=at, started=START, ends=ends, wait=wait)
        moments.append(at)
    begun = START + hours * HOUR
    block_ends = [START + wait + day * DAY for day in range(1, 25)]
    for due in [*block_ends, ends, START + PLAN.max_duration]:
        if due > begun:
            assert due in moments
    steps = [after - before for before, after in zip([begun, *moments], moments, strict=False)]
    assert all(timedelta(0) < step <= 6 * HOUR for step in steps)
