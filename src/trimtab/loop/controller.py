"""The controller: compares each loop's declaration with what is, and takes the next small step.

One controller works at a time, the holder of a lease; the others stand by. Every transaction checks the
lease's fencing token, so a controller that was asleep while another took over changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from datetime import datetime
from pathlib import Path

from trimtab.errors import ConflictError, LeaseLostError, UnavailableError
from trimtab.loop.champions import champion_of
from trimtab.loop.cycle import Cycle
from trimtab.loop.cycles import active_cycles
from trimtab.loop.lockstep import lagging_shippers, settled
from trimtab.loop.pilot import Pilot
from trimtab.loop.records import Applied, LoopRecord, all_loops, get_applied
from trimtab.loop.watcher import Watcher
from trimtab.monitoring.webhook import Webhook
from trimtab.store.database import Transaction
from trimtab.store.leases import Lease, check_fence
from trimtab.store.replay import ReplayState, StoreClock
from trimtab.workspace import Workspace

LEASE = "controller"
LEASE_SECONDS = 6.0
POLL_SECONDS = 0.5
BEAT_SECONDS = 3.0
WEBHOOK_SECONDS = 1.0
REPLAY_POLL_SECONDS = 0.25
FIRST_PENALTY, LONGEST_PENALTY = 1.0, 60.0

_log = logging.getLogger(__name__)


class Controller:
    """Reconciles all loops of a workspace while it holds the lease.

    `holder` names it in the lease: a controller that comes back under the same name takes over at once,
    without waiting for the lease to run out.
    """

    def __init__(self, workspace: Workspace, *, holder: str = "controller") -> None:
        self.holder = holder
        self.failures: dict[str, str] = {}
        """Loops that could not be moved in their last pass, and why."""
        self._workspace = workspace.acting_as("controller")
        self._watcher = Watcher(self._workspace, self._fence)
        self._pilot = Pilot(self._workspace, self._fence)
        self._lease: Lease | None = None
        self._renew_at = 0.0
        self._applied: dict[tuple[str, int], Applied] = {}
        self._penalties: dict[str, tuple[float, float]] = {}

    def reconcile(self) -> bool:
        """One pass: the next small step of every loop. Answers whether anything was done; False too while
        another controller holds the lease."""
        self._workspace.clock.refresh()
        if not self._hold():
            return False
        with self._workspace.read() as connection:
            loops = all_loops(connection)
            cycles = active_cycles(connection)
        try:
            done = [self._tend(loop, cycles.get(loop.name)) for loop in loops]
        except LeaseLostError:
            self._lease = None
            return False
        return any(done)

    @property
    def leads(self) -> bool:
        """Whether this controller holds the lease, as far as it knows."""
        return self._lease is not None

    def next_due(self) -> datetime | None:
        """The earliest event time at which there will be something to do, if nothing else happens."""
        with self._workspace.read() as connection:
            loops = all_loops(connection)
            cycles = active_cycles(connection)
        moments = [self._watcher.next_due(loop, self._declared(loop.name, loop.version)) for loop in loops]
        moments += [
            cycle.look_at
            for cycle in cycles.values()
            if cycle.look_at is not None and cycle.state.rolling_out and not _paused(loops, cycle.loop)
        ]
        return min(moments, default=None)

    def close(self) -> None:
        """Let go of the lease, so that another controller need not wait for it."""
        if self._lease is not None:
            self._workspace.leases.release(self._lease)
            self._lease = None

    def _tend(self, loop: LoopRecord, cycle: Cycle | None) -> bool:
        """One step of one loop. A loop that fails is left alone for a while and does not stop the others."""
        if self._penalties.get(loop.name, (0.0, 0.0))[0] > time.monotonic():
            return False
        try:
            done = self._step(loop, cycle)
        except LeaseLostError:
            raise
        except ConflictError:
            return True  # somebody changed something between our look and our step: look again
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  (one loop's trouble must not stop the others)
            _log.exception("the loop '%s' cannot be moved on", loop.name)
            self.failures[loop.name] = f"{type(error).__name__}: {error}"
            last = self._penalties.get(loop.name, (0.0, FIRST_PENALTY / 2))[1]
            penalty = min(last * 2, LONGEST_PENALTY)
            self._penalties[loop.name] = (time.monotonic() + penalty, penalty)
            return False
        self.failures.pop(loop.name, None)
        self._penalties.pop(loop.name, None)
        return done

    def _step(self, loop: LoopRecord, cycle: Cycle | None) -> bool:
        applied = self._declared(loop.name, loop.version)
        with self._workspace.read() as connection:
            champion = champion_of(connection, applied.declaration.model)
        if self._watcher.step(loop, applied, cycle, champion):
            return True
        if cycle is None or self._watcher.waits(loop, applied):
            return False
        return self._pilot.step(loop, self._declared(loop.name, cycle.declaration), cycle, champion)

    def _declared(self, loop: str, version: int) -> Applied:
        key = (loop, version)
        if key not in self._applied:
            with self._workspace.read() as connection:
                self._applied[key] = get_applied(connection, loop, version)
        return self._applied[key]

    def _hold(self) -> bool:
        """Take or renew the lease; False while it is another's."""
        now = time.monotonic()
        try:
            if self._lease is None:
                self._lease = self._workspace.leases.acquire(LEASE, self.holder, seconds=LEASE_SECONDS)
            elif now >= self._renew_at:
                self._lease = self._workspace.leases.renew(self._lease, seconds=LEASE_SECONDS)
            else:
                return True
        except LeaseLostError:
            self._lease = None
        self._renew_at = now + LEASE_SECONDS / 3
        return self._lease is not None

    def _fence(self, tx: Transaction) -> None:
        if self._lease is None:
            raise LeaseLostError("This controller does not hold the lease.")
        check_fence(tx, self._lease)


