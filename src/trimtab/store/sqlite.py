"""The metadata store in one SQLite file.

SQLite starves writers when several processes wait on its busy timeout, so the threads of a process take
turns: one of them takes an operating-system lock (a blocking, fair enough queue) before BEGIN IMMEDIATE and
commits all requests that wait by then together, each within its own savepoint.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import hashlib
import os
import queue
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from trimtab.clock import Clock
from trimtab.errors import UnavailableError
from trimtab.store.database import Transaction, Watch, closed, nested, translated

T = TypeVar("T")

GROUP = 128
"""Requests that share one commit at the most: bounds how long the first of them waits."""

LOST_SECONDS = 0.1
"""After this a write that waits looks whether it can go on by itself."""

WATCH_SECONDS = 0.002


class _Request(Generic[T]):
    """A write that waits for its turn and, once it is settled, what came of it."""

    def __init__(self, work: Callable[[Transaction], T], actor: str) -> None:
        self.work = work
        self.actor = actor
        self.settled = False
        self.woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._answer: T | None = None
        self._failure: BaseException | None = None

    def settle(self, answer: T | None, failure: BaseException | None) -> None:
        """Say what came of it."""
        self._answer, self._failure = answer, failure
        self.settled = True

    def result(self) -> T:
        """What `work` answered; raises what it raised."""
        if self._failure is not None:
            raise self._failure
        return self._answer  # type: ignore[return-value]  # settled without a failure


class SqliteDatabase:
    """A SQLite file in WAL mode; every commit is synced before `write` returns."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with contextlib.suppress(OSError):  # the first connection says what is wrong
                path.touch()
        # A connection makes no file: one that is taken away while it is in use is missed, not begun anew.
        address = {"mode": "rw", "uri": "true"}
        self.engine = sqlalchemy.create_engine(
            sqlalchemy.URL.create("sqlite", database=path.absolute().as_uri(), query=address),
            connect_args={"check_same_thread": False, "timeout": 30},
            pool_size=8,
            max_overflow=24,
        )
        event.listen(self.engine, "connect", self._prepare)
        event.listen(self.engine, "begin", _begin_sqlite)
        self._waiting: collections.deque[_Request[Any]] = collections.deque()
        self._lock = FileLock(path.with_suffix(".lock"))
        self._turn = threading.Lock()  # held by the thread that commits for all
        self._leader: int | None = None
        self._writing: Connection | None = None
        self._closed = False

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection on one consistent snapshot."""
        with translated(), self.engine.connect() as connection:
            yield connection

    def write(self, work: Callable[[Transaction], T], *, actor: str) -> T:
        """See `Database.write`.

        One of the threads that write leads: it commits what waits, its own request among it, and wakes the
        others. So a lone writer needs no other thread, and many share one sync.
        """
        if self._leader == threading.get_ident():
            raise nested()
        request = _Request(work, actor)
        self._waiting.append(request)
        while not request.settled:
            if self._turn.acquire(blocking=False):
                try:
                    if not request.settled:
                        self._lead()
                finally:
                    self._turn.release()
                self._wake_next()
            else:
                with contextlib.suppress(queue.Empty):  # whoever was to wake it may have been interrupted
                    request.woken.get(timeout=LOST_SECONDS)
        with translated():
            return request.result()

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """See `Database.exclusive`: an flock on a file beside the database."""
        folder = self.path.with_suffix(".locks")
        folder.mkdir(exist_ok=True)
        return FileLock(folder / hashlib.sha256(name.encode()).hexdigest()[:32])

    def watch(self) -> Watch:
        """See `Database.watch`."""
        return SqliteWatch(self.path)

    def close(self) -> None:
        """Finish what was asked, then close all connections."""
        with self._turn:
            while self._waiting:
                self._lead()
            self._closed = True
            self._let_go()
            self._lock.close()
        self.engine.dispose()

    def _prepare(self, connection: Any, _record: object) -> None:
        """Set up a new connection of the driver's."""
        connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not by the driver
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            with self.exclusive("journal mode"):  # SQLite does not wait for others who switch it too
                cursor.execute("PRAGMA journal_mode=WAL")
        # A checkpoint writes each page once, however often it was changed: fewer of them cost less.
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-16000", "wal_autocheckpoint=4000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def _wake_next(self) -> None:
        with contextlib.suppress(IndexError):  # nobody waits, or somebody else has just taken it
            self._waiting[0].woken.put(None)

    def _lead(self) -> None:
        """Commit what waits, as one transaction, and tell those who wait. For the holder of the turn."""
        group: list[_Request[Any]] = []
        settled: list[_Settled] = []
        self._leader = threading.get_ident()
        try:
            with self._lock:
                # Whoever asked while this process waited for the lock shares the commit.
                while self._waiting and len(group) < GROUP:
                    group.append(self._waiting.popleft())
                settled = self._commit(group)
        except BaseException as error:
            self._let_go()
            interrupted = None if isinstance(error, Exception) else _interrupted()
            group = group or [self._waiting.popleft()]
            settled = [(request, None, interrupted or error) for request in group]
            if interrupted is not None:
                raise
        finally:
            self._leader = None
            for request, answer, failure in settled:
                request.settle(answer, failure)
                request.woken.put(None)

    def _commit(self, group: list[_Request[Any]]) -> list[_Settled]:
        """Run the requests in one transaction; answers what to tell the callers."""
        connection = self._connection()
        if len(group) == 1:
            (request,) = group
            try:
                with connection.begin():
                    return [(request, self._run(request, connection), None)]
            except Exception as error:  # noqa: BLE001  (raised again where the request was made)
                self._let_go()
                return [(request, None, error)]
        with connection.begin():
            return [self._run_in_savepoint(request, connection) for request in group]

    def _run(self, request: _Request[T], connection: Connection) -> T:
        return request.work(Transaction(connection, request.actor, self._clock.now()))

    def _run_in_savepoint(self, request: _Request[Any], connection: Connection) -> _Settled:
        driver: Any = connection.connection.driver_connection
        driver.execute("SAVEPOINT request")
        try:
            answer = self._run(request, connection)
        except Exception as error:  # noqa: BLE001  (raised again where the request was made)
            try:
                driver.execute("ROLLBACK TO request")
            except sqlite3.OperationalError:
                # A full disk has SQLite roll everything back by itself: the whole group fails.
                raise error from None
            driver.execute("RELEASE request")
            return request, None, error
        driver.execute("RELEASE request")
        return request, answer, None

    def _connection(self) -> Connection:
        """The connection that writes, kept open from one commit to the next."""
        if self._closed:
            raise closed()
        if self._writing is None:
            self._writing = self.engine.connect().execution_options(trimtab_write=True)
        return self._writing

    def _let_go(self) -> None:
        """Close the connection that writes: what went wrong may have left something in it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.close()


_Settled = tuple[_Request[Any], Any, BaseException | None]


class SqliteWatch:
    """Reads the number that SQLite changes with each commit of another connection: 4 microseconds."""

    def __init__(self, path: Path) -> None:
        address = f"file:{urllib.parse.quote(str(path))}?mode=rw"  # never makes a file
        self._connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        self._seen: int | None = None

    def changed(self) -> bool:
        """See `Watch.changed`."""
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return True  # whoever looks now will find out what is wrong
        before, self._seen = self._seen, int(version)
        return before != self._seen

    def wait(self, seconds: float) -> bool:
        """See `Watch.wait`."""
        deadline = time.monotonic() + seconds
        while not self.changed():
            if time.monotonic() >= deadline:
                return False
            time.sleep(WATCH_SECONDS)
        return True


class FileLock:
    """An exclusive lock on a file, to be held in a `with`: waits for it; the system releases it if this
    process dies. The file stays open from one time to the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def __enter__(self) -> None:
        if self._handle is None:
            try:
                self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise UnavailableError(
                    f"The lock file {self._path} cannot be opened: {error.strerror}."
                ) from error
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, and so let go of the lock."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __del__(self) -> None:
        self.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("trimtab_write", False)
    driver: Any = connection.connection.driver_connection  # exec_driver_sql takes ten times as long
    try:
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    except sqlite3.Error as error:
        raise DBAPIError.instance("BEGIN", None, error, sqlite3.Error, dialect=connection.dialect) from error


def _interrupted() -> UnavailableError:
    return UnavailableError(
        "Another thread was interrupted while it committed this write.",
        hint="See whether the change was made, and make it again if not.",
    )
