from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InvalidInputError
from trimtab.loop.rollout import (
    BlueGreen,
    Canary,
    Checks,
    Measure,
    Rollout,
    Shadow,
    Standing,
    decide,
    failed_check,
)
from trimtab.statistics.sequential import Decision, Verdict

START = datetime(2011, 9, 1, tzinfo=UTC)
PLAN = Canary(steps=(5, 25, 100), shadow="2d", dwell="2d", max_duration="21d").plan


def verdict(decision: Decision, blocks: int = 6) -> Verdict:
    return Verdict(decision=decision, mean=0.1, lower=0.0, upper=0.2, blocks=blocks, alpha=0.05, margin=0.0)


def measure(decision: Decision = "undecided", blocks: int = 6, **numbers: Any) -> Measure:
    return Measure(verdict=verdict(decision, blocks), metric="rmse", **numbers)


def standing(stage: int, *, days: float, since: float | None = 0.0) -> Standing:
    """At `days` of a rollout whose stage was seen on the gateways at day `since`."""
    return Standing(
        stage=stage,
        started=START,
        since=None if since is None else START + timedelta(days=since),
        at=START + timedelta(days=days),
    )


def test_a_canary_has_shadow_and_its_steps_as_stages() -> None:
    assert [(stage.state, stage.share) for stage in PLAN.stages] == [
        ("shadow", 0),
        ("canary", 5),
        ("canary", 25),
        ("canary", 100),
    ]
    assert [stage.share for stage in Canary(shadow="0h").plan.stages] == [5, 25, 100]
    dwells = Canary(dwell=("1d", "2d", "3d")).plan.stages
    assert [stage.dwell.days for stage in dwells] == [2, 1, 2, 3]


def test_a_stage_lasts_at_least_its_dwell() -> None:
    assert decide(PLAN, standing(0, days=1.9), measure("superior")).action == "stay"
    assert decide(PLAN, standing(0, days=2.0), measure("superior")).action == "advance"


def test_the_dwell_counts_only_once_the_gateways_serve_the_stage() -> None:
    assert decide(PLAN, standing(1, days=9, since=None), measure("superior")).action == "stay"
    assert decide(PLAN, standing(1, days=9, since=8), measure("superior")).action == "stay"
    assert decide(PLAN, standing(1, days=10, since=8), measure("superior")).action == "advance"


def test_small_shares_need_no_verdict_but_the_whole_traffic_does() -> None:
    assert decide(PLAN, standing(0, days=2), measure("undecided")).stage == 1
    assert decide(PLAN, standing(1, days=4), measure("undecided")).stage == 2
    assert decide(PLAN, standing(2, days=6), measure("undecided")).action == "stay"
    assert decide(PLAN, standing(2, days=6), measure("non_inferior")).stage == 3
    assert decide(PLAN, standing(3, days=8), measure("undecided")).action == "stay"
    assert decide(PLAN, standing(3, days=8), measure("non_inferior")).action == "promote"


@given(stage=st.integers(0, 3), days=st.floats(0, 30), since=st.none() | st.floats(0, 30))
def test_an_inferior_challenger_is_rolled_back_wherever_it_stands(
    stage: int, days: float, since: float | None
) -> None:
    assert decide(PLAN, standing(stage, days=days, since=since), measure("inferior")).action == "roll_back"


@pytest.mark.parametrize(("declared", "action"), [("promote", "promote"), ("roll_back", "roll_back")])
def test_an_undecided_rollout_ends_as_declared(declared: Any, action: str) -> None:
    plan = Canary(max_duration="21d", inconclusive=declared).plan
    assert decide(plan, standing(2, days=20.9), measure("undecided")).action == "stay"
    assert decide(plan, standing(2, days=21), measure("undecided")).action == action


def test_without_labels_nothing_is_promoted_whatever_is_declared() -> None:
    plan = Canary(inconclusive="promote").plan
    decision = decide(plan, standing(2, days=21), measure("undecided", blocks=2))
    assert decision.action == "roll_back"
    assert "no evidence" in decision.reason


def test_shadow_promotes_only_what_the_test_accepts() -> None:
    plan = Shadow(dwell="5d").plan
    assert decide(plan, standing(0, days=6), measure("undecided")).action == "stay"
    assert decide(plan, standing(0, days=6), measure("superior")).action == "promote"


def test_blue_green_stays_switched_unless_something_speaks_against_it() -> None:
    plan = BlueGreen(dwell="1d", max_duration="2d").plan
    assert decide(plan, standing(0, days=1.5), measure("undecided", blocks=0)).action == "stay"
    assert decide(plan, standing(0, days=2), measure("undecided", blocks=0)).action == "promote"
    assert decide(plan, standing(0, days=1), measure(answers=50, answer_ratio=9.0)).action == "roll_back"


def test_wrong_units_are_rolled_back_before_the_first_label() -> None:
    wrong = measure("undecided", blocks=0, answers=24, answer_ratio=2.4)
    decision = decide(PLAN, standing(0, days=1), wrong)
    assert decision.action == "roll_back"
    assert "2.4 times the champion's" in decision.reason


def test_a_check_beats_a_favourable_comparison() -> None:
    leaning = measure("superior", pairs=100, champion_bias=-0.1, challenger_bias=0.6)
    plan = Canary(max_bias=0.3).plan
    decision = decide(plan, standing(3, days=9), leaning)
    assert decision.action == "roll_back"
    assert "+0.6" in decision.reason


def test_a_bias_no_worse_than_the_champions_is_let_through() -> None:
    checks = Checks(max_bias=0.2, bias_slack=0.05)
    assert failed_check(checks, measure(pairs=100, champion_bias=0.4, challenger_bias=-0.44)) is None
    assert failed_check(checks, measure(pairs=100, champion_bias=0.4, challenger_bias=-0.46)) is not None
    assert failed_check(checks, measure(pairs=5, champion_bias=0.4, challenger_bias=-0.46)) is None


def test_a_challenger_that_fails_to_answer_is_rolled_back() -> None:
    checks = Checks(error_rate=0.01)
    assert failed_check(checks, measure(answers=50, errors=50, error_rate=0.5)) is not None
    assert failed_check(checks, measure(answers=1, errors=1, error_rate=0.5)) is None


@pytest.mark.parametrize("rollout", [Canary(), Shadow(dwell="6d"), BlueGreen(alpha=0.1)])
def test_rollouts_survive_json(rollout: Rollout) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rollout), type=Rollout) == rollout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": [25, 5, 100]}, "does not grow"),
        ({"steps": [5, 25]}, "does not grow"),
        ({"steps": []}, "does not grow"),
        ({"dwell": ["1d"]}, "3 steps and 1 dwells"),
        ({"dwell": "a while"}, "not a duration"),
        ({"max_duration": "3d"}, "before its stages can"),
        ({"alpha": 5}, "not between 0 and 1"),
        ({"margin": -1}, "negative"),
        ({"min_blocks": 1}, "below 2"),
        ({"inconclusive": "shrug"}, "not known"),
        ({"answer_ratio": (2.0, 3.0)}, "not a pair around 1"),
        ({"look": "1s"}, "too often"),
    ],
)
def test_a_rollout_that_makes_no_sense_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Canary(**arguments)
