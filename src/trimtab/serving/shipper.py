"""The shipper process beside a gateway: follows the log until it is told to stop.

    python -m trimtab.serving.shipper --project DIR

It indexes the log itself, and has segments that ended brought to their tables by a carrier, which is there
only while there are some: Delta Lake takes as much memory as all the rest of a gateway.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import secrets
import signal
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select, update

from trimtab.config import STATE_FOLDER, load_settings
from trimtab.errors import TrimtabError, UnavailableError
from trimtab.serving.carriage import Carriage
from trimtab.serving.log_indexer import LogIndexer
from trimtab.serving.schema import serving_state_table as serving_state
from trimtab.serving.segments import FOLDER, unshipped
from trimtab.serving.shipper_lock import ShipperLock
from trimtab.serving.store_link import StoreLink
from trimtab.store.database import Transaction, Watch
from trimtab.store.replay import read_replay
from trimtab.store.schema import instances_table as role_instances
from trimtab.workspace import Workspace

POLL_SECONDS = 0.5
REPLAY_POLL_SECONDS = 0.25
BEAT_SECONDS = 4.0
NICENESS = 10
"""It must not take the processor from those who answer. Its carrier inherits it."""

_log = logging.getLogger(__name__)


class ShipperProcess:
    """The shipper beside a gateway: follows the folder until it is told to stop."""

    def __init__(self, project: Path) -> None:
        settings = load_settings(project)
        self._folder = project.resolve() / STATE_FOLDER / FOLDER
        self._id = f"shipper-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._link = StoreLink(project, settings, self._folder, actor=self._id)
        self._indexer = LogIndexer(self._folder)
        self._carriage = Carriage(project, self._folder)
        self._stop = threading.Event()
        self._acknowledged = 0
        self._flushed = 0
        self._replaying = False
        self._beaten: tuple[float, object] = (0.0, None)
        self._indexed_at = 0.0
        self._watch: Watch | None = None
        self._watched: Workspace | None = None

    def stop(self) -> None:
        """Let `run` end after what it is doing, and one last look at the log."""
        self._stop.set()

    def run(self) -> None:
        """Index and ship until `stop`."""
        with ShipperLock(self._folder) as lock:
            while not lock.acquire():
                if self._stop.wait(POLL_SECONDS):
                    return
            while not self._stop.is_set():
                workspace = None
                try:
                    workspace = self._link.workspace()
                    self._step(workspace)
                    self._carriage.tend()
                except UnavailableError as error:
                    _log.warning("shipping waits: %s", error)
                    self._stop.wait(POLL_SECONDS)
                except Exception:  # noqa: BLE001  (the log must be shipped, whatever happened to one try)
                    _log.exception("shipping failed and is tried again")
                    self._stop.wait(POLL_SECONDS)
                if self._replaying and workspace is not None:
                    self._wait_for_time(workspace)
                else:
                    self._stop.wait(POLL_SECONDS)
            self._finish()

    def _wait_for_time(self, workspace: Workspace) -> None:
        """Wait until the store changes: in a replay that is how time passes."""
        if self._watch is None or self._watched is not workspace:
            self._watch, self._watched = workspace.database.watch(), workspace
        self._watch.wait(REPLAY_POLL_SECONDS)

    def _step(self, workspace: Workspace) -> None:
        # The generation is read before the folder: what a driver had answered before it moved time on is on
        # disk by then, so what is found now is all that belongs before that move.
        with workspace.read() as connection:
            replay = read_replay(connection)
            flush = connection.execute(select(serving_state.c.flush)).scalar_one_or_none() or 0
        generation = 0 if replay is None else replay.generation
        self._replaying = replay is not None and not replay.ended
        now = time.monotonic()
        if generation != self._acknowledged:
            self._indexer.index(workspace, also=lambda tx: self._acknowledge(tx, generation))
            self._indexed_at = time.monotonic()
            if self._indexer.complete:
                self._acknowledged = generation
        elif now - self._indexed_at >= POLL_SECONDS or flush > self._flushed:
            self._indexer.index(workspace)
            self._indexed_at = time.monotonic()
        if flush > self._flushed and not unshipped(self._folder, flush):
            self._flushed = flush
        self._beat(workspace)

    def _acknowledge(self, tx: Transaction, generation: int) -> None:
        """Tell that all is indexed that belongs before this generation, if the others know us yet."""
        tx.execute(
            update(role_instances)
            .where(role_instances.c.id == self._id)
            .values(acknowledged=generation, heartbeat_at=datetime.now(UTC))
        )

    def _beat(self, workspace: Workspace) -> None:
        said = self._flushed
        at, before = self._beaten
        if said == before and time.monotonic() - at < BEAT_SECONDS:
            return
        workspace.instances.beat(
            self._id,
            "shipper",
            acknowledged=self._acknowledged,
            detail={"flushed": self._flushed, "folder": str(self._folder)},
        )
        self._beaten = (time.monotonic(), said)

    def _finish(self) -> None:
        self._carriage.end()
        try:
            workspace = self._link.workspace()
            self._indexer.index(workspace)
            workspace.instances.leave(self._id)
        except TrimtabError as error:
            _log.warning("what is still in the log is shipped after the next start: %s", error)
        self._link.close()


def main() -> None:
    """Run the shipper of a project."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.serving.shipper")
    parser.add_argument("--project", type=Path, required=True)
    asked = parser.parse_args()
    os.nice(NICENESS)
    # Thousands of rows become objects at once, and none is part of a cycle: to look for cycles can wait.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    logging.basicConfig(format="%(asctime)s shipper %(levelname)s %(message)s", level=logging.INFO)
    process = ShipperProcess(asked.project)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.stop())
    threading.Thread(target=_watch_parent, args=(process,), daemon=True).start()
    process.run()


def _watch_parent(process: ShipperProcess) -> None:
    while os.read(0, 1024):
        pass
    process.stop()


if __name__ == "__main__":
    main()
