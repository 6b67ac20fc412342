"""The running processes of each role: heartbeats, and what each has acknowledged."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import delete, select

from trimtab.store.database import Database, Transaction
from trimtab.store.leases import CLOCK_SKEW
from trimtab.store.schema import instances_table as instances
from trimtab.store.upsert import upsert

LIVE_SECONDS = 15.0
"""A process that has not been heard of for this long counts as dead."""


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a role, as it last reported.

    `acknowledged` is the replay generation whose work it has done; `next_due` the event time at which it
    has something to do next, if it knows; `detail` what else the role tells the others.
    """

    id: str
    role: str
    host: str
    pid: int
    address: str
    heartbeat_at: datetime
    acknowledged: int
    next_due: datetime | None
    detail: dict[str, Any]


class Instances:
    """Reads and writes heartbeats."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(
        self,
        id: str,
        role: str,
        *,
        address: str = "",
        acknowledged: int = 0,
        next_due: datetime | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Report as alive. Telemetry: nothing goes to the journal."""
        row = {
            "id": id,
            "role": role,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "address": address,
            "heartbeat_at": datetime.now(UTC),
            "acknowledged": acknowledged,
            "next_due": next_due,
            "detail": detail or {},
        }

        def work(tx: Transaction) -> None:
            upsert(tx, instances, [row], keys=["id"])

        self._database.write(work, actor=id)

    def leave(self, id: str) -> None:
        """Report as gone."""

        def work(tx: Transaction) -> None:
            tx.execute(delete(instances).where(instances.c.id == id))

        self._database.write(work, actor=id)

    def live(self, role: str | None = None) -> list[Instance]:
        """The processes heard of lately; one of this machine whose process is gone does not count."""
        now = datetime.now(UTC)
        query = select(instances).where(
            instances.c.heartbeat_at.between(now - timedelta(seconds=LIVE_SECONDS), now + CLOCK_SKEW)
        )
        if role is not None:
            query = query.where(instances.c.role == role)
        with self._database.read() as connection:
            found = [Instance(**row) for row in connection.execute(query.order_by(instances.c.id)).mappings()]
        here = socket.gethostname()
        return [instance for instance in found if instance.host != here or _exists(instance.pid)]


def prune_instances(tx: Transaction) -> None:
    """Drop processes that were not heard of for a day: they died without a word."""
    tx.execute(delete(instances).where(instances.c.heartbeat_at < datetime.now(UTC) - timedelta(days=1)))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
