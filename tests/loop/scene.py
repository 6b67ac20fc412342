"""A loop on a real workspace with its registry, routes and job queue; traffic and work happen when told.

Work that takes a worker's process elsewhere is answered here at once, through the same job queue.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
import polars as pl

import trimtab as tt
from trimtab.clock import FixedClock
from trimtab.config import Settings
from trimtab.data.datasets import Datasets
from trimtab.digest import digest_json
from trimtab.loop.controller import Controller
from trimtab.loop.declaration import Loop
from trimtab.loop.loops import Loops
from trimtab.loop.orders import HANDLERS, GatesAnswer, GatesOrder, TrainAnswer, TrainOrder
from trimtab.models import gates
from trimtab.models.gates import policy_of
from trimtab.models.reports import GateReport, GateResult
from trimtab.monitoring.outcomes import (
    LabelRecord,
    PredictionRecord,
    record_labels,
    record_predictions,
)
from trimtab.pipelines.jobs import Job, JobError, Jobs
from trimtab.serving.endpoints import Endpoints, current_routes
from trimtab.store.database import Database, Transaction
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

T = TypeVar("T")

START = datetime(2011, 9, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NAME = "bikes"


@tt.step
def fit(rows: pl.DataFrame, *, rate: float) -> tt.Model:
    """Never called: its work is answered by the scene."""
    raise NotImplementedError


@tt.pipeline
def training(rate: float = 0.1) -> tt.Model:
    """The pipeline that the scene's loop declares."""
    return fit(tt.dataset("rentals").window(tt.last(days=30)), rate=rate)


def declared(**changes: object) -> Loop:
    """The scene's loop: one day of shadow, half the answers for a day, all for a day."""
    arguments: dict[str, object] = {
        "train": training,
        "gates": [gates.BeatsChampion("rmsle"), gates.Bias(max_abs=0.5)],
        "rollout": tt.Canary(
            steps=(50, 100), shadow="1d", dwell="1d", max_duration="8d", margin=0.05, alpha=0.1, min_blocks=2,
            look="1d",
        ),
        "monitors": [tt.Bias(max_abs=0.2, log=True, days=3, min_labels=24)],
        "triggers": [tt.OnBias(), tt.OnAge(20), tt.Every("week")],
        "budget": tt.Budget(cooldown="2d"),
        "holdout": tt.last(days=5),
        "mode": "auto",
    }  # fmt: skip
    return Loop(NAME, **arguments | changes)  # type: ignore[arg-type]


def rentals(days: int = 40) -> pl.DataFrame:
    """Some rows before the scene begins."""
    at = pl.datetime_range(START - days * DAY, START, "1d", closed="left", time_zone="UTC", eager=True)
    return pl.DataFrame({"at": at, "cnt": range(days)})


class CrashError(BaseException):
    """The process is gone: nothing catches this."""


