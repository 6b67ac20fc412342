"""Looks at a loop on its schedule: polls sources, evaluates monitors, and lets triggers start cycles.

A look is one transaction: what the monitors found, the alerts that this opens or resolves, what the triggers
led to, the cycle that starts, and the moment up to which all this is done. So no occasion is lost or seen
twice, whenever a controller dies.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from trimtab.data.versions import DatasetVersion, newest_version
from trimtab.loop.budget import refusal
from trimtab.loop.caches import tidy_caches
from trimtab.loop.champions import Champion, champion_since
from trimtab.loop.cycle import Cycle, State
from trimtab.loop.cycles import create_cycle, last_given, list_cycles, spent
from trimtab.loop.declaration import Declaration
from trimtab.loop.findings import evaluate_monitors, record_findings, tell, unevaluated
from trimtab.loop.intake import due_looks
from trimtab.loop.job_queue import Standing, order, standing
from trimtab.loop.machine import Move
from trimtab.loop.orders import IngestOrder, LabelsOrder, WatchAnswer, WatchOrder
from trimtab.loop.pilot import Fence
from trimtab.loop.records import Applied, LoopRecord, decided, mark_watched, record_decision
from trimtab.loop.retention import forget
from trimtab.loop.schedule import latest_time, next_time
from trimtab.loop.triggers import Every, Firing, Observation, fire
from trimtab.monitoring.monitors import Finding, runs_user_code
from trimtab.serving.endpoints import labels_dataset
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

PATIENCE = timedelta(minutes=15)
"""How long (event time) a look waits for new rows that are being read, so that it sees them."""

BOOTSTRAP = "bootstrap"


class Watcher:
    """Looks after what is due by event time alone. Every transaction of it checks the fence first."""

    def __init__(self, workspace: Workspace, fence: Fence) -> None:
        self._workspace = workspace
        self._fence = fence

    def step(
        self, loop: LoopRecord, applied: Applied, cycle: Cycle | None, champion: Champion | None
    ) -> bool:
        """Do what is due for this loop; False if nothing is."""
        if self._poll_sources(applied.declaration) or self._tell_labels(applied.declaration.endpoint):
            return True
        if champion is None and cycle is None and not loop.paused and self._bootstrap(loop, applied):
            return True
        moment = self._moment(applied)
        if moment <= loop.watched_at or self._rows_on_their_way(applied.declaration):
            return False
        return self._look(loop, applied, champion, moment)

    def next_due(self, loop: LoopRecord, applied: Applied) -> datetime:
        """The event time of this loop's next look or poll."""
        looks = [next_time(schedule, loop.watched_at) for schedule in schedules(applied.declaration)]
        with self._workspace.read() as connection:
            polls = [due.at for due in due_looks(connection, _fed(applied.declaration))]
        return min(looks + polls)

    # -- sources ------------------------------------------------------------------------------------------

    def _poll_sources(self, declared: Declaration) -> bool:
        """Order a look at the sources that are due; False if none is, or it is ordered already."""
        now = self._workspace.clock.now()
        with self._workspace.read() as connection:
            new = [
                due
                for due in due_looks(connection, _fed(declared))
                if due.at <= now and standing(connection, due.key).status == "absent"
            ]
        if not new:
            return False

        def work(tx: Transaction) -> None:
            self._fence(tx)
            for due in new:
                order(tx, IngestOrder(dataset=due.dataset), key=due.key)

        self._workspace.write(work)
        return True

    def _tell_labels(self, endpoint: str) -> bool:
        """Order that labels which came in by a source are told, each version of them once."""
        with self._workspace.read() as connection:
            newest = newest_version(connection, labels_dataset(endpoint))
            untold: list[LabelsOrder] = []
            while newest is not None and len(untold) < newest.number:
                request = LabelsOrder(endpoint=endpoint, version=newest.number - len(untold))
                if standing(connection, _labels_key(request)).status != "absent":
                    break
                untold.append(request)
        if not untold:
            return False

        def work(tx: Transaction) -> None:
            self._fence(tx)
            for request in reversed(untold):
                order(tx, request, key=_labels_key(request))

        self._workspace.write(work)
        return True

    def waits(self, loop: LoopRecord, applied: Applied) -> bool:
        """Whether workers are at something that decisions of this moment should wait for: sources that are
        being read, monitors that are being evaluated. Then the order of decisions does not depend on who is
        quicker. A worker that is away for long does not hold a loop up."""
        with self._workspace.read() as connection:
            if self._pending(standing(connection, _watch_key(loop, self._moment(applied)))):
                return True
        return self._rows_on_their_way(applied.declaration)

    def _rows_on_their_way(self, declared: Declaration) -> bool:
        now = self._workspace.clock.now()
        with self._workspace.read() as connection:
            labels = newest_version(connection, labels_dataset(declared.endpoint))
            if labels is not None:
                request = LabelsOrder(endpoint=declared.endpoint, version=labels.number)
                if self._pending(standing(connection, _labels_key(request))):
                    return True
            return any(
                self._pending(standing(connection, due.key))
                for due in due_looks(connection, _fed(declared))
                if due.at <= now
            )

    def _pending(self, found: Standing) -> bool:
        now = self._workspace.clock.now()
        return found.status == "pending" and found.since is not None and now - found.since <= PATIENCE

    def _moment(self, applied: Applied) -> datetime:
        """The newest moment of the loop's schedules."""
        now = self._workspace.clock.now()
        return max(latest_time(schedule, now) for schedule in schedules(applied.declaration))

    # -- looks --------------------------------------------------------------------------------------------

    def _look(self, loop: LoopRecord, applied: Applied, champion: Champion | None, moment: datetime) -> bool:
        """Evaluate the monitors as of `moment` and let the triggers decide; False while a worker still
        evaluates those that need the user's code."""
        declared = applied.declaration
        findings = evaluate_monitors(self._workspace, declared, moment, user_code=False)
        if any(runs_user_code(monitor) for monitor in declared.monitors):
            request = WatchOrder(loop=loop.name, version=applied.version, moment=moment)
            key = _watch_key(loop, moment)
            with self._workspace.read() as connection:
                done = standing(connection, key)
            if done.status == "absent":
                self._order(request, key)
                return True
            if done.status == "pending":
                return False
            if done.status == "done":
                findings += msgspec.convert(done.answer, WatchAnswer).findings
            findings += (unevaluated(done.failure),)

        new_day = moment.date() != loop.watched_at.date()

        def work(tx: Transaction) -> None:
            self._fence(tx)
            mark_watched(tx, loop, moment)
            record_findings(tx, loop.name, moment, findings)
            if new_day:
                forget(tx, self._workspace, moment)
            if not loop.paused:
                self._decide(tx, loop, applied, champion, moment, findings)

        self._workspace.write(work)
        if new_day:
            tidy_caches(self._workspace)
        return True

    def _order(self, request: WatchOrder, key: str) -> None:
        def work(tx: Transaction) -> None:
            self._fence(tx)
            order(tx, request, key=key)

        self._workspace.write(work)

    def _decide(
        self,
        tx: Transaction,
        loop: LoopRecord,
        applied: Applied,
        champion: Champion | None,
        moment: datetime,
        findings: tuple[Finding, ...],
    ) -> None:
        declared = applied.declaration
        newest = newest_version(tx.connection, declared.dataset)
        seen = Observation(
            at=moment,
            since=loop.watched_at,
            findings=findings,
            dataset_version=None if newest is None else newest.number,
            rows=0 if newest is None else newest.rows,
            rows_given=last_given(tx.connection, loop.name),
            champion=None if champion is None else champion.version,
            champion_since=champion_since(tx.connection, declared.model),
        )
        firings = [firing for trigger in declared.triggers if (firing := fire(trigger, seen)) is not None]
        firings = [f for f in firings if not decided(tx.connection, loop.name, f.trigger, f.occasion)]
        if firings:
            settle(tx, loop, applied, firings, champion)

    def _bootstrap(self, loop: LoopRecord, applied: Applied) -> bool:
        """Start the first cycle once there is data: one for each declaration and version of the data.

        A declaration that was corrected does not wait for the cooldown of what failed before it.
        """
        with self._workspace.read() as connection:
            newest = newest_version(connection, applied.declaration.dataset)
            if newest is None:
                return False
            firing = _first(newest, applied)
            if decided(connection, loop.name, firing.trigger, firing.occasion):
                return False
            tried = any(
                cycle.declaration == applied.version for cycle in list_cycles(connection, loop.name, limit=1)
            )
            now = self._workspace.clock.now()
            used = spent(connection, loop.name, now)
            if tried and refusal(applied.declaration.budget, used, now) is not None:
                return False

        def work(tx: Transaction) -> None:
            self._fence(tx)
            settle(tx, loop, applied, [firing], None, heed_budget=tried)

        self._workspace.write(work)
        return True


