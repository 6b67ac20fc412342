"""The metadata store in a Postgres database."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from trimtab.clock import Clock
from trimtab.errors import missing_extra
from trimtab.store.database import Transaction, Watch, closed, nested, translated

T = TypeVar("T")

POSTGRES_RETRIES = 8
POLL_SECONDS = 0.01
_RETRIED_STATES = {
    "40001",  # serialization failure
    "40P01",  # deadlock
    "23505",  # a key that somebody else inserted after this transaction had looked for it in vain
}


class PollingWatch:
    """Where asking would cost as much as looking: says yes, after a moment."""

    def changed(self) -> bool:
        """See `Watch.changed`."""
        return True

    def wait(self, seconds: float) -> bool:
        """See `Watch.wait`."""
        time.sleep(min(seconds, POLL_SECONDS))
        return True


class PostgresDatabase:
    """A Postgres database; writes run in the caller's thread and are repeated on a conflict."""

    def __init__(self, url: sqlalchemy.URL, clock: Clock) -> None:
        try:
            import psycopg  # noqa: F401  (the extra's one guarded import)
        except ImportError:
            raise missing_extra("psycopg", "postgres") from None
        self._clock = clock
        self.engine = sqlalchemy.create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=4,
            max_overflow=16,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10},
        )
        self._closed = False
        self._writing = threading.local()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection on one consistent snapshot (repeatable read)."""
        with translated(), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")

    def write(self, work: Callable[[Transaction], T], *, actor: str) -> T:
        """See `Database.write`."""
        if self._closed:
            raise closed()
        if getattr(self._writing, "now", False):
            raise nested()
        self._writing.now = True
        try:
            with translated():
                return self._repeated(work, actor)
        finally:
            self._writing.now = False

    def _repeated(self, work: Callable[[Transaction], T], actor: str) -> T:
        for attempt in range(POSTGRES_RETRIES):
            try:
                with self.engine.begin() as connection:
                    return work(Transaction(connection, actor, self._clock.now()))
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if state not in _RETRIED_STATES or attempt == POSTGRES_RETRIES - 1:
                    raise
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """See `Database.exclusive`: an advisory lock of a session of its own."""
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        with translated(), self.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(key)))
            try:
                yield
            finally:
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_unlock(key)))

    def watch(self) -> Watch:
        """See `Database.watch`."""
        return PollingWatch()

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self.engine.dispose()
