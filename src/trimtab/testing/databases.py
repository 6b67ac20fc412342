"""The suite that every metadata store must pass: transactions, journal, leases, locks, migrations.

class TestMyDatabase(DatabaseConformance):
    @pytest.fixture
    def address(self) -> str:
        return "..."  # of an empty store

    def open_database(self, address: str, clock: Clock) -> Database:
        return MyDatabase(address, clock)
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from trimtab.clock import Clock, FixedClock
from trimtab.errors import (
    JournalBrokenError,
    LeaseLostError,
    NotFoundError,
    UnavailableError,
    WorkspaceVersionError,
)
from trimtab.store import journal, migrations
from trimtab.store.database import Database, Transaction
from trimtab.store.leases import Leases, check_fence
from trimtab.store.schema import journal_head_table, journal_table
from trimtab.store.types import JsonText, UtcTime
from trimtab.store.upsert import upsert

START = datetime(2011, 9, 1, tzinfo=UTC)

things = Table(
    "things",
    MetaData(),
    Column("name", Text, primary_key=True),
    Column("amount", Integer, nullable=False),
    Column("note", Text),
    Column("at", UtcTime),
    Column("detail", JsonText),
)
"""A table of the suite's own."""


class DatabaseConformance(ABC):
    """Subclass it in a test module and say how to open a store; pytest then runs all of it."""

    @pytest.fixture
    def address(self) -> str:
        """Where an empty store is; a subclass gives its own."""
        raise NotImplementedError

    @abstractmethod
    def open_database(self, address: str, clock: Clock) -> Database:
        """The store at this address; each call opens it anew, as a process would."""

    @pytest.fixture
    def clock(self) -> FixedClock:
        return FixedClock(START)

    @pytest.fixture
    def database(self, address: str, clock: FixedClock) -> Iterator[Database]:
        database = self.open_database(address, clock)
        migrations.upgrade(database)
        database.write(lambda tx: things.create(tx.connection), actor="suite")
        yield database
        database.close()

    @pytest.fixture
    def other(self, database: Database, address: str, clock: FixedClock) -> Iterator[Database]:
        """The same store opened a second time."""
        other = self.open_database(address, clock)
        yield other
        other.close()

    # ------------------------------------------------------------------------------------ transactions

    def test_what_was_written_is_read_by_everybody_at_once(self, database: Database, other: Database) -> None:
        assert database.write(_put("a", 1), actor="suite") == "a"
        assert _counts(database) == _counts(other) == {"a": 1}

    def test_a_transaction_knows_who_acts_and_when(self, database: Database, clock: FixedClock) -> None:
        clock.set(START + timedelta(days=1))
        seen = database.write(lambda tx: (tx.actor, tx.at), actor="ada")
        assert seen == ("ada", START + timedelta(days=1))

    def test_what_raises_changes_nothing_and_raises_here(self, database: Database) -> None:
        def fail(tx: Transaction) -> None:
            _put("a", 1)(tx)
            tx.journal("thing.put", "thing", "a")
            raise NotFoundError("on purpose")

        with pytest.raises(NotFoundError, match="on purpose"):
            database.write(fail, actor="suite")
        assert _counts(database) == {}
        assert _entries(database) == []

    def test_a_failure_among_many_writes_touches_no_other(self, database: Database) -> None:
        def write(number: int) -> str | None:
            def work(tx: Transaction) -> str:
                name = _put(str(number), number)(tx)
                if number % 3 == 0:
                    raise NotFoundError(name)
                return name

            try:
                return database.write(work, actor="suite")
            except NotFoundError as error:
                return None if error.message == str(number) else f"the error of {error.message}"

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(write, range(60)))
        assert answers == [None if number % 3 == 0 else str(number) for number in range(60)]
        assert _counts(database) == {str(number): number for number in range(60) if number % 3}

    def test_a_broken_constraint_leaves_the_store_usable(self, database: Database) -> None:
        database.write(_put("a", 1), actor="suite")
        with pytest.raises(Exception, match=r"(?i)unique"):
            database.write(lambda tx: tx.execute(insert(things).values(name="a", amount=2)), actor="suite")
        database.write(_put("b", 2), actor="suite")
        assert _counts(database) == {"a": 1, "b": 2}

    def test_no_increment_is_lost_between_several_writers(self, database: Database, other: Database) -> None:
        database.write(_put("a", 0), actor="suite")

        def increment(number: int) -> None:
            def work(tx: Transaction) -> None:
                row = select(things.c.amount).where(things.c.name == "a").with_for_update()
                count = tx.execute(row).scalar_one()
                tx.execute(update(things).where(things.c.name == "a").values(amount=count + 1))

            (database, other)[number % 2].write(work, actor="suite")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(increment, range(60)))
        assert _counts(database) == {"a": 60}

    def test_a_reader_sees_one_snapshot_while_others_write(self, database: Database, other: Database) -> None:
        database.write(_put("a", 1), actor="suite")
        with database.read() as connection:
            before = connection.execute(select(things.c.amount)).scalars().all()
            other.write(_put("b", 2), actor="suite")
            database.write(_put("c", 3), actor="suite")
            assert connection.execute(select(things.c.amount)).scalars().all() == before == [1]
        assert _counts(database) == {"a": 1, "b": 2, "c": 3}

    def test_many_may_read_at_once(self, database: Database) -> None:
        database.write(_put("a", 1), actor="suite")
        together = threading.Barrier(8, timeout=30)

        def read(_: int) -> dict[str, int]:
            with database.read() as connection:
                counts = _counts_of(connection)
                together.wait()
                return counts

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(read, range(8))) == [{"a": 1}] * 8

    def test_a_write_inside_another_is_refused_and_does_not_wait_for_itself(self, database: Database) -> None:
        def outer(tx: Transaction) -> str:
            tx.journal("thing.put", "thing", "outer")
            return database.write(_put("inner", 1), actor="suite")

        with pytest.raises(RuntimeError, match="inside another"):
            database.write(outer, actor="suite")
        database.write(_put("after", 2), actor="suite")
        assert _counts(database) == {"after": 2}

    def test_a_closed_store_says_so(self, address: str, clock: FixedClock) -> None:
        database = self.open_database(address, clock)
        migrations.upgrade(database)
        database.close()
        database.close()
        with pytest.raises(UnavailableError, match="closed"):
            database.write(lambda tx: None, actor="suite")

    # ------------------------------------------------------------------------------------ values

    def test_times_keep_their_microsecond_and_come_back_in_utc(self, database: Database) -> None:
        far = timezone(timedelta(hours=-5))
        times = {
            "before 1970": datetime(1897, 12, 9, 23, 59, 59, 999999, tzinfo=UTC),
            "now": datetime(2011, 9, 1, 12, 0, 0, 1, tzinfo=UTC),
            "elsewhere": datetime(2011, 9, 1, 12, 0, tzinfo=far),
            "far": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        }
        rows = [{"name": name, "amount": 0, "at": at} for name, at in times.items()]
        database.write(lambda tx: tx.execute(insert(things), rows), actor="suite")
        with database.read() as connection:
            read = {row.name: row.at for row in connection.execute(select(things.c.name, things.c.at))}
        assert read == times
        assert {at.tzinfo for at in read.values()} == {UTC}

    @pytest.mark.parametrize("value", [None, {}, [], {"größe": [1, 2.5, None, "x", {"a": True}]}, "text", 0])
    def test_json_comes_back_as_it_was(self, database: Database, value: object) -> None:
        database.write(
            lambda tx: tx.execute(insert(things).values(name="a", amount=0, detail=value)), actor="suite"
        )
        with database.read() as connection:
            assert connection.execute(select(things.c.detail)).scalar_one() == value

    def test_upsert_inserts_updates_or_leaves(self, database: Database) -> None:
        def put(rows: list[dict[str, Any]], columns: list[str] | None = None) -> int:
            return database.write(
                lambda tx: upsert(tx, things, rows, keys=["name"], update=columns), actor="suite"
            )

        assert put([{"name": "a", "amount": 1, "note": "x"}, {"name": "b", "amount": 2, "note": "y"}]) == 2
        assert put([{"name": "a", "amount": 3, "note": "z"}]) == 1
        assert put([{"name": "b", "amount": 4, "note": "kept out"}], ["amount"]) == 1
        assert put([{"name": "a", "amount": 9, "note": "kept out"}], []) == 0
        assert put([]) == 0
        with database.read() as connection:
            rows = connection.execute(select(things.c.name, things.c.amount, things.c.note)).all()
        assert sorted(map(tuple, rows)) == [("a", 3, "z"), ("b", 4, "y")]

    # ------------------------------------------------------------------------------------ journal

    def test_an_entry_says_who_did_what_to_what_when_and_why(
        self, database: Database, clock: FixedClock
    ) -> None:
        clock.set(START + timedelta(hours=3))
        details = {"to": 3, "numbers": [0.5, None], "at": START}
        seq = database.write(
            lambda tx: tx.journal("model.alias_set", "model", "bikes", reason="better", details=details),
            actor="ada",
        )
        (entry,) = _entries(database)
        assert (entry.seq, entry.actor, entry.action, entry.kind, entry.name, entry.reason) == (
            *(seq, "ada", "model.alias_set"),
            *("model", "bikes", "better"),
        )
        assert entry.at == START + timedelta(hours=3)
        assert entry.recorded_at > START
        assert entry.details == msgspec.to_builtins(details)
        assert entry.previous == journal.GENESIS

    def test_entries_are_found_by_what_they_are_about(self, database: Database) -> None:
        for number in range(6):
            kind, name = ("model", "loop")[number % 2], str(number % 3)
            database.write(_journal(f"{kind}.moved", kind, name), actor="suite")
        with database.read() as connection:
            assert [entry.seq for entry in journal.entries(connection, kind="model")] == [1, 3, 5]
            assert [entry.seq for entry in journal.entries(connection, name="0")] == [1, 4]
            assert [entry.seq for entry in journal.entries(connection, action="loop.moved")] == [2, 4, 6]
            newest = journal.entries(connection, after=1, limit=2, newest_first=True)
            assert [entry.seq for entry in newest] == [6, 5]

    def test_entries_of_concurrent_writers_form_one_chain_without_gaps(
        self, database: Database, other: Database
    ) -> None:
        def write(number: int) -> int:
            store = (database, other)[number % 2]
            return store.write(_journal("thing.put", "thing", str(number)), actor="suite")

        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(write, range(60)))
        assert sorted(numbers) == list(range(1, 61))
        with database.read() as connection:
            assert journal.verify(connection).entries == 60

    def test_an_empty_journal_verifies(self, database: Database) -> None:
        with database.read() as connection:
            assert journal.verify(connection) == journal.Verification(0, journal.GENESIS)

    @pytest.mark.parametrize("column", ["actor", "action", "kind", "name", "reason", "details", "hash"])
    def test_a_changed_entry_is_found(self, database: Database, column: str) -> None:
        _write_entries(database, 5)
        values = {column: '{"forged":1}'}
        _tamper(database, update(journal_table).where(journal_table.c.seq == 3).values(values), "entry 3")

    @pytest.mark.parametrize("column", ["at", "recorded_at"])
    def test_a_changed_time_is_found(self, database: Database, column: str) -> None:
        _write_entries(database, 5)
        values = {column: START + timedelta(seconds=1)}
        _tamper(database, update(journal_table).where(journal_table.c.seq == 2).values(values), "entry 2")

    @pytest.mark.parametrize("seq", [1, 3, 5])
    def test_a_removed_entry_is_found(self, database: Database, seq: int) -> None:
        _write_entries(database, 5)
        _tamper(database, delete(journal_table).where(journal_table.c.seq == seq), f"entry {seq} is missing")

    def test_a_journal_cut_at_its_end_is_found_though_what_is_left_is_a_chain(
        self, database: Database
    ) -> None:
        _write_entries(database, 5)
        _tamper(database, delete(journal_table).where(journal_table.c.seq > 3), "entry 4 is missing")

    def test_an_entry_that_was_rewritten_with_a_fitting_hash_is_found(self, database: Database) -> None:
        _write_entries(database, 5)

        def forge(tx: Transaction) -> None:
            row = tx.execute(select(journal_table).where(journal_table.c.seq == 3)).mappings().one()
            tx.execute(delete(journal_table).where(journal_table.c.seq >= 3))
            head = tx.execute(select(journal_table.c.hash).where(journal_table.c.seq == 2)).scalar_one()
            tx.execute(update(journal_head_table).values(seq=2, hash=head))
            tx.journal("thing.forged", row["kind"], row["name"])

        with database.read() as connection:
            kept = connection.execute(select(journal_table).where(journal_table.c.seq > 3)).mappings().all()
            head = connection.execute(select(journal_head_table)).mappings().one()
        database.write(forge, actor="mallory")
        database.write(
            lambda tx: tx.execute(insert(journal_table), [dict(row) for row in kept]), actor="mallory"
        )
        _tamper(database, update(journal_head_table).values(seq=head["seq"], hash=head["hash"]), "entry 4")

    # ------------------------------------------------------------------------------------ leases, locks

    def test_a_lease_is_held_by_one_until_it_is_released(self, database: Database, other: Database) -> None:
        ours = Leases(database).acquire("controller", "a", seconds=60)
        assert ours is not None
        assert Leases(other).acquire("controller", "b", seconds=60) is None
        assert Leases(other).acquire("another", "b", seconds=60) is not None
        Leases(database).release(ours)
        theirs = Leases(other).acquire("controller", "b", seconds=60)
        assert theirs is not None
        assert theirs.token > ours.token

    def test_a_stale_holder_is_refused_by_the_fence_and_changes_nothing(self, database: Database) -> None:
        leases = Leases(database)
        stale = leases.acquire("controller", "a", seconds=-1)  # run out as soon as it is granted
        fresh = leases.acquire("controller", "b", seconds=60)
        assert stale is not None
        assert fresh is not None

        def put_fenced(tx: Transaction) -> None:
            _put("a", 1)(tx)
            check_fence(tx, stale)

        with pytest.raises(LeaseLostError, match="controller"):
            database.write(put_fenced, actor="a")
        with pytest.raises(LeaseLostError):
            leases.renew(stale, seconds=60)
        leases.release(stale)
        assert leases.renew(fresh, seconds=60).token == fresh.token
        database.write(lambda tx: check_fence(tx, fresh), actor="b")
        assert _counts(database) == {}

    def test_a_lease_that_ran_out_unnoticed_still_counts_until_somebody_takes_it(
        self, database: Database
    ) -> None:
        leases = Leases(database)
        lease = leases.acquire("controller", "a", seconds=-1)
        assert lease is not None
        database.write(lambda tx: check_fence(tx, lease), actor="a")
        assert leases.renew(lease, seconds=60).expires_at > datetime.now(UTC)
        assert leases.acquire("controller", "b", seconds=60) is None

    def test_a_holder_that_asks_again_fences_its_own_past(self, database: Database) -> None:
        leases = Leases(database)
        first = leases.acquire("controller", "a", seconds=60)
        second = leases.acquire("controller", "a", seconds=60)
        assert first is not None
        assert second is not None
        assert second.token > first.token
        with pytest.raises(LeaseLostError):
            database.write(lambda tx: check_fence(tx, first), actor="a")

    def test_of_many_who_ask_at_once_one_gets_the_lease(self, database: Database, other: Database) -> None:
        for name in ("one", "two", "three"):
            together = threading.Barrier(6, timeout=30)

            def ask(number: int, name: str = name, together: threading.Barrier = together) -> bool:
                together.wait()
                leases = Leases((database, other)[number % 2])
                return leases.acquire(name, str(number), seconds=60) is not None

            with ThreadPoolExecutor(6) as pool:
                assert sum(pool.map(ask, range(6))) == 1

    def test_one_at_a_time_holds_an_exclusive_lock(self, database: Database, other: Database) -> None:
        inside = 0
        most = 0

        def enter(number: int) -> None:
            nonlocal inside, most
            with (database, other)[number % 2].exclusive("table:rows"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.005)
                inside -= 1

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(enter, range(18)))
        assert most == 1

    def test_locks_of_two_names_do_not_wait_for_each_other(self, database: Database, other: Database) -> None:
        with database.exclusive("a"), other.exclusive("b"):
            pass

    def test_an_exclusive_lock_is_let_go_by_an_error(self, database: Database, other: Database) -> None:
        with pytest.raises(NotFoundError), database.exclusive("a"):
            raise NotFoundError("on purpose")
        with other.exclusive("a"):
            pass

    # ------------------------------------------------------------------------------------ migrations

    def test_a_store_is_brought_to_the_newest_schema_once_by_many_who_ask(
        self, address: str, clock: FixedClock
    ) -> None:
        together = threading.Barrier(3, timeout=30)

        def start(_: int) -> int:
            database = self.open_database(address, clock)
            try:
                together.wait()
                migrations.upgrade(database)
                with database.read() as connection:
                    assert migrations.revision(connection) == migrations.NEWEST
                return database.write(_journal("thing.put", "thing", "a"), actor="suite")
            finally:
                database.close()

        with ThreadPoolExecutor(3) as pool:
            assert sorted(pool.map(start, range(3))) == [1, 2, 3]

    def test_a_store_of_a_newer_version_is_refused_and_left_alone(self, database: Database) -> None:
        revision = Table("alembic_version", MetaData(), Column("version_num", Text))
        database.write(lambda tx: tx.execute(update(revision).values(version_num="9999")), actor="suite")
        with pytest.raises(WorkspaceVersionError, match=r"9999.*pip install --upgrade trimtab"):
            migrations.upgrade(database)
        with database.read() as connection:
            assert migrations.revision(connection) == "9999"
            assert connection.execute(select(func.count()).select_from(things)).scalar_one() == 0


def _put(name: str, count: int) -> Callable[[Transaction], str]:
    def work(tx: Transaction) -> str:
        tx.execute(insert(things).values(name=name, amount=count))
        return name

    return work


def _counts(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return _counts_of(connection)


def _counts_of(connection: Connection) -> dict[str, int]:
    return {row.name: row.amount for row in connection.execute(select(things.c.name, things.c.amount))}


def _journal(action: str, kind: str, name: str) -> Callable[[Transaction], int]:
    return lambda tx: tx.journal(action, kind, name, details={"name": name})


def _entries(database: Database) -> list[journal.Entry]:
    with database.read() as connection:
        return list(journal.entries(connection))


def _write_entries(database: Database, count: int) -> None:
    for number in range(count):
        database.write(_journal("thing.put", "thing", str(number)), actor="suite")


def _tamper(database: Database, statement: Any, words: str) -> None:
    """Change the journal behind Trimtab's back, and expect that a check finds it."""
    database.write(lambda tx: tx.execute(statement), actor="mallory")
    with database.read() as connection, pytest.raises(JournalBrokenError, match=words):
        journal.verify(connection)