class CrashingDatabase:
    """A store whose caller dies at its nth write: before it is committed, or after."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writes_left: int | None = None
        self.after_commit = False
        self.always = False
        self._attempts = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)

    def write(self, work: Callable[[Transaction], T], *, actor: str) -> T:
        """As the store does it, unless this is where the caller dies. With `always`, every write of a
        controller kills it twice: before it is committed, and the next time after."""
        if self.always and actor == "controller":
            self._attempts += 1
            if self._attempts % 2 == 0:
                self._database.write(work, actor=actor)
            raise CrashError
        if self.writes_left is None:
            return self._database.write(work, actor=actor)
        self.writes_left -= 1
        if self.writes_left > 0:
            return self._database.write(work, actor=actor)
        if self.after_commit:
            self._database.write(work, actor=actor)
        raise CrashError


class Scene:
    """A workspace with the dataset `rentals` and the loop `bikes` applied."""

    def __init__(self, folder: Path, loop: Loop | None = None, *, database: str | None = None) -> None:
        self.clock = FixedClock(START)
        self.workspace = Workspace.create(
            folder / "project", Settings(database=database), actor="ada", clock=self.clock
        )
        self.loops = Loops(self.workspace)
        self.jobs = Jobs(self.workspace)
        datasets = Datasets(self.workspace)
        datasets.create("rentals", time="at")
        datasets.append("rentals", rentals(), key="history")
        self.loops.apply(loop or declared())
        self.controller = Controller(self.workspace)
        self._served: dict[str, int] = {}

    def close(self) -> None:
        """Close the workspace."""
        self.workspace.close()

    # -- what the world does ------------------------------------------------------------------------------

    def wait(self, **span: float) -> None:
        """Let event time pass."""
        self.clock.set(self.clock.now() + timedelta(**span))

    def serve(self) -> None:
        """A gateway takes up the routes that stand, and says so."""
        with self.workspace.read() as connection:
            routes = {name: route.generation for name, route in current_routes(connection).items()}
        if routes == self._served and self.workspace.instances.live("gateway"):
            return
        self._served = routes
        self.workspace.instances.beat("gateway-1", "gateway", detail={"routes": routes})

    def traffic(self, days: int = 1, *, errors: dict[int, float] | None = None) -> None:
        """Requests and their labels, each hour for some days; each version on the route errs by a factor."""
        route = Endpoints(self.workspace).route(NAME)
        predictions, labels = [], []
        for _ in range(days * 24):
            now = self.clock.now()
            at, label = to_microseconds(now), 100.0 + now.hour + now.day
            if route is not None:
                scores: dict[int, float | None] = {
                    arm.version: label * (errors or {}).get(arm.version, 1.0) * (1 + 0.01 * (now.hour % 5))
                    for arm in route.arms
                }
                answering = route.primary.version
                prediction = PredictionRecord(
                    id=now.isoformat(),
                    endpoint=NAME,
                    at=at,
                    key=None,
                    version=answering,
                    answer=scores[answering],
                    scores=scores,
                )
                predictions.append(prediction)
                labels.append(LabelRecord(id=prediction.id, endpoint=NAME, label=label, labelled_at=at))
            self.wait(hours=1)
        self.workspace.write(lambda tx: record_predictions(tx, predictions))
        self.workspace.write(lambda tx: record_labels(tx, labels))

    def work(self, *, trained: bool = True, passed: bool = True) -> Job | None:
        """Do the oldest order that waits, well or badly; None if there is none."""
        job = self.jobs.claim("worker-1", list(HANDLERS))
        if job is None:
            return None
        match job.kind:
            case "loop.train":
                order = msgspec.convert(job.spec, TrainOrder)
                failure = "" if trained else "the step 'fit' raised ValueError"
                answer: object = TrainAnswer(
                    run_id=job.id, digest=digest_json(order.cycle), target="cnt", failure=failure
                )
            case "loop.gates":
                answer = GatesAnswer(report=report(msgspec.convert(job.spec, GatesOrder), passed=passed))
            case _:
                self.jobs.fail(job, JobError("error", "nobody does this here"))
                return job
        self.jobs.finish(job, answer)
        return job

    # -- what the loop does -------------------------------------------------------------------------------

    def settle(
        self, *, trained: bool = True, passed: bool = True, controller: Controller | None = None
    ) -> None:
        """Let controller, worker and gateway act until nobody has anything to do."""
        for _ in range(100):
            self.serve()
            while (controller or self.controller).reconcile():
                pass
            self.serve()
            worked = self.work(trained=trained, passed=passed)
            if worked is None and not (controller or self.controller).reconcile():
                return
        raise AssertionError("the loop does not come to rest")

    def bootstrap(self) -> None:
        """Let the first version become champion."""
        self.settle()
        assert self.champion == 1

    @property
    def champion(self) -> int | None:
        """The number of the champion."""
        found = self.loops.status(NAME).champion
        return None if found is None else found.version

    @property
    def state(self) -> str:
        """The state of the newest cycle."""
        return self.loops.cycles(NAME, limit=1)[0].state.value

    def live(self, days: int, *, errors: dict[int, float] | None = None) -> None:
        """Traffic day by day, with everybody at work."""
        for _ in range(days):
            self.traffic(1, errors=errors)
            self.settle()


def report(order: GatesOrder, *, passed: bool) -> GateReport:
    """A report on all gates of an order."""
    results = tuple(
        GateResult(gate=gate.name, passed=passed, numbers={"value": 1.0}, reason="as told")
        for gate in order.gates
    )
    return GateReport(
        model=order.model,
        digest=order.digest,
        policy=policy_of(order.gates).digest,
        results=results,
        created_at=order.end or START,
        champion=order.champion,
    )
