"""Event time of a workspace in replay: one row, moved on by the driver, read by every role.

Each move has a generation; a role acknowledges the generation whose work it has done (see
`trimtab.store.instances`), and the driver moves on when all have.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, insert, select, update

from trimtab.clock import SystemClock, as_utc, went_back
from trimtab.errors import ConflictError
from trimtab.store.database import Database, Transaction
from trimtab.store.prepared import Prepared
from trimtab.store.schema import replay_table as replay

_STATE = Prepared(select(replay.c.at, replay.c.generation, replay.c.ended))


class ReplayState(msgspec.Struct, frozen=True):
    """Where event time stands. `ended`: the replay is over and time stands still for good."""

    at: datetime
    generation: int
    ended: bool


class StoreClock:
    """The clock of a workspace: the replay's event time where there is one, the system's otherwise."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self._database: Database | None = None
        self.replay: ReplayState | None = None

    def bind(self, database: Database) -> None:
        """Take event time from this store from now on."""
        self._database = database
        self.refresh()

    def now(self) -> datetime:
        """Event time as of the last refresh, or the system's."""
        return self._system.now() if self.replay is None else self.replay.at

    def refresh(self) -> datetime:
        """Read the store again."""
        assert self._database is not None
        with self._database.read() as connection:
            self.replay = read_replay(connection)
        return self.now()


def read_replay(connection: Connection) -> ReplayState | None:
    """Where the replay stands, or None for a workspace in real time."""
    row = _STATE.first(connection)
    return None if row is None else ReplayState(row.at, row.generation, bool(row.ended))


def start_replay(tx: Transaction, at: datetime) -> int:
    """Put a workspace into replay at `at`; raises ConflictError if it already is."""
    if read_replay(tx.connection) is not None:
        raise ConflictError(
            "This workspace is already in replay.", hint="Use a new workspace for another replay."
        )
    tx.execute(insert(replay).values(id=1, at=as_utc(at), generation=1, ended=0))
    tx.journal("replay.started", "workspace", "replay", details={"at": at})
    return 1


def advance_replay(tx: Transaction, to: datetime) -> int:
    """Move event time on to `to` and answer the new generation; raises ClockWentBackError if it is
    earlier than now, ConflictError if there is no replay or it has ended."""
    state, to = _running(tx), as_utc(to)
    if to < state.at:
        raise went_back(state.at, to)
    tx.execute(update(replay).values(at=to, generation=state.generation + 1))
    return state.generation + 1


def end_replay(tx: Transaction) -> None:
    """Let event time stand still for good."""
    state = _running(tx)
    tx.execute(update(replay).values(ended=1))
    tx.journal("replay.ended", "workspace", "replay", details={"at": state.at})


def _running(tx: Transaction) -> ReplayState:
    state = read_replay(tx.connection)
    if state is None or state.ended:
        raise ConflictError("This workspace is not in replay.", hint="Start one in a new workspace.")
    return state