def settle(
    tx: Transaction,
    loop: LoopRecord,
    applied: Applied,
    firings: list[Firing],
    champion: Champion | None,
    *,
    heed_budget: bool = True,
) -> Cycle | None:
    """Start one cycle for all that fired, or keep why not; either is recorded once for each firing."""
    refused = refusal(applied.declaration.budget, spent(tx.connection, loop.name, tx.at), tx.at)
    if refused is not None and heed_budget:
        for firing in firings:
            reason = f"{firing.reason}; no cycle: {refused.explanation}"
            record_decision(
                tx, loop.name, firing, outcome="suppressed", because=refused.because, reason=reason
            )
        return None
    reason = "; ".join(firing.reason for firing in firings)
    cycle = create_cycle(
        tx,
        loop=loop.name,
        declaration=applied.version,
        state=State.PROPOSED if loop.mode == "advise" else State.TRIGGERED,
        trigger=firings[0].trigger,
        reason=reason,
        baseline=None if champion is None else champion.version,
        params={},
        evidence={"triggers": firings},
    )
    for firing in firings:
        record_decision(tx, loop.name, firing, outcome="started", reason=firing.reason, cycle=cycle.id)
    tell(tx, cycle, Move(to=cycle.state, reason=reason))
    return cycle


def schedules(declared: Declaration) -> list[str]:
    """The schedules that a loop is looked at on: its own, and those of its triggers."""
    return [
        declared.watch,
        *(trigger.schedule for trigger in declared.triggers if isinstance(trigger, Every)),
    ]


def _first(newest: DatasetVersion, applied: Applied) -> Firing:
    return Firing(
        trigger=BOOTSTRAP,
        occasion=f"declaration {applied.version}, version {newest.number}",
        reason="there is no champion yet",
        numbers={"dataset_version": newest.number, "rows": newest.rows},
    )


def _fed(declared: Declaration) -> list[str]:
    """The datasets whose sources a loop looks at: those that it reads, and its endpoint's labels."""
    return [*declared.datasets, labels_dataset(declared.endpoint)]


def _labels_key(request: LabelsOrder) -> str:
    return f"labels:{request.endpoint}:{request.version}"


def _watch_key(loop: LoopRecord, moment: datetime) -> str:
    return f"watch:{loop.name}:{moment.isoformat()}"
