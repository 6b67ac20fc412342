from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.loop.cycle import ARROWS, FINAL, Cycle, State
from trimtab.loop.machine import Facts, Gated, JobFacts, Mode, Trained, next_step
from trimtab.loop.rollout import Canary, Measure
from trimtab.statistics.sequential import Decision, Verdict

START = datetime(2011, 9, 1, tzinfo=UTC)
PLAN = Canary().plan
STATUSES = ["absent", "pending", "done", "failed"]


def cycle(state: State, **changes: Any) -> Cycle:
    blank = Cycle(
        id="bikes-1",
        loop="bikes",
        number=1,
        declaration=1,
        state=state,
        trigger="manual",
        reason="",
        actor="ada",
        baseline=1,
        params={},
        triggered_at=START,
        moved_at=START,
        rollout_started=START,
        stage_since=START,
    )
    return msgspec.structs.replace(blank, **changes)


def facts(**changes: Any) -> Facts:
    blank = Facts(at=START, mode="auto", paused=False, champion=1, plan=PLAN)
    return msgspec.structs.replace(blank, **changes)


def measured(decision: Decision) -> Measure:
    verdict = Verdict(decision=decision, mean=0.0, lower=-1.0, upper=1.0, blocks=6, alpha=0.05, margin=0.0)
    return Measure(verdict=verdict, metric="rmse")


def step(current: Cycle, known: Facts) -> State | None:
    move = next_step(current, known)
    return None if move is None else move.to


PASSED = Gated(status="done", passed=True, digest="b3:x")


def test_a_cycle_trains_once_the_sources_are_read() -> None:
    assert step(cycle(State.TRIGGERED), facts(sources=JobFacts(status="pending"))) is None
    assert step(cycle(State.TRIGGERED), facts()) == State.TRAINING
    assert step(cycle(State.TRIGGERED), facts(sources=JobFacts(status="failed"))) == State.FAILED


def test_training_leads_to_gating_or_failure() -> None:
    assert step(cycle(State.TRAINING), facts(training=Trained(status="pending"))) is None
    assert step(cycle(State.TRAINING), facts(training=Trained(status="done", digest="b3:x"))) == State.GATING
    broken = facts(training=Trained(status="failed", failure="step 'fit' raised ValueError"))
    move = next_step(cycle(State.TRAINING), broken)
    assert move is not None
    assert move.to == State.FAILED
    assert "step 'fit' raised ValueError" in move.reason


def test_gates_reject_or_let_the_rollout_begin() -> None:
    refused = Gated(status="done", passed=False, summary="rmsle 0.9 above 0.5")
    assert step(cycle(State.GATING), facts(gating=refused)) == State.REJECTED
    assert step(cycle(State.GATING), facts(gating=PASSED)) == State.SHADOW
    straight = Canary(shadow="0h").plan
    assert step(cycle(State.GATING), facts(gating=PASSED, plan=straight)) == State.CANARY


def test_the_first_version_is_promoted_straight() -> None:
    first = cycle(State.GATING, baseline=None)
    assert step(first, facts(gating=PASSED, champion=None)) == State.PROMOTED


@pytest.mark.parametrize("mode", ["approve", "advise"])
def test_a_person_decides_before_the_rollout_where_the_mode_says_so(mode: Mode) -> None:
    known = facts(gating=PASSED, mode=mode)
    assert step(cycle(State.GATING), known) == State.AWAITING_APPROVAL
    assert step(cycle(State.AWAITING_APPROVAL), known) is None
    assert step(cycle(State.AWAITING_APPROVAL, approved_by="ada"), known) == State.SHADOW


def test_an_approved_proposal_is_not_asked_about_again() -> None:
    assert step(cycle(State.PROPOSED), facts(mode="advise")) is None
    assert step(cycle(State.PROPOSED, approved_by="ada"), facts(mode="advise")) == State.TRIGGERED
    known = facts(mode="advise", gating=PASSED)
    assert step(cycle(State.GATING, approved_by="ada"), known) == State.SHADOW


def test_a_rollout_advances_stage_by_stage() -> None:
    at = START + timedelta(days=2)
    move = next_step(cycle(State.SHADOW), facts(at=at, measure=measured("undecided")))
    assert move is not None
    assert (move.to, move.stage) == (State.CANARY, 1)
    last = cycle(State.CANARY, stage=3)
    assert step(last, facts(at=at, measure=measured("superior"))) == State.PROMOTED
    assert step(last, facts(at=at, measure=measured("inferior"))) == State.ROLLED_BACK
    assert step(last, facts(at=at, measure=None)) is None


def test_a_challenger_that_cannot_be_served_is_rolled_back_without_a_measure() -> None:
    move = next_step(cycle(State.SHADOW, stage_since=None), facts(unservable="gateway-1: no such file"))
    assert move is not None
    assert (move.to, move.reason) == (State.ROLLED_BACK, "it cannot be served: gateway-1: no such file")


def test_a_rollout_that_cannot_be_measured_ends_with_its_time() -> None:
    current = cycle(State.SHADOW)
    assert step(current, facts(unmeasured="KeyError: 'x'")) is None
    move = next_step(current, facts(unmeasured="KeyError: 'x'", at=START + PLAN.max_duration))
    assert move is not None
    assert (move.to, move.reason) == (State.ROLLED_BACK, "it could not be measured: KeyError: 'x'")


def test_a_cycle_whose_champion_changed_under_it_is_superseded() -> None:
    for state in set(State) - FINAL:
        assert step(cycle(state), facts(champion=2)) == State.SUPERSEDED


jobs = st.sampled_from(STATUSES)
all_facts = st.builds(
    Facts,
    at=st.integers(0, 60).map(lambda days: START + timedelta(days=days)),
    mode=st.sampled_from(get_args(Mode)),
    paused=st.booleans(),
    champion=st.sampled_from([None, 1, 2]),
    plan=st.sampled_from([PLAN, Canary(shadow="0h").plan]),
    sources=st.builds(JobFacts, status=jobs),
    training=st.builds(Trained, status=jobs),
    gating=st.builds(Gated, status=jobs, passed=st.booleans()),
    measure=st.none() | st.sampled_from(get_args(Decision)).map(measured),
)
all_cycles = st.builds(
    cycle,
    st.sampled_from(State),
    baseline=st.sampled_from([None, 1]),
    stage=st.integers(0, 2),
    approved_by=st.sampled_from(["", "ada"]),
)


@given(current=all_cycles, known=all_facts)
def test_every_step_is_a_lawful_arrow(current: Cycle, known: Facts) -> None:
    move = next_step(current, known)
    if move is not None:
        assert move.to in ARROWS[current.state]
        assert move.reason


@given(current=all_cycles, known=all_facts)
def test_final_states_and_paused_loops_stay(current: Cycle, known: Facts) -> None:
    if current.state.final or known.paused:
        assert next_step(current, known) is None


@given(current=all_cycles, known=all_facts)
def test_nothing_rolls_out_that_did_not_pass_its_gates(current: Cycle, known: Facts) -> None:
    to = step(current, known)
    if current.state == State.GATING and to in (State.SHADOW, State.CANARY, State.PROMOTED):
        assert known.gating.status == "done"
        assert known.gating.passed
