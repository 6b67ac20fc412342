"""The queue of jobs in the metadata store.

A worker claims a job for a while and keeps claiming it by heartbeats; each claim has a token, and only the
newest token may finish the job. So a worker that died, or slept too long, can do no harm: its job goes to
another, and its own late answer is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, and_, delete, func, or_, select, update

from trimtab.errors import LeaseLostError, unknown
from trimtab.pipelines.schema import jobs_table as jobs
from trimtab.store.database import Transaction
from trimtab.store.leases import CLOCK_SKEW
from trimtab.store.upsert import upsert
from trimtab.workspace import Workspace

State = Literal["queued", "running", "finished", "failed", "cancelled"]

LEASE_SECONDS = 20.0
MAX_ATTEMPTS = 3

_NEVER = datetime.fromtimestamp(0, UTC)


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed: `code` as in the error tree ("step_failed"), or "died" for a lost process."""

    code: str
    message: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A unit of work for the worker role. `spec` and `result` are builtins as JSON has them.

    `token` is larger for each claim. `created_at` and `ended_at` are event times, `lease_until` is of the
    system's clock.
    """

    id: str
    kind: str
    spec: Any
    dedupe_key: str
    state: State
    actor: str
    attempts: int
    max_attempts: int
    worker: str
    token: int
    lease_until: datetime
    cancel_requested: bool
    result: Any
    error: JobError | None
    created_at: datetime
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("finished", "failed", "cancelled")


def enqueue(
    tx: Transaction, kind: str, spec: object, *, dedupe_key: str, max_attempts: int = MAX_ATTEMPTS
) -> Job:
    """Ask for a job within the caller's transaction.

    `spec` is anything that msgspec can encode. Where a job with that `dedupe_key` stands, whatever became
    of it, that one is the answer and nothing is added.
    """
    row = {
        "id": uuid.uuid4().hex,
        "kind": kind,
        "spec": spec,
        "dedupe_key": dedupe_key,
        "state": "queued",
        "actor": tx.actor,
        "attempts": 0,
        "max_attempts": max_attempts,
        "worker": "",
        "token": 0,
        "lease_until": _NEVER,
        "cancel_requested": 0,
        "created_at": tx.at,
    }
    upsert(tx, jobs, [row], keys=["dedupe_key"], update=[])
    return _job(tx.execute(select(jobs).where(jobs.c.dedupe_key == dedupe_key)).one())


def get_job(connection: Connection, job_id: str) -> Job:
    """The job; raises NotFoundError."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise unknown("job", job_id, [], hint="See `trimtab run --list`.")
    return _job(row)


def cancel(tx: Transaction, job_id: str) -> Job:
    """Cancel a job: a queued one at once, a running one as soon as its worker looks.

    Nothing happens to a job that has ended.
    """
    job = get_job(tx.connection, job_id)
    if job.state == "queued":
        values: dict[str, object] = {"state": "cancelled", "ended_at": tx.at, "cancel_requested": 1}
    else:
        values = {"cancel_requested": 1}
    # The state is asked for again, since a worker may have claimed the job meanwhile.
    tx.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.state == job.state).values(values))
    return get_job(tx.connection, job_id)


