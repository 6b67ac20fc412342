"""Loops as people work with them: apply a declaration, and stay in charge of what it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec
from sqlalchemy import Connection, insert

from trimtab.data.versions import Dataset, find_dataset
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, RefusedError, unknown
from trimtab.loop.champions import Champion, champion_of
from trimtab.loop.cycle import Cycle, Moved, State
from trimtab.loop.cycles import (
    active_cycle,
    amend_cycle,
    create_cycle,
    endings,
    get_cycle,
    list_cycles,
    move_cycle,
    moves_of,
)
from trimtab.loop.declaration import Declaration, Loop
from trimtab.loop.job_queue import withdraw
from trimtab.loop.machine import Mode, Move
from trimtab.loop.records import (
    Applied,
    LoopRecord,
    TriggerDecision,
    add_applied,
    all_loops,
    amend_loop,
    decisions_of,
    find_loop,
    get_applied,
    get_loop,
    record_decision,
)
from trimtab.loop.routing import Routing
from trimtab.loop.schema import loops_table
from trimtab.loop.triggers import Firing
from trimtab.models.gates import policy_of
from trimtab.models.policy import Override
from trimtab.models.registry import Registry
from trimtab.pipelines.project import snapshot
from trimtab.serving.endpoints import Endpoints
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

MANUAL = "manual"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a loop stands."""

    loop: LoopRecord
    declaration: Declaration
    champion: Champion | None
    cycle: Cycle | None
    finished: tuple[Cycle, ...]


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Every decision about a cycle and the numbers it was made on: what started it, and each move."""

    cycle: Cycle
    decisions: tuple[TriggerDecision, ...]
    moves: tuple[Moved, ...]


class Loops:
    """The loops of a workspace. Every change is journaled in the name of the workspace's actor."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._registry = Registry(workspace)
        self._endpoints = Endpoints(workspace)
        self._routing = Routing(workspace)

    # -- declarations -------------------------------------------------------------------------------------

    def apply(self, loop: Loop, *, project: Path | None = None, override: Override | None = None) -> Applied:
        """Put a declaration into force, with the code of `project` (by default the workspace's folder).

        Makes the model and the endpoint if need be, and puts the gates on the model. Applying the same
        again changes nothing. A cycle that is under way finishes under the version it began with. Raises
        NotFoundError for a dataset that is not there, ConflictError if another loop has the model, and
        RefusedError for gates that were taken away or changed without an `override`.
        """
        declared = loop.declaration
        code = snapshot(self._workspace, project)

        def work(tx: Transaction) -> Applied:
            standing = find_loop(tx.connection, declared.name)
            if standing is not None:
                present = get_applied(tx.connection, standing.name, standing.version)
                if (present.digest, present.project) == (declared.digest, code):
                    return present
                _check_same_model(present.declaration, declared)
            self._check_surroundings(tx.connection, declared)
            self._registry.create_model(tx, declared.model, exist_ok=True)
            policy, by = policy_of(declared.gates), f"loop {declared.name}"
            self._registry.govern(tx, declared.model, policy, by=by, override=override)
            self._endpoints.create(tx, declared.endpoint, declared.model)
            return _store(tx, standing, declared, code)

        return self._workspace.write(work)

    def _check_surroundings(self, connection: Connection, declared: Declaration) -> None:
        for name in declared.datasets:
            try:
                dataset = find_dataset(connection, name)
            except NotFoundError as error:
                raise NotFoundError(
                    f"The loop '{declared.name}' reads the dataset '{name}', which is not there.",
                    hint=f"{error.hint} Make it with: trimtab data create {name}",
                ) from None
            if name == declared.dataset:
                _check_holdout(declared, dataset)
        for other in all_loops(connection):
            if other.name == declared.name:
                continue
            theirs = get_applied(connection, other.name, other.version).declaration
            if theirs.model == declared.model or theirs.endpoint == declared.endpoint:
                raise ConflictError(
                    f"The loop '{other.name}' already has the model '{theirs.model}' and the endpoint "
                    f"'{theirs.endpoint}'.",
                    hint="Give this loop a model and an endpoint of its own.",
                )

    # -- a person in charge -------------------------------------------------------------------------------

    def trigger(self, name: str, *, params: dict[str, object] | None = None, reason: str = "") -> Cycle:
        """Start a cycle now, whatever the budget says; `params` override the training pipeline's.

        A cycle that waits for approval makes way. Raises ConflictError if another is under way, RefusedError
        if the loop is paused, InvalidInputError for a parameter that the pipeline does not have.
        """
        given: dict[str, object] = msgspec.to_builtins(params or {})

        def work(tx: Transaction) -> Cycle:
            loop, applied = self._applied(tx.connection, name)
            if loop.paused:
                raise RefusedError(f"The loop '{name}' is paused.", hint=f"Run: trimtab loop resume {name}")
            for param in given:
                if param not in applied.declaration.parameters:
                    raise _unknown_parameter(param, applied.declaration)
            waiting = active_cycle(tx.connection, name)
            if waiting is not None and waiting.state in (State.PROPOSED, State.AWAITING_APPROVAL):
                move_cycle(tx, waiting, Move(to=State.SUPERSEDED, reason=f"{tx.actor} started another cycle"))
            champion = champion_of(tx.connection, applied.declaration.model)
            cycle = create_cycle(
                tx,
                loop=name,
                declaration=applied.version,
                state=State.TRIGGERED,
                trigger=MANUAL,
                reason=reason or f"asked for by {tx.actor}",
                baseline=None if champion is None else champion.version,
                params=given,
                evidence={"params": given},
            )
            firing = Firing(trigger=MANUAL, occasion=cycle.id, reason=cycle.reason, numbers={})
            record_decision(tx, name, firing, outcome="started", reason=cycle.reason, cycle=cycle.id)
            return cycle

        return self._workspace.write(work)

    def approve(self, name: str, *, by: str = "", reason: str = "") -> Cycle:
        """Approve the cycle that waits: a proposal may begin, a candidate may be rolled out.

        `by` is the person, by default the workspace's actor. Raises ConflictError if nothing waits.
        """

        def work(tx: Transaction) -> Cycle:
            get_loop(tx.connection, name)
            cycle = active_cycle(tx.connection, name)
            if cycle is None or cycle.state not in (State.PROPOSED, State.AWAITING_APPROVAL):
                state = "there is no cycle" if cycle is None else f"'{cycle.id}' is {cycle.state.value}"
                raise ConflictError(
                    f"Nothing of the loop '{name}' waits for approval: {state}.",
                    hint=f"See: trimtab loop show {name}",
                )
            person = by or tx.actor
            details = {"loop": name, "state": cycle.state.value, "by": person, "candidate": cycle.candidate}
            tx.journal("cycle.approved", "cycle", cycle.id, reason=reason, details=details)
            return amend_cycle(tx, cycle, approved_by=person)

        return self._workspace.write(work)

    def pause(self, name: str, *, reason: str = "") -> LoopRecord:
        """Let the loop do nothing but watch, until `resume`. A rollout stays where it is."""
        return self._amend(name, "loop.paused", reason, paused=1)

    def resume(self, name: str, *, reason: str = "") -> LoopRecord:
        """Let a paused loop go on."""
        return self._amend(name, "loop.resumed", reason, paused=0)

    def set_mode(self, name: str, mode: Mode, *, reason: str = "") -> LoopRecord:
        """Say how much the loop may do by itself; holds until a changed declaration is applied."""
        if mode not in get_args(Mode):
            raise InvalidInputError(
                f"The mode '{mode}' is not known.", hint=f"Give one of {', '.join(get_args(Mode))}."
            )
        return self._amend(name, "loop.mode_set", reason, mode=mode)

    def rollback(self, name: str, *, reason: str) -> Cycle | None:
        """Undo what was last let onto the endpoint, at once.

        A challenger in rollout leaves the route and its cycle is rolled back. Where none is, the previous
        champion comes back, and a cycle that is under way is superseded. Answers the cycle that this
        ended, if any. Raises ConflictError if there is nothing to go back to.
        """

        def work(tx: Transaction) -> Cycle | None:
            _, applied = self._applied(tx.connection, name)
            declared = applied.declaration
            cycle = active_cycle(tx.connection, name)
            words = reason or f"asked for by {tx.actor}"
            if cycle is not None and cycle.state.rolling_out:
                assert cycle.candidate is not None
                self._registry.reject_version(tx, declared.model, cycle.candidate, reason=words)
                self._routing.settle(tx, declared, cycle, reason=words)
                return move_cycle(tx, cycle, Move(to=State.ROLLED_BACK, reason=words))
            self._registry.rollback(tx, declared.model, reason=words)
            self._routing.settle(tx, declared, None, reason=words)
            champion = champion_of(tx.connection, declared.model)
            tx.journal("loop.rolled_back", "loop", name, reason=words, details={"champion": champion})
            if cycle is None:
                return None
            withdraw(tx, cycle.id)
            return move_cycle(tx, cycle, Move(to=State.SUPERSEDED, reason=f"rolled back: {words}"))

        return self._workspace.write(work)

    def cancel(self, name: str, *, reason: str = "") -> Cycle:
        """End the cycle that is under way before it lets anything onto the endpoint, and what workers do for
        it; the champion stays. Raises ConflictError if there is none, or if its challenger is out already."""

        def work(tx: Transaction) -> Cycle:
            get_loop(tx.connection, name)
            cycle = active_cycle(tx.connection, name)
            if cycle is None:
                raise ConflictError(
                    f"No cycle of the loop '{name}' is under way.", hint=f"See: trimtab loop show {name}"
                )
            if cycle.state.rolling_out:
                raise ConflictError(
                    f"The challenger of cycle '{cycle.id}' is out already: it is in {cycle.state.value}.",
                    hint=f"Take it back with: trimtab loop rollback {name}",
                )
            withdraw(tx, cycle.id)
            words = reason or f"asked for by {tx.actor}"
            return move_cycle(tx, cycle, Move(to=State.SUPERSEDED, reason=f"cancelled: {words}"))

        return self._workspace.write(work)

    # -- what is ------------------------------------------------------------------------------------------

    def list(self) -> Sequence[LoopRecord]:
        """All loops by name."""
        with self._workspace.read() as connection:
            return all_loops(connection)

    def status(self, name: str) -> Status:
        """How the loop stands, with its newest finished cycles; raises NotFoundError."""
        with self._workspace.read() as connection:
            loop, applied = self._applied(connection, name)
            cycles = list_cycles(connection, name, limit=20)
            return Status(
                loop=loop,
                declaration=applied.declaration,
                champion=champion_of(connection, applied.declaration.model),
                cycle=next((cycle for cycle in cycles if not cycle.state.final), None),
                finished=tuple(cycle for cycle in cycles if cycle.state.final),
            )

    def active_cycle(self, name: str) -> Cycle | None:
        """The unfinished cycle, if there is one."""
        with self._workspace.read() as connection:
            return active_cycle(connection, name)

    def cycles(self, name: str, *, limit: int = 1000) -> Sequence[Cycle]:
        """The loop's cycles, newest first; raises NotFoundError."""
        with self._workspace.read() as connection:
            get_loop(connection, name)
            return list_cycles(connection, name, limit=limit)

    def endings(self, name: str) -> dict[str, str]:
        """Why each cycle stands where it does, by its id; raises NotFoundError."""
        with self._workspace.read() as connection:
            get_loop(connection, name)
            return endings(connection, name)

    def decisions(self, name: str, *, limit: int = 1000) -> Sequence[TriggerDecision]:
        """What the triggers that fired led to, newest first; raises NotFoundError."""
        with self._workspace.read() as connection:
            get_loop(connection, name)
            return decisions_of(connection, name, limit=limit)

    def why(self, name: str, cycle: str | int | None = None) -> Why:
        """The evidence of every decision about a cycle, given by its id or number, or the newest one;
        raises NotFoundError."""
        with self._workspace.read() as connection:
            get_loop(connection, name)
            if cycle is None:
                newest = list_cycles(connection, name, limit=1)
                if not newest:
                    raise NotFoundError(f"The loop '{name}' has had no cycle yet.")
                found = newest[0]
            else:
                number = str(cycle)
                found = get_cycle(connection, f"{name}-{number}" if number.isdigit() else number)
            return Why(
                cycle=found,
                decisions=tuple(decisions_of(connection, name, cycle=found.id)),
                moves=tuple(moves_of(connection, found.id)),
            )

    def _applied(self, connection: Connection, name: str) -> tuple[LoopRecord, Applied]:
        loop = get_loop(connection, name)
        return loop, get_applied(connection, name, loop.version)

    def _amend(self, name: str, action: str, reason: str, **changes: object) -> LoopRecord:
        def work(tx: Transaction) -> LoopRecord:
            before = get_loop(tx.connection, name)
            amend_loop(tx, name, **changes)
            after = get_loop(tx.connection, name)
            if after != before:
                tx.journal(action, "loop", name, reason=reason, details=changes)
            return after

        return self._workspace.write(work)


