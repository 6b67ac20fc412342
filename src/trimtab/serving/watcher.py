"""The thread of a gateway worker that follows the metadata store, far from the requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import select

from trimtab.config import Settings
from trimtab.errors import TrimtabError, UnavailableError
from trimtab.monitoring.alerts import open_alert
from trimtab.serving.access import access_for, token_hashes
from trimtab.serving.endpoints import current_options, current_routes
from trimtab.serving.last_known import LastKnown, keep_last_known, read_last_known
from trimtab.serving.loaded_endpoints import FetchTree, ModelShelf
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.schema import serving_state_table as serving_state
from trimtab.serving.state import State, View
from trimtab.serving.store_link import StoreLink
from trimtab.store.database import Watch
from trimtab.store.replay import read_replay
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

POLL_SECONDS = 0.3
REPLAY_POLL_SECONDS = 0.02
BEAT_SECONDS = 4.0
PATIENCE_SECONDS = 2.0
"""How long a starting gateway waits for the metadata store before it serves what it last knew."""

_log = logging.getLogger(__name__)


class Watcher:
    """Keeps `state.view` true to the metadata store, and reports this worker as alive.

    `flush` is called with the number of the newest demand to ship everything.
    """

    def __init__(
        self,
        *,
        id: str,
        host: str,
        address: str,
        settings: Settings,
        folder: Path,
        link: StoreLink,
        shelf: ModelShelf,
        state: State,
        flush: Callable[[int], None],
        log: PredictionLog,
    ) -> None:
        self._id = id
        self._host = host
        self._address = address
        self._settings = settings
        self._folder = folder
        self._link = link
        self._shelf = shelf
        self._state = state
        self._flush = flush
        self._log = log
        self._dropped = 0
        self._known: LastKnown | None = None
        self._replaying = False
        self._watch: Watch | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._beaten: tuple[float, object] = (0.0, None)
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin; from then on the view becomes ready as soon as routes are known."""
        self._thread.start()
        threading.Thread(target=self._impatient, name="patience", daemon=True).start()

    def stop(self) -> None:
        """End, and report this worker as gone if the store can be reached."""
        self._stop.set()
        self._state.wanted.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                workspace = self._link.workspace()
                self._watch = self._watch or workspace.database.watch()
                self._follow(workspace)
            except Exception as error:  # noqa: BLE001  (whatever the store does, requests go on)
                self._trouble(error)
            self._wait()
        try:
            self._link.workspace().instances.leave(self._id)
        except TrimtabError as error:
            _log.info("could not sign off: %s", error)
        self._link.close()

    def _wait(self) -> None:
        """Wait until somebody wants a look, the next one is due, or in a replay the store has changed."""
        due = time.monotonic() + POLL_SECONDS
        while time.monotonic() < due:
            wanted = self._state.wanted.wait(REPLAY_POLL_SECONDS if self._replaying else POLL_SECONDS)
            if wanted or (self._watch is not None and self._watch.changed()):
                break
        self._state.wanted.clear()

    def _impatient(self) -> None:
        if not self._stop.wait(PATIENCE_SECONDS) and not self._state.view.ready:
            self._serve_last_known("The metadata store has not answered since the start.")

    def _follow(self, workspace: Workspace) -> None:
        known = self._known
        began = time.monotonic()
        with workspace.read() as connection:
            standing = connection.execute(
                select(serving_state.c.revision, serving_state.c.flush, serving_state.c.secret)
            ).one()
            replay = read_replay(connection)
            replay_at = None if replay is None else to_microseconds(replay.at)
            self._replaying = replay is not None and not replay.ended
            changed = known is None or known.revision != standing.revision
            if changed:
                routes = current_routes(connection)
                options = current_options(connection)
                tokens = sorted(token_hashes(connection))
        if changed or known is None:
            known = LastKnown(
                secret=standing.secret,
                revision=standing.revision,
                flush=standing.flush,
                routes=routes,
                options=options,
                tokens=tokens,
                replay_at=replay_at,
            )
        if self._known is None or standing.flush > self._known.flush:
            self._flush(standing.flush)  # before the first answer, which would end its segment otherwise
        if changed or standing.flush != known.flush or replay_at != known.replay_at:
            known = msgspec.structs.replace(known, flush=standing.flush, replay_at=replay_at)
        view = self._state.view
        if changed or view.table.failures or view.trouble or not view.ready or view.replay_at != replay_at:
            self._show(known, workspace.blobs.fetch_tree)
            if changed:
                keep_last_known(self._folder, known)
        self._known = known
        self._state.looked_at = began
        self._tell_of_dropped(workspace)
        self._beat(workspace)

    def _show(self, known: LastKnown, fetch: FetchTree | None, trouble: str = "") -> None:
        """Make the view that belongs to `known`, load what it needs, and swap it in."""
        with self._lock:
            before = self._state.view
            table = self._shelf.table(known.routes, known.options, before.table, fetch)
            self._state.view = View(
                table=table,
                access=access_for(self._settings, self._host, known.tokens),
                ids=before.ids or PredictionIds(bytes.fromhex(known.secret)),
                replay_at=known.replay_at,
                trouble=trouble,
            )
            self._shelf.forget(table)
        for name, reason in table.failures.items():
            if before.table.failures.get(name) != reason:
                _log.error("the route of '%s' cannot be served: %s", name, reason)

    def _trouble(self, error: Exception) -> None:
        if str(error) != self._state.view.trouble:
            _log.warning("the metadata store cannot be followed: %s", error)
            with self._lock:
                self._state.view = msgspec.structs.replace(self._state.view, trouble=str(error))
        if not self._state.view.ready:
            self._serve_last_known(str(error))
        if not isinstance(error, UnavailableError):
            _log.exception("following the metadata store failed and is tried again")
            self._stop.wait(POLL_SECONDS)

    def _serve_last_known(self, trouble: str) -> None:
        known = read_last_known(self._folder)
        if known is not None:
            _log.warning("serving the routes that were last known")
            self._show(known, None, trouble)

    def _tell_of_dropped(self, workspace: Workspace) -> None:
        """Let somebody know that predictions were answered and not recorded."""
        dropped = self._log.dropped
        if dropped == self._dropped:
            return
        reason = f"{dropped} predictions of {self._id} were answered and not logged: {self._log.trouble}"
        numbers = {"dropped": dropped}
        workspace.write(
            lambda tx: open_alert(tx, "gateway", "prediction log", reason=reason, numbers=numbers)
        )
        self._dropped = dropped

    def _beat(self, workspace: Workspace) -> None:
        table = self._state.view.table
        detail = {"routes": table.generations, "failures": dict(table.failures)}
        at, said = self._beaten
        if said == detail and time.monotonic() - at < BEAT_SECONDS:
            return
        workspace.instances.beat(self._id, "gateway", address=self._address, detail=detail)
        self._beaten = (time.monotonic(), detail)
