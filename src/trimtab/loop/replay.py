"""Replay in lockstep: event time moves on only when nobody has work due.

The driver sets event time and waits. Each log shipper ships what it finds and acknowledges; then the
controller works until nothing is due, no job is queued or running and all gateways serve the routes that
stand, and acknowledges in its turn. So a slow machine gives the same answers as a fast one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sqlalchemy import select

from trimtab.errors import UnavailableError
from trimtab.loop.job_queue import unfinished_jobs
from trimtab.loop.lockstep import failing_loops, lagging_gateways, lagging_shippers
from trimtab.store.replay import advance_replay, end_replay, start_replay
from trimtab.store.schema import instances_table
from trimtab.workspace import Workspace

POLL_SECONDS = 0.5

NEVER = datetime.max.replace(tzinfo=UTC)
"""Later than everything."""


class Replay:
    """Drives the event time of a workspace whose roles run."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.next_due = NEVER
        """The event time at which the controller has something to do next, as of the last advance; NEVER
        if it waits for nothing that event time alone would bring."""

    def start(self, at: datetime) -> None:
        """Put the workspace into replay at `at`; raises ConflictError if it already is. Do this before the
        roles start: they look for a replay as they open the workspace."""
        self._workspace.write(lambda tx: start_replay(tx, at))
        self._refresh()

    def advance(self, to: datetime, *, timeout: float = 120.0) -> None:
        """Move event time on to `to` (the present one is fine) and wait until all that is due is done.

        Raises ClockWentBackError if `to` is earlier than now, and UnavailableError, which names the role
        that has work left, if it is not done within `timeout` seconds of the system's clock.
        """
        generation = self._workspace.write(lambda tx: advance_replay(tx, to))
        self._refresh()
        deadline = time.monotonic() + timeout
        watch = self._workspace.database.watch()
        while not self._acknowledged(generation):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"The replay stands at {to.isoformat()}: {self._culprit(generation)}.",
                    hint="See the role's log in the workspace's folder 'logs'.",
                )
            watch.wait(POLL_SECONDS)

    def end(self) -> None:
        """Let event time stand still for good. The workspace can be opened again, and looked at."""
        self._workspace.write(end_replay)
        self._refresh()

    def _refresh(self) -> None:
        self._workspace.clock.refresh()

    def _acknowledged(self, generation: int) -> bool:
        query = (
            select(instances_table.c.next_due)
            .where(instances_table.c.role == "controller", instances_table.c.acknowledged >= generation)
            .limit(1)
        )
        with self._workspace.read() as connection:
            found = connection.execute(query).one_or_none()
        if found is None:
            return False
        self.next_due = found.next_due or NEVER
        return True

    def _culprit(self, generation: int) -> str:
        if behind := lagging_shippers(self._workspace, generation):
            return f"the log shipper of {', '.join(behind)} has not acknowledged it"
        if not self._workspace.instances.live("controller"):
            return "no controller runs"
        if failing := failing_loops(self._workspace):
            return "; ".join(f"the loop '{loop}' cannot be moved on: {why}" for loop, why in failing.items())
        with self._workspace.read() as connection:
            if jobs := unfinished_jobs(connection):
                worker = "" if self._workspace.instances.live("worker") else ", and no worker runs"
                return f"the worker has not finished {', '.join(jobs)}{worker}"
            if gateways := lagging_gateways(self._workspace, connection):
                return f"the gateway {', '.join(gateways)} does not serve the present route yet"
        return "the controller has not acknowledged it"