def _paused(loops: list[LoopRecord], name: str) -> bool:
    return any(loop.paused for loop in loops if loop.name == name)


class ControllerRole:
    """A controller as a process: polls, reports itself as alive, and keeps step with a replay."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        host = socket.gethostname()
        self._id = f"controller-{host}-{os.getpid()}"
        # A folder workspace has one controller at a time; after a kill the next one need not wait.
        own = workspace.settings.database is None
        self.controller = Controller(workspace, holder=f"controller-{host}" if own else self._id)
        self._acknowledged = 0
        self._next_due: datetime | None = None
        self._beaten = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Reconcile until `stopping` is set, then let go of the lease."""
        if self._workspace.settings.webhook is not None:
            threading.Thread(
                target=self._deliver, args=(stopping,), name="trimtab-webhook", daemon=True
            ).start()
        watch = self._workspace.database.watch()
        try:
            while not stopping.is_set():
                try:
                    pause = self._turn()
                except UnavailableError as error:
                    _log.warning("reconciling waits: %s", error)
                    pause = POLL_SECONDS
                if replaying(self._workspace):
                    watch.wait(pause)
                else:
                    stopping.wait(pause)
        finally:
            with contextlib.suppress(UnavailableError):  # then both run out by themselves
                self.controller.close()
                self._workspace.instances.leave(self._id)

    def _deliver(self, stopping: threading.Event) -> None:
        """Post alerts beside the reconciling, which must not wait for somebody's slow server."""
        webhook = Webhook(self._workspace)
        while True:
            try:
                webhook.deliver()
            except UnavailableError as error:
                _log.warning("alerts wait: %s", error)
            if stopping.wait(WEBHOOK_SECONDS):
                return

    def _turn(self) -> float:
        """Do what can be done now; answers how many seconds to wait before the next turn."""
        self._workspace.clock.refresh()
        replay = replaying(self._workspace)
        if replay is None:
            return self._turn_in_real_time()
        if replay.generation == self._acknowledged:
            self._beat_if_due()
            return REPLAY_POLL_SECONDS
        if lagging_shippers(self._workspace, replay.generation):
            return REPLAY_POLL_SECONDS
        # Asked before the pass: what a job has finished by now, the pass sees.
        quiet = settled(self._workspace)
        if self.controller.reconcile():
            return 0.0
        if not quiet or not self.controller.leads or self.controller.failures:
            self._beat_if_due()
            return REPLAY_POLL_SECONDS
        self._next_due = self.controller.next_due()
        self._acknowledged = replay.generation
        self._beat()
        return REPLAY_POLL_SECONDS

    def _turn_in_real_time(self) -> float:
        self._beat_if_due()
        return 0.0 if self.controller.reconcile() else POLL_SECONDS

    def _beat_if_due(self) -> None:
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beat()

    def _beat(self) -> None:
        failures = dict(self.controller.failures)
        self._workspace.instances.beat(
            self._id,
            "controller",
            acknowledged=self._acknowledged,
            next_due=self._next_due,
            detail={"leads": self.controller.leads, "failures": failures},
        )
        self._beaten = time.monotonic()


def replaying(workspace: Workspace) -> ReplayState | None:
    """Where the replay stood when the clock was last refreshed; None if there is none, or it has ended."""
    clock = workspace.clock
    state = clock.replay if isinstance(clock, StoreClock) else None
    return None if state is None or state.ended else state


def run_controller(project: Path) -> None:
    """The controller role's main: reconciles the project's workspace until SIGTERM."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    logging.basicConfig(format="%(asctime)s controller %(levelname)s %(message)s", level=logging.WARNING)
    with Workspace.open(project, actor="controller") as workspace:
        ControllerRole(workspace).run(stopping)
