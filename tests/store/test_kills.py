"""Processes that write and are killed: what was acknowledged stays, once, and nobody starves."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from trimtab.clock import SystemClock
from trimtab.store import journal, migrations
from trimtab.store.database import Database
from trimtab.store.opening import open_database
from trimtab.store.schema import journal_table
from trimtab.store.sqlite import SqliteDatabase
from trimtab.store.tables import DeltaTables

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


class Writer:
    """A running writer process, and what it was told is safe."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.writer", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.acknowledged: list[int] = []

    def read(self) -> None:
        """Wait for one more acknowledgement."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.endswith("\n"):
            self.acknowledged.append(int(line))

    def kill(self) -> None:
        """SIGKILL, then take what it had still said."""
        self.process.kill()
        assert self.process.stdout is not None
        self.acknowledged += [
            int(line) for line in self.process.stdout.read().splitlines(True) if line[-1] == "\n"
        ]
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def writer(*arguments: str) -> Iterator[Writer]:
    """A writer that is killed at the end."""
    started = Writer(*arguments)
    try:
        yield started
    finally:
        started.kill()


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store with its schema."""
    chosen = (
        request.getfixturevalue("postgres_url")
        if request.param == "postgres"
        else f"sqlite:///{tmp_path / 'm.db'}"
    )
    database = open_database(chosen, SystemClock())
    migrations.upgrade(database)
    database.close()
    return chosen


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has to happen."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def entries_by_name(database: Database) -> dict[str, list[int]]:
    """The numbers of the journal's entries, by the writer that made them."""
    found: dict[str, list[int]] = {}
    with database.read() as connection:
        for row in connection.execute(
            select(journal_table.c.seq, journal_table.c.name).order_by(journal_table.c.seq)
        ):
            found.setdefault(row.name, []).append(row.seq)
    return found


def test_a_kill_during_writes_loses_no_acknowledged_change(address: str) -> None:
    acknowledged: dict[str, list[int]] = {}
    for life in range(3):
        with writer("metadata", address, f"a{life}") as one, writer("metadata", address, f"b{life}") as other:
            for _ in range(15 + 7 * life):
                one.read()
                other.read()
        acknowledged |= {f"a{life}": one.acknowledged, f"b{life}": other.acknowledged}
    database = open_database(address, SystemClock())
    try:
        with database.read() as connection:
            journal.verify(connection)
        kept = entries_by_name(database)
        for name, numbers in acknowledged.items():
            assert set(numbers) <= set(kept[name])
            assert len(kept[name]) - len(numbers) <= 1, "only the change in flight may be unacknowledged"
    finally:
        database.close()


def test_neither_of_two_writing_processes_starves(address: str) -> None:
    database = open_database(address, SystemClock())
    try:
        with writer("metadata", address, "a") as one, writer("metadata", address, "b") as other:
            one.read()
            other.read()
            since = max(one.acknowledged + other.acknowledged)
            until(lambda: sum(map(len, entries_by_name(database).values())) >= since + 200)
        shared = [
            [number for number in numbers if number > since] for numbers in entries_by_name(database).values()
        ]
        assert min(map(len, shared)) >= 0.2 * sum(map(len, shared)), shared
    finally:
        database.close()


def test_an_append_that_was_cut_by_a_kill_is_repeated_exactly_once(tmp_path: Path) -> None:
    count = 30
    done = 0
    for life in range(4):
        with writer("table", str(tmp_path), str(count)) as process:
            while len(process.acknowledged) < min(count, done + 6):
                process.read()
            time.sleep(0.003 * life)  # so that the kills fall into different moments of an append
        assert process.acknowledged == list(range(len(process.acknowledged)))
        done = max(done, len(process.acknowledged))
    database = SqliteDatabase(tmp_path / "metadata.db", SystemClock())
    tables = DeltaTables(f"{tmp_path}/tables", database.exclusive)
    kept = sorted(tables.read("rows")["id"])
    assert len(kept) - done in {0, 1}
    assert kept == list(range(len(kept)))
    with writer("table", str(tmp_path), str(count)) as process:
        process.process.wait(PATIENCE)
    assert sorted(tables.read("rows")["id"]) == list(range(count))
    database.close()
