"""The metadata store: one SQLite file or one Postgres database behind the same two calls.

`read` gives a connection on a snapshot; `write` runs a function in one durable transaction.

SQLite starves writers when several processes wait on its busy timeout, so each process has one writer
thread, which takes an operating-system lock (a blocking, fair enough queue) before BEGIN IMMEDIATE and
commits all requests that wait by then together, each within its own savepoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy
from sqlalchemy import Connection, CursorResult, Engine, Executable, event
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, InterfaceError, OperationalError

from trimtab.clock import Clock
from trimtab.config import without_secrets
from trimtab.errors import InvalidInputError, StorageFullError, UnavailableError, missing_extra
from trimtab.store import journal

T = TypeVar("T")

GROUP = 128
"""Requests that share one commit at the most: bounds how long the first of them waits."""

POSTGRES_RETRIES = 8

WATCH_SECONDS = 0.002
POLL_SECONDS = 0.01
_RETRIED_STATES = {
    "40001",  # serialization failure
    "40P01",  # deadlock
    "23505",  # a key that somebody else inserted after this transaction had looked for it in vain
}


class Transaction:
    """What a write works with: the connection, who acts, and the event time of the change."""

    def __init__(self, connection: Connection, actor: str, at: datetime) -> None:
        self.connection = connection
        self.actor = actor
        self.at = at

    def execute(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> CursorResult[Any]:
        """Run one statement in this transaction."""
        return self.connection.execute(statement, parameters)

    def journal(self, action: str, kind: str, name: str, *, reason: str = "", details: object = None) -> int:
        """Append an entry to the journal in this transaction; answers its number.

        `action` is a past-tense dotted word ("model.alias_set"), `kind` and `name` say what it was done
        to; `details` is anything that msgspec can encode.
        """
        return journal.append(
            self.connection,
            at=self.at,
            actor=self.actor,
            action=action,
            kind=kind,
            name=name,
            reason=reason,
            details=details,
        )


class Database(Protocol):
    """The port of the metadata store."""

    engine: Engine

    def read(self) -> AbstractContextManager[Connection]:
        """A connection on one consistent snapshot."""
        ...

    def write(self, work: Callable[[Transaction], T], *, actor: str) -> T:
        """Run `work` in one transaction and return its answer once it is durable.

        What `work` raises is raised here and changes nothing. `work` does no I/O and may be run more than
        once. Raises UnavailableError when the store does not answer and StorageFullError when it is full.
        """
        ...

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock `name` across processes; a holder that dies lets go of it."""
        ...

    def watch(self) -> Watch:
        """Something that tells when anybody has committed a change."""
        ...

    def close(self) -> None:
        """Finish what was asked, then let go of all connections."""
        ...


def open_database(url: str, clock: Clock) -> Database:
    """The store at `url`: "sqlite:///path" or "postgresql://..."; raises InvalidInputError otherwise."""
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise _unusable(url) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return SqliteDatabase(Path(parsed.database), clock)
    if parsed.get_backend_name() in {"postgresql", "postgres"}:
        return PostgresDatabase(parsed, clock)
    raise _unusable(url)


def _unusable(url: str) -> InvalidInputError:
    return InvalidInputError(
        f"'{without_secrets(url)}' is not a metadata store that Trimtab can use.",
        hint="Give sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
    )


class Watch(Protocol):
    """Tells whether anybody has committed since it was last asked: a cheap question, to be put before dear
    ones. It may say yes for nothing, and never says no after a commit. For one thread."""

    def changed(self) -> bool:
        """Whether something was committed since the last answer; True the first time."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait for a commit, `seconds` at the most; whether there was one."""
        ...


class _Request(Generic[T]):
    def __init__(self, work: Callable[[Transaction], T], actor: str) -> None:
        self.work = work
        self.actor = actor
        self.answer: Future[T] = Future()

    def settle(self, answer: T, failure: BaseException | None) -> None:
        """Tell whoever waits."""
        if failure is None:
            self.answer.set_result(answer)
        else:
            self.answer.set_exception(failure)


_Settled = tuple[_Request[Any], Any, BaseException | None]


