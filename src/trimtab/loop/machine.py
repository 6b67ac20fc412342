"""The state machine of a cycle as a pure function: from what is known to the next arrow."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from trimtab.loop.cycle import Cycle, State
from trimtab.loop.rollout import Measure, Plan, Standing, decide

Mode = Literal["auto", "approve", "advise"]


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How a cycle's job stands: `failure` says why it failed, `answer` what it found."""

    status: Literal["absent", "pending", "done", "failed"]
    failure: str = ""


class Trained(JobFacts, frozen=True, kw_only=True):
    """The training job: the run, and the digest of the model that it made."""

    run_id: str = ""
    digest: str = ""


class Gated(JobFacts, frozen=True, kw_only=True):
    """The gates job: whether all gates passed, the candidate's digest, and what each gate found."""

    passed: bool = False
    digest: str = ""
    results: object = None
    summary: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a controller knows when it looks at a cycle. `measure` is given when a look at the rollout is
    due, else None; `same_gates`: the model is still held to the gates that the cycle was
    declared with; `sources` is the polling of the dataset's sources that precedes training; `unservable` says
    why gateways cannot serve the challenger, where they have tried for a while, `unmeasured` why a look that
    was due could not be taken."""

    at: datetime
    mode: Mode
    paused: bool
    champion: int | None
    plan: Plan
    same_gates: bool = True
    sources: JobFacts = JobFacts(status="done")
    training: Trained = Trained(status="absent")
    gating: Gated = Gated(status="absent")
    measure: Measure | None = None
    unservable: str = ""
    unmeasured: str = ""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """The next arrow, why, and the evidence it rests on. `stage` is the rollout stage that it enters."""

    to: State
    reason: str
    evidence: object = None
    stage: int = 0


def next_step(cycle: Cycle, facts: Facts) -> Move | None:
    """The arrow that `cycle` takes now, or None while there is nothing to do."""
    if cycle.state.final or facts.paused:
        return None
    if facts.champion != cycle.baseline:
        words = (
            f"the champion changed from {_version(cycle.baseline)} to {_version(facts.champion)} meanwhile"
        )
        return Move(to=State.SUPERSEDED, reason=words)
    if not facts.same_gates:
        return Move(to=State.SUPERSEDED, reason="the loop's gates changed meanwhile")
    match cycle.state:
        case State.PROPOSED:
            return _approved(cycle, State.TRIGGERED) if cycle.approved_by else None
        case State.TRIGGERED:
            return _after_sources(facts)
        case State.TRAINING:
            return _after_training(facts.training)
        case State.GATING:
            return _after_gates(cycle, facts)
        case State.AWAITING_APPROVAL:
            if not cycle.approved_by:
                return None
            return _rollout_or_promotion(cycle, facts, f"approved by {cycle.approved_by}")
        case _:
            return _rollout(cycle, facts)


def _approved(cycle: Cycle, to: State) -> Move:
    return Move(to=to, reason=f"approved by {cycle.approved_by}")


def _after_sources(facts: Facts) -> Move | None:
    if facts.sources.status == "failed":
        return Move(
            to=State.FAILED, reason=f"the dataset's sources could not be read: {facts.sources.failure}"
        )
    if facts.sources.status != "done":
        return None
    return Move(to=State.TRAINING, reason="the dataset is up to date")


def _after_training(training: Trained) -> Move | None:
    if training.status == "failed":
        evidence = {"run": training.run_id, "failure": training.failure}
        return Move(to=State.FAILED, reason=f"training failed: {training.failure}", evidence=evidence)
    if training.status != "done":
        return None
    evidence = {"run": training.run_id, "model": training.digest}
    return Move(to=State.GATING, reason="trained", evidence=evidence)


def _after_gates(cycle: Cycle, facts: Facts) -> Move | None:
    gating = facts.gating
    if gating.status == "failed":
        return Move(to=State.FAILED, reason=f"the gates could not be evaluated: {gating.failure}")
    if gating.status != "done":
        return None
    evidence = {"model": gating.digest, "results": gating.results}
    if not gating.passed:
        return Move(to=State.REJECTED, reason=f"a gate refused it: {gating.summary}", evidence=evidence)
    if facts.mode != "auto" and not cycle.approved_by:  # a proposal's approval covers the whole cycle
        return Move(
            to=State.AWAITING_APPROVAL, reason="all gates passed; a person decides", evidence=evidence
        )
    move = _rollout_or_promotion(cycle, facts, "all gates passed")
    return msgspec.structs.replace(move, evidence=evidence)


def _rollout_or_promotion(cycle: Cycle, facts: Facts, reason: str) -> Move:
    if cycle.baseline is None:
        return Move(to=State.PROMOTED, reason=f"{reason}; the first version has nobody to be compared with")
    return Move(to=State(facts.plan.stages[0].state), reason=reason)


def _rollout(cycle: Cycle, facts: Facts) -> Move | None:
    if facts.unservable:
        return Move(to=State.ROLLED_BACK, reason=f"it cannot be served: {facts.unservable}")
    if facts.unmeasured and _over(cycle, facts):
        return Move(to=State.ROLLED_BACK, reason=f"it could not be measured: {facts.unmeasured}")
    if facts.measure is None or cycle.rollout_started is None:
        return None
    standing = Standing(
        stage=cycle.stage, started=cycle.rollout_started, since=cycle.stage_since, at=facts.at
    )
    decision = decide(facts.plan, standing, facts.measure)
    match decision.action:
        case "stay":
            return None
        case "roll_back":
            return Move(to=State.ROLLED_BACK, reason=decision.reason, evidence=facts.measure)
        case "promote":
            return Move(to=State.PROMOTED, reason=decision.reason, evidence=facts.measure)
        case "advance":
            to = State(facts.plan.stages[decision.stage].state)
            return Move(to=to, reason=decision.reason, evidence=facts.measure, stage=decision.stage)


def _over(cycle: Cycle, facts: Facts) -> bool:
    """Whether the rollout has used up its time."""
    return cycle.rollout_started is not None and facts.at - cycle.rollout_started >= facts.plan.max_duration


def _version(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
