"""The controller's side of the job queue: ordering work once, and how an order stands."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, select

from trimtab.loop.orders import KINDS, Order
from trimtab.pipelines.jobs import JobError, cancel, enqueue
from trimtab.pipelines.schema import jobs_table as jobs
from trimtab.store.database import Transaction

Status = Literal["absent", "pending", "done", "failed"]
_STATUS: dict[str, Status] = {
    "queued": "pending",
    "running": "pending",
    "finished": "done",
    "failed": "failed",
    "cancelled": "failed",
}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How an order stands: `answer` is what the worker answered, `failure` why it could not, `since` the
    event time at which it was ordered."""

    status: Status
    since: datetime | None = None
    answer: object = None
    failure: str = ""


def order(tx: Transaction, request: Order, *, key: str) -> None:
    """Order work; the same key again orders nothing more."""
    enqueue(tx, KINDS[type(request)], request, dedupe_key=key)


def standing(connection: Connection, key: str) -> Standing:
    """How the order of this key stands."""
    query = select(jobs.c.state, jobs.c.result, jobs.c.error, jobs.c.created_at).where(
        jobs.c.dedupe_key == key
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return Standing(status="absent")
    failure = ""
    if row.state in ("failed", "cancelled"):
        error = None if row.error is None else msgspec.convert(row.error, JobError)
        failure = "it was cancelled" if error is None else error.message
    return Standing(status=_STATUS[row.state], since=row.created_at, answer=row.result, failure=failure)


def cycle_key(cycle: str, what: str) -> str:
    """The key of the order of a cycle, by the cycle's id: to "ingest", "train" or "gates"."""
    return f"cycle:{cycle}:{what}"


def withdraw(tx: Transaction, cycle: str) -> None:
    """Stop what is still done or waits to be done for a cycle that is over."""
    keys = [cycle_key(cycle, what) for what in ("ingest", "train", "gates")]
    query = select(jobs.c.id).where(jobs.c.dedupe_key.in_(keys), jobs.c.ended_at.is_(None))
    for job in tx.execute(query).scalars().all():
        cancel(tx, job)


def unfinished_jobs(connection: Connection) -> list[str]:
    """The orders that are queued or being worked on, by key."""
    query = select(jobs.c.dedupe_key).where(jobs.c.state.in_(("queued", "running")))
    return list(connection.execute(query.order_by(jobs.c.number)).scalars())
