"""The driver of the demo: it does to the running system what the world does to a model in production.

Every hour it asks for a prediction and tells the label of the hour before; every night it drops a file of new
rows into a folder. It also does what goes wrong: somebody retrains with wrong units, somebody adds a column
that is not known in advance, and the controller is killed in the middle of a cycle.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import msgspec
import polars as pl

from trimtab.demo.example import HISTORY_ENDS
from trimtab.demo.gateway_client import GatewayClient
from trimtab.loop.cycle import Cycle, State
from trimtab.loop.loops import Loops
from trimtab.loop.replay import Replay
from trimtab.server.supervisor import Supervisor
from trimtab.store import journal
from trimtab.store.journal import Entry
from trimtab.workspace import Workspace

LOOP = "bikes"
TARGET = "cnt"
ASKED_WITH = (
    "hour", "holiday", "weekday", "workingday", "weather", "temp", "atemp", "humidity", "windspeed",
)  # fmt: skip
"""What is known in advance, and sent with each request."""

REPLAY_FROM = HISTORY_ENDS
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
INCOMING = "incoming"


class Mishap(msgspec.Struct, frozen=True):
    """A retraining that somebody asks for by mistake, the night after so many challengers were promoted:
    the training parameters, and the reason they give."""

    after_promotions: int
    params: dict[str, object]
    reason: str


MISHAPS = (
    Mishap(3, {"rides_per_unit": 10.0}, "a colleague retrains in tens of rides"),
    Mishap(5, {"extra_columns": ["casual"]}, "a colleague adds 'casual', which nobody knows in advance"),
)

KILLED_IN_CYCLE = 6
"""The cycle in whose training the controller is killed."""


class Progress(msgspec.Struct, frozen=True):
    """How far the replay is, and what the journal says since last time."""

    at: datetime
    requests: int
    entries: list[Entry]


class Driver:
    """Replays rentals from `REPLAY_FROM` on against the roles that `supervisor` runs."""

    def __init__(self, workspace: Workspace, supervisor: Supervisor, rentals: pl.DataFrame) -> None:
        self.acknowledged = 0
        """Predictions that the gateway answered."""
        self.killed_cycle = ""
        """The cycle in which the controller was killed."""
        self._workspace = workspace
        self._supervisor = supervisor
        self._rentals = rentals.filter(pl.col("at") >= REPLAY_FROM)
        self._loops = Loops(workspace)
        self._replay = Replay(workspace)
        self._mishaps = list(MISHAPS)
        self._seen = 0

    def run(self, tell: Callable[[Progress], None]) -> None:
        """Replay to the end; the last label is told when the last hour is over."""
        self._replay.advance(REPLAY_FROM)
        tell(self._progress(REPLAY_FROM))
        url = self._supervisor.address.url("gateway")
        waiting: tuple[str, float] | None = None
        end = REPLAY_FROM
        with self._controller_killed_once(), GatewayClient(url, LOOP) as gateway:
            for row in self._rentals.iter_rows(named=True):
                at: datetime = row["at"]
                if waiting is not None:
                    gateway.feedback(*waiting, at=end)
                self._pass_time(end, at, tell)
                asked = {name: row[name] for name in ASKED_WITH}
                answer = gateway.predict(asked, key=at.isoformat(), at=at)
                self.acknowledged += 1
                waiting, end = (answer.ids[0], float(row[TARGET])), at + HOUR
            assert waiting is not None
            gateway.feedback(*waiting, at=end)
        self._midnight(end, tell)
        self._replay.end()

    def _pass_time(self, last: datetime, now: datetime, tell: Callable[[Progress], None]) -> None:
        """Let every midnight and everything that is due between two requests happen in its order."""
        midnight = last.replace(hour=0) if last.hour == 0 else last.replace(hour=0) + DAY
        while True:
            moment = min(midnight, self._replay.next_due)
            if moment > now:
                return
            if moment == midnight:
                self._midnight(midnight, tell)
                midnight += DAY
            else:
                self._replay.advance(moment)

    def _midnight(self, at: datetime, tell: Callable[[Progress], None]) -> None:
        """Drop the file of the day that is over, make the mishap that is due, and let the roles work."""
        self._drop_file(at - DAY, at)
        self._mistake()
        self._replay.advance(at)
        tell(self._progress(at))

    def _drop_file(self, start: datetime, end: datetime) -> None:
        rows = self._rentals.filter(pl.col("at").is_between(start, end, closed="left"))
        if rows.height:
            folder = self._workspace.project / INCOMING
            draft = folder / f".{start:%Y-%m-%d}.parquet"
            rows.write_parquet(draft)
            draft.rename(folder / f"{start:%Y-%m-%d}.parquet")

    def _mistake(self) -> None:
        """Ask for the next mishap's retraining, once its time has come and no cycle is under way."""
        if not self._mishaps or self._loops.active_cycle(LOOP) is not None:
            return
        mishap = self._mishaps[0]
        if sum(map(_replaced_a_champion, self._loops.cycles(LOOP))) >= mishap.after_promotions:
            self._mishaps.pop(0)
            colleague = Loops(self._workspace.acting_as("a colleague"))
            colleague.trigger(LOOP, params=mishap.params, reason=mishap.reason)

    def _progress(self, at: datetime) -> Progress:
        with self._workspace.read() as connection:
            entries = list(journal.entries(connection, after=self._seen))
        self._seen = entries[-1].seq if entries else self._seen
        return Progress(at, self.acknowledged, entries)

    @contextlib.contextmanager
    def _controller_killed_once(self) -> Iterator[None]:
        """While the block runs, wait for the chosen cycle to train, then kill the controller."""
        done = threading.Event()

        def look() -> None:
            watch = self._workspace.database.watch()
            while not done.is_set():
                if not watch.wait(0.2):
                    continue
                active = self._loops.active_cycle(LOOP)
                if active is None or active.number < KILLED_IN_CYCLE or active.state is not State.TRAINING:
                    continue
                pid = self._supervisor.roles["controller"].pid
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    self.killed_cycle = active.id
                    return

        thread = threading.Thread(target=look, name="trimtab-mishap", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _replaced_a_champion(cycle: Cycle) -> bool:
    return cycle.state is State.PROMOTED and cycle.baseline is not None
