from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InvalidInputError
from trimtab.loop.budget import Budget, Spent, refusal

NOW = datetime(2011, 9, 5, 12, tzinfo=UTC)
UNSPENT = Spent()


def hours_ago(*hours: float) -> tuple[datetime, ...]:
    return tuple(NOW - timedelta(hours=hour) for hour in hours)


def test_a_fresh_loop_may_start() -> None:
    assert refusal(Budget(), UNSPENT, NOW) is None


def test_an_unfinished_cycle_keeps_others_from_starting() -> None:
    refused = refusal(Budget(), Spent(active="bikes-3"), NOW)
    assert refused is not None
    assert refused.because == "active_cycle"
    assert "bikes-3" in refused.explanation


def test_the_cooldown_runs_from_the_last_end() -> None:
    spent = Spent(last_end=NOW - timedelta(hours=5))
    refused = refusal(Budget(cooldown="6h"), spent, NOW)
    assert refused is not None
    assert (refused.because, refused.until) == ("cooldown", NOW + timedelta(hours=1))
    assert refusal(Budget(cooldown="5h"), spent, NOW) is None


def test_a_new_champion_is_left_alone_for_a_while() -> None:
    budget = Budget(cooldown="1d", after_promotion="5d")
    spent = Spent(last_end=NOW - timedelta(days=2), last_promotion=NOW - timedelta(days=4))
    refused = refusal(budget, spent, NOW)
    assert refused is not None
    assert (refused.because, refused.until) == ("cooldown", NOW + timedelta(days=1))
    assert refusal(budget, Spent(last_end=NOW - timedelta(days=2)), NOW) is None


@given(
    hours=st.lists(st.floats(0.1, 48), max_size=12).map(lambda values: hours_ago(*values)),
    limit=st.integers(1, 5),
)
def test_a_refusal_says_when_the_budget_is_free_again(hours: tuple[datetime, ...], limit: int) -> None:
    budget = Budget(cycles_per_day=limit, cooldown="0h")
    spent = Spent(started=hours)
    refused = refusal(budget, spent, NOW)
    if refused is None:
        assert sum(start > NOW - timedelta(days=1) for start in hours) < limit
    else:
        assert refused.until is not None
        assert refusal(budget, spent, refused.until - timedelta(microseconds=1)) is not None
        assert refusal(budget, spent, refused.until) is None


def test_a_budget_that_lets_nothing_start_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="lets no cycle start"):
        Budget(cycles_per_day=0)
    with pytest.raises(InvalidInputError, match="not a duration"):
        Budget(cooldown="soon")