class Jobs:
    """The job queue of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._ws = workspace

    def enqueue(self, kind: str, spec: object, *, dedupe_key: str, max_attempts: int = MAX_ATTEMPTS) -> Job:
        """Ask for a job; see the function `enqueue` for use within a transaction."""
        return self._ws.write(
            lambda tx: enqueue(tx, kind, spec, dedupe_key=dedupe_key, max_attempts=max_attempts)
        )

    def get(self, job_id: str) -> Job:
        """The job; raises NotFoundError."""
        with self._ws.read() as connection:
            return get_job(connection, job_id)

    def list(self, state: State | None = None, *, limit: int = 100) -> Sequence[Job]:
        """The newest jobs first, of one state or of all."""
        query = select(jobs).order_by(jobs.c.number.desc()).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self._ws.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def unfinished(self) -> int:
        """How many jobs are queued or running."""
        with self._ws.read() as connection:
            return unfinished(connection)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; see the function `cancel`."""
        return self._ws.write(lambda tx: cancel(tx, job_id))

    def claim(self, worker: str, kinds: Sequence[str], *, seconds: float = LEASE_SECONDS) -> Job | None:
        """Take the oldest job of these kinds that is queued, or whose worker let its claim run out.

        A job that has had all its attempts becomes failed instead, with the code "died".
        """
        with self._ws.read() as connection:  # mostly there is nothing, and looking takes no lock
            if connection.execute(_open_jobs(kinds, seconds).limit(1)).one_or_none() is None:
                return None
        return self._ws.write(lambda tx: _claim(tx, worker, kinds, seconds))

    def heartbeat(self, job: Job, *, seconds: float = LEASE_SECONDS) -> Job:
        """Keep a claim for `seconds` more; the answer tells whether somebody wants the job cancelled.
        Raises LeaseLostError if the claim was lost."""

        def work(tx: Transaction) -> Job:
            _set(tx, job, lease_until=datetime.now(UTC) + timedelta(seconds=seconds))
            return get_job(tx.connection, job.id)

        return self._ws.write(work)

    def finish(self, job: Job, result: object) -> None:
        """Record the result; raises LeaseLostError if the claim was lost."""
        self._ws.write(lambda tx: _set(tx, job, state="finished", result=result, error=None, ended_at=tx.at))

    def fail(self, job: Job, error: JobError, *, retry: bool = False) -> None:
        """Record a failure; with `retry`, queue the job again while it has attempts left. Raises
        LeaseLostError if the claim was lost."""

        def work(tx: Transaction) -> None:
            if retry and job.attempts < job.max_attempts:
                _set(tx, job, state="queued", error=error, worker="", lease_until=_NEVER)
            else:
                _set(tx, job, state="failed", error=error, ended_at=tx.at)

        self._ws.write(work)

    def cancelled(self, job: Job) -> None:
        """Record that a claimed job was stopped because it was cancelled."""
        self._ws.write(lambda tx: _set(tx, job, state="cancelled", ended_at=tx.at))

    def give_back(self, job: Job) -> None:
        """Queue a claimed job again without counting the attempt: its worker was asked to end."""
        self._ws.write(
            lambda tx: _set(tx, job, state="queued", attempts=job.attempts - 1, worker="", lease_until=_NEVER)
        )


def unfinished(connection: Connection) -> int:
    """How many jobs are queued or running."""
    query = select(func.count()).select_from(jobs).where(jobs.c.state.in_(("queued", "running")))
    return connection.execute(query).scalar_one()


def prune_jobs(tx: Transaction, before: datetime, kinds: Sequence[str]) -> None:
    """Forget jobs of these kinds that ended and were asked for before an event time; one of theirs that is
    asked for again is then done again."""
    tx.execute(
        delete(jobs).where(jobs.c.kind.in_(kinds), jobs.c.ended_at.is_not(None), jobs.c.created_at < before)
    )


def _open_jobs(kinds: Sequence[str], seconds: float) -> Any:
    now = datetime.now(UTC)
    latest = now + timedelta(seconds=seconds) + CLOCK_SKEW
    return (
        select(jobs)
        .where(
            jobs.c.kind.in_(kinds),
            or_(
                jobs.c.state == "queued",
                and_(jobs.c.state == "running", ~jobs.c.lease_until.between(now, latest)),
            ),
        )
        .order_by(jobs.c.number)
    )


def _claim(tx: Transaction, worker: str, kinds: Sequence[str], seconds: float) -> Job | None:
    while True:
        row = tx.execute(_open_jobs(kinds, seconds).limit(1).with_for_update(skip_locked=True)).one_or_none()
        if row is None:
            return None
        job = _job(row)
        if job.cancel_requested:
            _set(tx, job, state="cancelled", ended_at=tx.at)
        elif job.attempts >= job.max_attempts:
            died = JobError("died", f"Its process died in each of {job.attempts} attempts.")
            _set(tx, job, state="failed", error=job.error or died, ended_at=tx.at)
        else:
            break
    _set(
        tx,
        job,
        state="running",
        worker=worker,
        token=job.token + 1,
        attempts=job.attempts + 1,
        lease_until=datetime.now(UTC) + timedelta(seconds=seconds),
    )
    return get_job(tx.connection, job.id)


def _set(tx: Transaction, job: Job, **values: object) -> None:
    """Change a job if the claim `job` is still the newest; raises LeaseLostError otherwise."""
    changed = tx.execute(
        update(jobs)
        .where(jobs.c.id == job.id, jobs.c.token == job.token, jobs.c.state == job.state)
        .values(values)
    )
    if changed.rowcount != 1:
        raise LeaseLostError(
            f"The job {job.id} is no longer held by the claim {job.token} of '{job.worker}'."
        )


def _job(row: Any) -> Job:
    values = dict(row._mapping)
    del values["number"]
    values["cancel_requested"] = bool(values["cancel_requested"])
    if values["error"] is not None:
        values["error"] = msgspec.convert(values["error"], JobError)
    return Job(**values)