def _check_holdout(declared: Declaration, dataset: Dataset) -> None:
    if declared.holdout.timed and dataset.time is None:
        raise InvalidInputError(
            f"The dataset '{dataset.name}' has no time column, so no last days of it can be held out.",
            hint="Hold out a share of it, holdout=tt.share(0.1), or create it with a time column.",
        )
    if not declared.holdout.length and declared.holdout.part is None:
        raise InvalidInputError(
            f"The loop '{declared.name}' holds out all rows, which leaves none to train on.",
            hint="Hold out some: holdout=tt.last(days=14), or tt.share(0.1).",
        )


def _store(tx: Transaction, standing: LoopRecord | None, declared: Declaration, code: str) -> Applied:
    version = 1 if standing is None else standing.version + 1
    if standing is None:
        row = {"name": declared.name, "version": version, "mode": declared.mode, "paused": 0}
        tx.execute(insert(loops_table).values(**row, created_at=tx.at, watched_at=tx.at))
    else:
        before = get_applied(tx.connection, standing.name, standing.version).declaration
        mode = standing.mode if before.mode == declared.mode else declared.mode
        amend_loop(tx, declared.name, version=version, mode=mode)
    add_applied(tx, declared, code, version)
    details = {"version": version, "declaration": declared, "project": code}
    tx.journal("loop.applied", "loop", declared.name, details=details)
    return get_applied(tx.connection, declared.name, version)


def _check_same_model(before: Declaration, after: Declaration) -> None:
    if (before.model, before.endpoint) != (after.model, after.endpoint):
        raise ConflictError(
            f"The loop '{after.name}' has the model '{before.model}' and the endpoint '{before.endpoint}'.",
            hint="Keep them, or declare a loop of another name.",
        )


def _unknown_parameter(param: str, declared: Declaration) -> InvalidInputError:
    hint = unknown("parameter", param, declared.parameters).hint
    return InvalidInputError(f"The pipeline '{declared.pipeline}' has no parameter '{param}'.", hint=hint)
