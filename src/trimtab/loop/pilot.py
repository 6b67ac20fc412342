"""Takes a cycle through its arrows: gathers what the machine must know, and does what each arrow says.

Each arrow is one transaction: the fence, the cycle's move with its evidence, and all that goes with it
(the next job, the version in the registry, the route, the alias). Killed at any instant, another pilot finds
either all of it or none, and takes the same arrow again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from trimtab.data.versions import find_version
from trimtab.loop.champions import Champion, policy_of_model
from trimtab.loop.cycle import Cycle, State
from trimtab.loop.cycles import amend_cycle, move_cycle
from trimtab.loop.declaration import Declaration
from trimtab.loop.findings import tell, tell_trouble
from trimtab.loop.intake import data_time, due_looks, held_out_share
from trimtab.loop.job_queue import Standing, cycle_key, order, standing, withdraw
from trimtab.loop.lockstep import gateway_failures, gateway_generations
from trimtab.loop.machine import Facts, Gated, JobFacts, Move, Trained, next_step
from trimtab.loop.measure import measure_cycle, needs_user_code, next_look
from trimtab.loop.orders import (
    GatesAnswer,
    GatesOrder,
    IngestOrder,
    MeasureAnswer,
    MeasureOrder,
    Order,
    TrainAnswer,
    TrainOrder,
)
from trimtab.loop.records import Applied, LoopRecord
from trimtab.loop.rollout import Plan
from trimtab.loop.routing import Routing
from trimtab.models.aliases import CHAMPION
from trimtab.models.gates import policy_of
from trimtab.models.registry import Registry
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

T = TypeVar("T")

UNSERVED_SECONDS = 30.0
"""How long (by the machine's clock) gateways may fail to load a challenger before it is taken back: what
keeps them from it may pass."""

Fence = Callable[[Transaction], None]
"""Raises LeaseLostError, within a transaction, once another controller has taken over."""


@dataclass(frozen=True)
class Turn:
    """All that one look at a cycle is about."""

    cycle: Cycle
    loop: LoopRecord
    applied: Applied
    champion: Champion | None
    facts: Facts
    trained: TrainAnswer | None
    gates: GatesAnswer | None

    @property
    def plan(self) -> Plan:
        """The rollout's stages and rules."""
        return self.facts.plan


class Pilot:
    """Moves cycles on. Every transaction of it checks the fence first."""

    def __init__(self, workspace: Workspace, fence: Fence) -> None:
        self._workspace = workspace
        self._fence = fence
        self._registry = Registry(workspace)
        self._routing = Routing(workspace)
        self._failing: dict[tuple[str, int], float] = {}

    def step(self, loop: LoopRecord, applied: Applied, cycle: Cycle, champion: Champion | None) -> bool:
        """Do the next small thing for this cycle; False if there is nothing to do now."""
        if loop.paused:
            return False
        if self._prepare(cycle, applied):
            return True
        turn = self._look(loop, applied, cycle, champion)
        move = next_step(cycle, turn.facts)
        if move is not None:
            self._take(turn, move)
            return True
        if turn.facts.measure is not None or turn.facts.unmeasured:
            self._note_look(turn)
            return True
        return False

    # -- what must be in place before a look --------------------------------------------------------------

    def _prepare(self, cycle: Cycle, applied: Applied) -> bool:
        """Order or note what a look at this cycle waits for; False if that was done before."""
        declared = applied.declaration
        if cycle.state is State.TRIGGERED and self._has_sources(declared):
            return self._order_once(cycle_key(cycle.id, "ingest"), IngestOrder(dataset=declared.dataset))
        if not cycle.state.rolling_out:
            return False
        if cycle.stage_since is None and self._served(cycle, declared.endpoint):
            self._confirm(cycle, declared)
            return True
        if needs_user_code(declared) and self._look_due(cycle):
            assert cycle.look_at is not None
            return self._order_once(_look_key(cycle), MeasureOrder(cycle=cycle.id, moment=cycle.look_at))
        return False

    def _confirm(self, cycle: Cycle, declared: Declaration) -> None:
        """All gateways serve the stage's route: its dwell begins, and with the first stage the comparison."""
        now, plan = self._workspace.clock.now(), declared.rollout.plan
        started = now if cycle.stage == 0 else cycle.rollout_started
        assert started is not None
        ends = now + plan.stages[cycle.stage].dwell
        look_at = next_look(plan, at=now, started=started, ends=ends, wait=declared.label_wait)
        self._amend(cycle, stage_since=now, rollout_started=started, look_at=look_at)

    def _has_sources(self, declared: Declaration) -> bool:
        with self._workspace.read() as connection:
            return bool(due_looks(connection, [declared.dataset]))

    def _served(self, cycle: Cycle, endpoint: str) -> bool:
        """Whether gateways live, and all of them serve the cycle's route."""
        serving = gateway_generations(self._workspace, endpoint)
        return bool(serving) and min(serving.values()) >= cycle.route_generation

    def _unservable(self, cycle: Cycle, endpoint: str) -> str:
        """Why a gateway cannot serve the cycle's route, once it has said so for a while; "" if none does."""
        route = (endpoint, cycle.route_generation)
        failures = gateway_failures(self._workspace, *route)
        if not failures:
            self._failing.pop(route, None)
            return ""
        if time.monotonic() - self._failing.setdefault(route, time.monotonic()) < UNSERVED_SECONDS:
            return ""
        return "; ".join(f"{gateway}: {reason}" for gateway, reason in sorted(failures.items()))

    def _look_due(self, cycle: Cycle) -> bool:
        return cycle.look_at is not None and cycle.look_at <= self._workspace.clock.now()

    def _order_once(self, key: str, request: Order) -> bool:
        with self._workspace.read() as connection:
            if standing(connection, key).status != "absent":
                return False

        def work(tx: Transaction) -> None:
            self._fence(tx)
            order(tx, request, key=key)

        self._workspace.write(work)
        return True

    def _amend(self, cycle: Cycle, **changes: object) -> None:
        def work(tx: Transaction) -> None:
            self._fence(tx)
            amend_cycle(tx, cycle, **changes)

        self._workspace.write(work)

    # -- what the machine must know -----------------------------------------------------------------------

    def _look(self, loop: LoopRecord, applied: Applied, cycle: Cycle, champion: Champion | None) -> Turn:
        declared = applied.declaration
        trained: TrainAnswer | None = None
        gates: GatesAnswer | None = None
        with self._workspace.read() as connection:
            facts = Facts(
                at=self._workspace.clock.now(),
                mode=loop.mode,
                paused=loop.paused,
                champion=None if champion is None else champion.version,
                same_gates=policy_of_model(connection, declared.model) == policy_of(declared.gates).digest,
                plan=declared.rollout.plan,
            )
            if cycle.state is State.TRIGGERED and due_looks(connection, [declared.dataset]):
                facts = _with(facts, sources=_job_facts(standing(connection, cycle_key(cycle.id, "ingest"))))
            if cycle.state in (State.TRAINING, State.GATING):
                done = standing(connection, cycle_key(cycle.id, "train"))
                trained = _answer(done, TrainAnswer)
                facts = _with(facts, training=_trained(done, trained))
            if cycle.state is State.GATING:
                done = standing(connection, cycle_key(cycle.id, "gates"))
                gates = _answer(done, GatesAnswer)
                facts = _with(facts, gating=_gated(done, gates))
        if cycle.state.rolling_out and cycle.stage_since is None:
            facts = _with(facts, unservable=self._unservable(cycle, declared.endpoint))
        if cycle.state.rolling_out and self._look_due(cycle):
            facts = self._measured(facts, cycle, applied)
        return Turn(cycle, loop, applied, champion, facts, trained, gates)

    def _measured(self, facts: Facts, cycle: Cycle, applied: Applied) -> Facts:
        """The facts with what the look that is due finds, as soon as it is known."""
        assert cycle.look_at is not None
        if not needs_user_code(applied.declaration):
            found = measure_cycle(self._workspace, applied.declaration, cycle, cycle.look_at)
            return _with(facts, measure=found)
        with self._workspace.read() as connection:
            done = standing(connection, _look_key(cycle))
        answer = _answer(done, MeasureAnswer)
        return _with(facts, measure=None if answer is None else answer.measure, unmeasured=done.failure)

    def _note_look(self, turn: Turn) -> None:
        """Nothing speaks for a change yet: keep what was measured, or tell why nothing could be, and say when
        to look again."""
        cycle, plan = turn.cycle, turn.plan
        assert cycle.rollout_started is not None
        ends = None if cycle.stage_since is None else cycle.stage_since + plan.stages[cycle.stage].dwell
        look_at = next_look(
            plan,
            at=turn.facts.at,
            started=cycle.rollout_started,
            ends=ends,
            wait=turn.applied.declaration.label_wait,
        )
        measure, failure = turn.facts.measure, turn.facts.unmeasured

        def work(tx: Transaction) -> None:
            self._fence(tx)
            changes = {"look_at": look_at} if measure is None else {"look_at": look_at, "measure": measure}
            amend_cycle(tx, cycle, **changes)
            if failure:
                tell_trouble(tx, cycle, f"its challenger could not be measured: {failure}")

        self._workspace.write(work)

    # -- what an arrow does -------------------------------------------------------------------------------

    def _take(self, turn: Turn, move: Move) -> None:
        def work(tx: Transaction) -> None:
            self._fence(tx)
            changes = self._settle_gates(tx, turn)
            candidate = changes.get("candidate", turn.cycle.candidate)
            match move.to:
                case State.TRAINING:
                    changes |= self._order_training(tx, turn)
                case State.GATING:
                    changes |= self._order_gates(tx, turn)
                case State.SHADOW | State.CANARY:
                    assert isinstance(candidate, int)
                    changes |= self._try_out(tx, turn, move, candidate)
                case State.PROMOTED:
                    assert isinstance(candidate, int)
                    self._promote(tx, turn, move, candidate)
                case State.ROLLED_BACK | State.SUPERSEDED if turn.cycle.state.rolling_out:
                    self._take_back(tx, turn, move)
                case _:
                    pass
            if move.to is State.SUPERSEDED:
                withdraw(tx, turn.cycle.id)
            tell(tx, move_cycle(tx, turn.cycle, move, **changes), move)

        self._workspace.write(work)

    def _order_training(self, tx: Transaction, turn: Turn) -> dict[str, object]:
        """Order the training on the newest versions of what the pipeline reads, up to the held-out rows."""
        declared = turn.applied.declaration
        pins = {name: find_version(tx.connection, name) for name in declared.datasets}
        versions = {name: version.number for name, version in pins.items()}
        as_of = data_time(tx.at, pins[declared.dataset].time_max, declared.holdout)
        request = TrainOrder(
            loop=turn.loop.name,
            cycle=turn.cycle.id,
            pipeline=declared.pipeline,
            project=turn.applied.project,
            params={**declared.params, **turn.cycle.params},
            dataset=declared.dataset,
            datasets=versions,
            as_of=declared.holdout.bounds(as_of)[0] or as_of,
            held_out=held_out_share(declared.holdout),
        )
        order(tx, request, key=cycle_key(turn.cycle.id, "train"))
        return {"datasets": versions, "rows": pins[declared.dataset].rows, "as_of": as_of}

    def _order_gates(self, tx: Transaction, turn: Turn) -> dict[str, object]:
        declared, cycle, trained = turn.applied.declaration, turn.cycle, turn.trained
        assert cycle.as_of is not None
        assert trained is not None
        start, end = declared.holdout.bounds(cycle.as_of)
        request = GatesOrder(
            model=declared.model,
            digest=trained.digest,
            champion=None if turn.champion is None else turn.champion.digest,
            gates=declared.gates,
            dataset=declared.dataset,
            dataset_version=cycle.datasets[declared.dataset],
            target=declared.target or trained.target,
            start=start,
            end=end,
            part=declared.holdout.part,
            project=turn.applied.project,
        )
        order(tx, request, key=cycle_key(cycle.id, "gates"))
        return {"run_id": trained.run_id, "digest": trained.digest, "profile": trained.profile}

    def _settle_gates(self, tx: Transaction, turn: Turn) -> dict[str, object]:
        """As a cycle leaves its gates: the report, and if it passed the candidate, enter the registry."""
        if turn.gates is None or turn.trained is None:
            return {}
        report, cycle, model = turn.gates.report, turn.cycle, turn.applied.declaration.model
        if not report.passed:
            self._registry.add_gate_report(tx, report)
            return {}
        version = self._registry.register(
            tx,
            model,
            cycle.digest,
            run_id=cycle.run_id,
            description=f"cycle {cycle.id}: {cycle.reason}",
            record=turn.trained.record,
            request_key=cycle.id,
        ).version
        self._registry.add_gate_report(tx, msgspec.structs.replace(report, version=version))
        return {"candidate": version}

    def _try_out(self, tx: Transaction, turn: Turn, move: Move, candidate: int) -> dict[str, object]:
        declared, cycle = turn.applied.declaration, turn.cycle
        assert turn.champion is not None
        generation = self._routing.try_out(
            tx,
            declared,
            turn.plan.stages[move.stage],
            champion=turn.champion,
            challenger=Champion(candidate, cycle.digest),
            cycle=cycle,
            reason=_reason(cycle, move),
        )
        started = cycle.rollout_started or tx.at
        look_at = next_look(turn.plan, at=tx.at, started=started, ends=None, wait=declared.label_wait)
        return {
            "stage": move.stage,
            "route_generation": generation,
            "rollout_started": started,
            "stage_since": None,
            "look_at": look_at,
            "measure": turn.facts.measure,
        }

    def _promote(self, tx: Transaction, turn: Turn, move: Move, candidate: int) -> None:
        declared, reason = turn.applied.declaration, _reason(turn.cycle, move)
        self._registry.set_alias(tx, declared.model, CHAMPION, candidate, reason=reason)
        self._routing.settle(tx, declared, turn.cycle, reason=reason)

    def _take_back(self, tx: Transaction, turn: Turn, move: Move) -> None:
        declared, cycle, reason = turn.applied.declaration, turn.cycle, _reason(turn.cycle, move)
        if move.to is State.ROLLED_BACK:
            assert cycle.candidate is not None
            self._registry.reject_version(tx, declared.model, cycle.candidate, reason=reason)
        self._routing.settle(tx, declared, cycle, reason=reason)


def _look_key(cycle: Cycle) -> str:
    assert cycle.look_at is not None
    return f"cycle:{cycle.id}:look:{cycle.look_at.isoformat()}"


def _reason(cycle: Cycle, move: Move) -> str:
    return f"cycle {cycle.id}: {move.reason}"


def _with(facts: Facts, **changes: object) -> Facts:
    return msgspec.structs.replace(facts, **changes)


def _answer(done: Standing, kind: type[T]) -> T | None:
    return msgspec.convert(done.answer, kind) if done.status == "done" else None


def _job_facts(done: Standing) -> JobFacts:
    return JobFacts(status=done.status, failure=done.failure)


def _trained(done: Standing, answer: TrainAnswer | None) -> Trained:
    if answer is None:
        return Trained(status=done.status, failure=done.failure)
    status: Literal["failed", "done"] = "failed" if answer.failure else "done"
    return Trained(status=status, failure=answer.failure, run_id=answer.run_id, digest=answer.digest)


def _gated(done: Standing, answer: GatesAnswer | None) -> Gated:
    if answer is None:
        return Gated(status=done.status, failure=done.failure)
    report = answer.report
    return Gated(
        status="done",
        passed=report.passed,
        digest=report.digest,
        results=report.results,
        summary="; ".join(f"{result.gate}: {result.reason}" for result in report.failed),
    )
