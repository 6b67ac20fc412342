"""The worker role: claims jobs and runs each in a child process.

The worker's own process imports no user code and none of the heavy libraries; a fork server beside it has
them imported, so that a job starts in milliseconds. A job that crashes takes only its child with it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, cast

import msgspec

from trimtab.errors import LeaseLostError, TrimtabError, UnavailableError
from trimtab.pipelines.address import Address
from trimtab.pipelines.channel import Channel
from trimtab.pipelines.codecs import load_object
from trimtab.pipelines.jobs import LEASE_SECONDS, Job, JobError, Jobs
from trimtab.pipelines.pool import Child, Ended, Pool
from trimtab.store.replay import StoreClock
from trimtab.workspace import Workspace

PIPELINE_HANDLERS = {"pipeline": "trimtab.pipelines.pipeline_job:pipeline_job"}

PRELOAD = (
    "numpy",
    "polars",
    "lightgbm",
    "mlflow.models.model",
    "mlflow.types.schema",
    "sqlite3",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "trimtab.workspace",
    "trimtab.store.tables",
    "trimtab.data.datasets",
    "trimtab.tracking.log",
    "trimtab.pipelines.task",
    "trimtab.pipelines.pipeline_job",
)
"""What the fork server imports before it forks the first child."""

_log = logging.getLogger(__name__)

_ENTRY = "trimtab.pipelines.worker:run_job"
_POLL_SECONDS = 0.1
_REPLAY_POLL_SECONDS = 0.003
_GRACE_SECONDS = 5.0
_LOG_TAIL = 4000


@dataclass(frozen=True)
class RunningJob:
    """What a handler gets beside its spec: the job, and a pool for processes of its own."""

    job: Job
    pool: Pool


class Assigned(msgspec.Struct, frozen=True):
    """What the child is told: the handler, the job, the workspace."""

    handler: str
    job: Job
    address: Address


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The handler returned this."""

    result: Any


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The handler raised this. `retry`: it may go better another time."""

    error: JobError
    retry: bool


@dataclass
class _Claimed:
    job: Job
    renewed: float
    reply: Done | Broken | None = None
    cancelled: bool = False
    lost: bool = False
    kill_at: float | None = None
    late: float = 0.0
    started: float = field(default_factory=time.monotonic)


class Worker:
    """Runs jobs of the kinds that it has handlers for ("module:function", called with the workspace, the
    spec as builtins, and a RunningJob; what it returns becomes the job's result).

    `slots` jobs run at a time; one for each core that the settings allow, if None. `limits` are the seconds
    after which a job of a kind has failed; a kind that is not in it has no limit.
    """

    def __init__(
        self,
        workspace: Workspace,
        handlers: Mapping[str, str] | None = None,
        *,
        preload: Sequence[str] = PRELOAD,
        slots: int | None = None,
        lease_seconds: float = LEASE_SECONDS,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        self.id = f"worker-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._ws = workspace.acting_as(self.id)
        self._jobs = Jobs(self._ws)
        self._handlers = dict(PIPELINE_HANDLERS if handlers is None else handlers)
        self._preload = preload
        self._slots = slots or workspace.settings.cpu
        self._lease = lease_seconds
        self._limits = dict(limits or {})
        self._address = Address.of(self._ws)
        self._running: dict[Child, _Claimed] = {}
        self._stop = False
        self._beaten = 0.0
        self._watch = workspace.database.watch()
        self._looked = 0.0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, or until `stop` is called; jobs that are cut short are given back."""
        with (
            tempfile.TemporaryDirectory(dir=self._ws.cache, prefix="worker-") as logs,
            _signals(self.stop),
            Pool.start(self._preload) as pool,
        ):
            while not self._stop:
                try:
                    self._turn(pool, Path(logs))
                except UnavailableError as error:  # the store is away for a while; jobs run on meanwhile
                    _log.warning("%s", error)
                    if pool.closed:
                        raise
                    time.sleep(1.0)
            self._give_back(pool)
            with contextlib.suppress(UnavailableError):
                self._ws.instances.leave(self.id)

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stop = True

    def _turn(self, pool: Pool, logs: Path) -> None:
        """One pass: beat, claim what there is room for, and wait for something to happen."""
        replaying = isinstance(self._ws.clock, StoreClock) and self._ws.clock.replay is not None
        self._beat(pool)
        claimed = False
        look = self._watch.changed() or time.monotonic() - self._looked > _POLL_SECONDS
        while look and len(self._running) < self._slots:
            self._looked = time.monotonic()
            job = self._jobs.claim(self.id, list(self._handlers), seconds=self._lease)
            if job is None:
                break
            claimed = True
            self._start(pool, job, logs)
        if claimed:
            self._ws.clock.refresh()
        for child, event in pool.wait(_REPLAY_POLL_SECONDS if replaying else _POLL_SECONDS):
            found = self._running[child]
            if isinstance(event, Ended):
                del self._running[child]
                self._settle(found, child, event)
            else:
                found.reply = msgspec.msgpack.decode(event, type=Done | Broken)

    def _start(self, pool: Pool, job: Job, logs: Path) -> None:
        assigned = Assigned(self._handlers[job.kind], job, self._address)
        log = logs / f"{job.id}-{job.token}.log"
        child = pool.spawn(_ENTRY, msgspec.msgpack.encode(assigned), log=log, client=True)
        self._running[child] = _Claimed(job, time.monotonic())

    def _beat(self, pool: Pool) -> None:
        """Keep the claims, stop cancelled jobs, and tell the others that this worker lives."""
        now = time.monotonic()
        for child, found in self._running.items():
            limit = self._limits.get(found.job.kind, math.inf)
            if now - found.started > limit:
                found.late, found.kill_at = limit, found.kill_at or now
            if found.kill_at is not None and now >= found.kill_at:
                pool.kill(child)
            if now - found.renewed < self._lease / 4 or found.lost:
                continue
            try:
                job = self._jobs.heartbeat(found.job, seconds=self._lease)
            except LeaseLostError:  # the job is another's; this one must touch nothing any more
                found.lost = True
                pool.kill(child)
                continue
            found.renewed = now
            if job.cancel_requested and not found.cancelled:
                found.cancelled = True
                found.kill_at = now + _GRACE_SECONDS
                pool.kill(child, signal.SIGTERM)
        if now - self._beaten > min(3.0, self._lease / 4):
            self._beaten = now
            self._ws.clock.refresh()
            self._ws.instances.beat(
                self.id, "worker", detail={"jobs": [c.job.id for c in self._running.values()]}
            )

    def _settle(self, found: _Claimed, child: Child, ended: Ended) -> None:
        """Record how a job ended."""
        try:
            if found.lost:
                _log.warning("job %s was taken over by another worker", found.job.id)
            elif found.reply is None and found.cancelled:
                self._jobs.cancelled(found.job)
            elif found.reply is None and found.late:
                words = f"It took longer than {found.late:g} seconds, and was ended. {_end_of(child.log)}"
                self._jobs.fail(found.job, JobError("timeout", words.strip()))
            elif isinstance(found.reply, Done):
                self._jobs.finish(found.job, found.reply.result)
            elif isinstance(found.reply, Broken):
                self._jobs.fail(found.job, found.reply.error, retry=found.reply.retry)
            else:
                error = JobError("died", f"The job's process {ended}. {_end_of(child.log)}".strip())
                self._jobs.fail(found.job, error, retry=True)
        except LeaseLostError as error:  # another worker has the job by now
            _log.warning("%s", error)
        child.log.unlink(missing_ok=True)

    def _give_back(self, pool: Pool) -> None:
        """End the running jobs and queue them again."""
        for child in self._running:
            pool.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._running and time.monotonic() < deadline:
            for child, event in pool.wait(0.1):
                if isinstance(event, Ended):
                    found = self._running.pop(child)
                    if found.reply is None:
                        with contextlib.suppress(LeaseLostError):
                            self._jobs.give_back(found.job)
                    else:
                        self._settle(found, child, event)
                else:
                    self._running[child].reply = msgspec.msgpack.decode(event, type=Done | Broken)
        for child, found in self._running.items():
            pool.kill(child)
            with contextlib.suppress(LeaseLostError):
                self._jobs.give_back(found.job)


def run_job(channel: Channel, body: bytes, server: socket.socket | None) -> None:
    """A job's process: call the handler and send what came of it."""
    assert server is not None
    signal.signal(signal.SIGTERM, _leave)  # so that a run that is broken off is marked so
    assigned = msgspec.msgpack.decode(body, type=Assigned)
    reply: Done | Broken
    try:
        with assigned.address.open() as opened, Pool(server) as pool:
            workspace = opened.acting_as(assigned.job.actor)
            handler = cast("Callable[..., object]", load_object(assigned.handler))
            result = handler(workspace, assigned.job.spec, RunningJob(assigned.job, pool))
            reply = Done(msgspec.to_builtins(result))
    except TrimtabError as error:
        traceback.print_exc()
        reply = Broken(JobError(error.code, str(error)), isinstance(error, UnavailableError))
    except Exception as error:  # noqa: BLE001  (a fault in the handler is the job's result)
        traceback.print_exc()
        reply = Broken(JobError("error", f"{type(error).__qualname__}: {error}"), False)
    channel.send(msgspec.msgpack.encode(reply))


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT, where this is the main thread."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {}
    with contextlib.suppress(ValueError):  # signals belong to the main thread
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_of(log: Path) -> str:
    text = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip() if log.exists() else ""
    return f"Its log ends with:\n{text}" if text else ""