class SqliteDatabase:
    """A SQLite file in WAL mode; every commit is synced before `write` returns."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self.engine = sqlalchemy.create_engine(
            sqlalchemy.URL.create("sqlite", database=str(path)),
            connect_args={"check_same_thread": False, "timeout": 30},
            pool_size=8,
            max_overflow=24,
        )
        event.listen(self.engine, "connect", self._prepare)
        event.listen(self.engine, "begin", _begin_sqlite)
        self._requests: queue.SimpleQueue[_Request[Any] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._start = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection on one consistent snapshot."""
        with translated(), self.engine.connect() as connection:
            yield connection

    def write(self, work: Callable[[Transaction], T], *, actor: str) -> T:
        """See `Database.write`."""
        if threading.current_thread() is self._writer:
            raise _nested()
        request = _Request(work, actor)
        with self._start:
            if self._closed:
                raise _closed()
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_loop, name="trimtab-writer", daemon=True)
                self._writer.start()
            self._requests.put(request)
        with translated():
            return request.answer.result()

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """See `Database.exclusive`: an flock on a file beside the database."""
        folder = self.path.with_suffix(".locks")
        folder.mkdir(exist_ok=True)
        return file_lock(folder / hashlib.sha256(name.encode()).hexdigest()[:32])

    def watch(self) -> Watch:
        """See `Database.watch`."""
        return SqliteWatch(self.path)

    def close(self) -> None:
        """Finish what was asked, then close all connections."""
        with self._start:
            self._closed = True
            writer, self._writer = self._writer, None
            self._requests.put(None)
        if writer is not None:
            writer.join()
        self.engine.dispose()

    def _prepare(self, connection: Any, _record: object) -> None:
        """Set up a new connection of the driver's."""
        connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not by the driver
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            with self.exclusive("journal mode"):  # SQLite does not wait for others who switch it too
                cursor.execute("PRAGMA journal_mode=WAL")
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def _write_loop(self) -> None:
        while (first := self._requests.get()) is not None:
            group = [first]
            last = False
            try:
                with file_lock(self.path.with_suffix(".lock")):
                    # Whoever asked while this process waited for the lock shares the commit.
                    while len(group) < GROUP and not last:
                        try:
                            following = self._requests.get_nowait()
                        except queue.Empty:
                            break
                        if following is None:
                            last = True
                        else:
                            group.append(following)
                    settled = self._commit(group)
            except BaseException as error:  # noqa: BLE001  (raised again where the request was made)
                for request in group:
                    request.answer.set_exception(error)
            else:
                for request, answer, failure in settled:
                    request.settle(answer, failure)
            if last:
                return

    def _commit(self, group: list[_Request[Any]]) -> list[_Settled]:
        """Run each request in a savepoint of one transaction; answers what to tell the callers."""
        settled: list[_Settled] = []
        with self.engine.connect() as connection:
            connection = connection.execution_options(trimtab_write=True)
            with connection.begin():
                for request in group:
                    savepoint = connection.begin_nested()
                    try:
                        result = request.work(Transaction(connection, request.actor, self._clock.now()))
                    except BaseException as error:  # noqa: BLE001  (raised again where the request was made)
                        try:
                            savepoint.rollback()
                        except OperationalError:
                            # A full disk has SQLite roll everything back by itself: the whole group fails.
                            raise error from None
                        settled.append((request, None, error))
                    else:
                        savepoint.commit()
                        settled.append((request, result, None))
        return settled


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
            raise _closed()
        if getattr(self._writing, "now", False):
            raise _nested()
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


def _nested() -> RuntimeError:
    """A mistake in our own code, which would otherwise wait for itself for ever."""
    return RuntimeError(
        "A write was asked for inside another; hand the outer one's transaction down instead."
    )


def _closed() -> UnavailableError:
    return UnavailableError("This workspace is closed.", hint="Open it again.")


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; waits for it; the system releases it if this process dies."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnavailableError(f"The lock file {path} cannot be opened: {error.strerror}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("trimtab_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the drivers' words for "full", "not there" and "cannot be kept" into ours."""
    try:
        yield
    except (DataError, UnicodeEncodeError, OverflowError) as error:
        # A number beyond 64 bits, a NUL (Postgres), half a surrogate pair.
        if isinstance(error, OverflowError) and "SQLite" not in str(error):
            raise
        words = str(error.orig if isinstance(error, DataError) else error).strip().splitlines()[0]
        raise InvalidInputError(
            f"The metadata store cannot hold this value: {words}.", hint="Correct it and try again."
        ) from error
    except DBAPIError as error:
        # A file that is no database, or a damaged one, is a plain DatabaseError to the driver.
        if not isinstance(error, OperationalError | InterfaceError) and type(error) is not DatabaseError:
            raise
        words = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        if "is full" in words or "No space left" in words:
            raise StorageFullError(
                f"The metadata store is full: {words}.", hint="Free some space and try again."
            ) from error
        if "readonly database" in words or "unable to open database file" in words:
            raise UnavailableError(
                f"The metadata store cannot be opened to write: {words}.",
                hint="See that this account may write to the state folder and all that is in it.",
            ) from error
        raise UnavailableError(
            f"The metadata store does not answer: {words}.", hint="Check that it runs and can be reached."
        ) from error
