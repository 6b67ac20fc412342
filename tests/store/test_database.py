"""SQLite and Postgres pass the suite, and lose nothing that they acknowledged."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from trimtab.clock import Clock, SystemClock
from trimtab.errors import InvalidInputError, StorageFullError, UnavailableError
from trimtab.store import journal, migrations
from trimtab.store.database import Database, Transaction
from trimtab.store.opening import open_database
from trimtab.store.sqlite import SqliteDatabase
from trimtab.testing.databases import DatabaseConformance
from trimtab.testing.postgres import PostgresServer
from trimtab.workspace import Workspace


class TestSqlite(DatabaseConformance):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'metadata.db'}"

    def open_database(self, address: str, clock: Clock) -> Database:
        return open_database(address, clock)


class TestPostgres(DatabaseConformance):
    @pytest.fixture
    def address(self, postgres_url: str) -> str:
        return postgres_url

    def open_database(self, address: str, clock: Clock) -> Database:
        return open_database(address, clock)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteDatabase]:
    """A SQLite store with its schema."""
    database = SqliteDatabase(tmp_path / "metadata.db", SystemClock())
    migrations.upgrade(database)
    yield database
    database.close()


def put(name: str) -> Callable[[Transaction], int]:
    return lambda tx: tx.journal("thing.put", "thing", name)


def test_writes_that_wait_together_share_a_commit(sqlite: SqliteDatabase) -> None:
    commits: list[object] = []
    event.listen(sqlite.engine, "commit", commits.append)
    started, waiting = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> bool:
        started.set()
        return waiting.wait(30)

    with ThreadPoolExecutor(41) as pool:
        first = pool.submit(sqlite.write, hold, actor="suite")
        assert started.wait(30)
        rest = [pool.submit(sqlite.write, put(str(number)), actor="suite") for number in range(40)]
        while len(sqlite._waiting) < 40:
            time.sleep(0.001)
        waiting.set()
        assert first.result()
        assert sorted(done.result() for done in rest) == list(range(1, 41))
    assert len(commits) == 2


def test_a_full_disk_fails_the_writes_that_met_it_whole_and_spares_the_rest(sqlite: SqliteDatabase) -> None:
    sqlite.write(put("before"), actor="suite")
    full = [True]

    def limit(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 4 if full[0] else 2**30}")

    event.listen(sqlite.engine, "begin", limit)

    def large(tx: Transaction) -> None:
        tx.journal("thing.put", "thing", "small")
        tx.journal("thing.put", "thing", "large", details="x" * 100_000)

    with pytest.raises(StorageFullError, match=r"full.*Free some space"):
        sqlite.write(large, actor="suite")
    full[0] = False
    sqlite.write(put("after"), actor="suite")
    with sqlite.read() as connection:
        assert [entry.name for entry in journal.entries(connection)] == ["before", "after"]
        journal.verify(connection)


def test_a_file_that_is_no_database_is_said_to_be_unusable(tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    database = SqliteDatabase(tmp_path / "metadata.db", SystemClock())
    with pytest.raises(UnavailableError, match="not a database"):
        migrations.upgrade(database)
    database.close()


def test_a_store_that_is_taken_away_is_missed_and_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "100% of ours?" / "metadata.db"
    with contextlib.closing(SqliteDatabase(path, SystemClock())) as database:
        with database.read():
            path.unlink()
            with pytest.raises(UnavailableError), database.read():
                pass
        assert not path.exists()


def test_a_server_that_does_not_answer_is_unavailable(free_port: int) -> None:
    database = open_database(f"postgresql://nobody@127.0.0.1:{free_port}/nothing", SystemClock())
    with pytest.raises(UnavailableError, match="does not answer"):
        migrations.upgrade(database)
    database.close()


def test_work_goes_on_after_the_server_has_dropped_its_connections(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = open_database(postgres_url, SystemClock())
    migrations.upgrade(database)
    assert database.write(put("before"), actor="suite") == 1
    name = postgres_url.rsplit("/", 1)[-1]
    postgres_server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    assert database.write(put("after"), actor="suite") == 2
    database.close()


@pytest.mark.parametrize("url", ["", "mysql://somewhere/db", "sqlite://", "not a url"])
def test_an_address_that_is_no_metadata_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"Give sqlite:///FILE or postgresql://"):
        open_database(url, SystemClock())


@pytest.mark.parametrize("after", [10**30, -(2**63) - 1])
def test_a_number_that_no_store_can_hold_is_the_callers_error(any_workspace: Workspace, after: int) -> None:
    with pytest.raises(InvalidInputError, match="cannot hold"), any_workspace.read() as connection:
        list(journal.entries(connection, after=after))


def test_a_text_that_no_store_can_hold_is_refused_whole(any_workspace: Workspace) -> None:
    def work(tx: Transaction) -> None:
        tx.journal("thing.put", "thing", "first")
        tx.journal("thing.put", "thing", "half a surrogate pair: \ud800")

    with pytest.raises(InvalidInputError, match="cannot hold"):
        any_workspace.write(work)
    with any_workspace.read() as connection:
        assert list(journal.entries(connection)) == []


def test_a_nul_in_a_text_is_found_nowhere_or_refused(any_workspace: Workspace) -> None:
    with contextlib.suppress(InvalidInputError), any_workspace.read() as connection:
        assert list(journal.entries(connection, name="a\0b")) == []


def test_a_store_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    Workspace.create(tmp_path).close()
    database = SqliteDatabase(tmp_path / ".trimtab" / "metadata.db", SystemClock())
    event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=1"))
    with pytest.raises(UnavailableError, match=r"cannot be opened to write.*this account may write"):
        database.write(put("x"), actor="suite")
    database.close()


def test_a_write_that_fails_spares_those_that_share_its_commit(sqlite: SqliteDatabase) -> None:
    started, waiting = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> bool:
        started.set()
        return waiting.wait(30)

    def fail(tx: Transaction) -> None:
        tx.journal("thing.put", "thing", "lost")
        raise LookupError("no such thing")

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(sqlite.write, hold, actor="suite")
        assert started.wait(30)
        rest = [pool.submit(sqlite.write, work, actor="suite") for work in (put("a"), fail, put("b"))]
        while len(sqlite._waiting) < 3:
            time.sleep(0.001)
        waiting.set()
        assert first.result()
        with pytest.raises(LookupError, match="no such thing"):
            rest[1].result()
        assert {rest[0].result(), rest[2].result()} == {1, 2}


def test_a_thread_that_is_interrupted_while_it_commits_leaves_the_store_to_others(
    sqlite: SqliteDatabase,
) -> None:
    def interrupted(tx: Transaction) -> None:
        tx.journal("thing.put", "thing", "lost")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sqlite.write(interrupted, actor="suite")
    assert sqlite.write(put("after"), actor="suite") == 1


def test_what_was_asked_before_the_store_is_closed_is_done(sqlite: SqliteDatabase) -> None:
    started, waiting = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> bool:
        started.set()
        return waiting.wait(30)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(sqlite.write, hold, actor="suite")
        assert started.wait(30)
        second = pool.submit(sqlite.write, put("asked before"), actor="suite")
        while not sqlite._waiting:
            time.sleep(0.001)
        closing = pool.submit(sqlite.close)
        waiting.set()
        closing.result()
        assert (first.result(), second.result()) == (True, 1)
    with pytest.raises(UnavailableError, match="closed"):
        sqlite.write(put("after"), actor="suite")
