"""Durable commits by several processes at once: the metadata store beside SQLite's own busy timeout.

Each of the processes commits in a loop for a fixed time. Printed are the commits of all together, of the
one that got the fewest and of the one that got the most, and the ratio of the fewest to the peer's.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

PROCESSES = 4
SECONDS = 4.0
THREADS = 8


def commit_with_busy_timeout(folder: str) -> Callable[[], None]:
    """The peer: each process opens SQLite in WAL mode and waits on its busy timeout."""
    connection = sqlite3.connect(f"{folder}/peer.db", timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS things (name TEXT)")

    def commit() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO things VALUES ('a')")
        connection.execute("COMMIT")

    return commit


def commit_to_the_store(folder: str) -> Callable[[], None]:
    """Trimtab's store, one caller in each process, with a journal entry in each commit."""
    from trimtab.clock import SystemClock
    from trimtab.store.sqlite import SqliteDatabase

    database = SqliteDatabase(Path(folder) / "metadata.db", SystemClock())
    return lambda: (database.write(lambda tx: tx.journal("thing.put", "thing", "a"), actor="bench"), None)[1]


def commit_from_threads(folder: str) -> Callable[[], int]:
    """Trimtab's store, several callers in each process, which share commits."""
    from concurrent.futures import ThreadPoolExecutor

    commit = commit_to_the_store(folder)
    pool = ThreadPoolExecutor(THREADS)
    return lambda: len(list(pool.map(lambda _: commit(), range(THREADS))))


def loop(way: Callable[[str], Callable[[], int | None]], folder: str, ready: Connection) -> None:
    """One process: commit until the time is up, and tell how often."""
    commit = way(folder)
    ready.send("ready")
    ready.recv()
    done, until = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        done += commit() or 1
    ready.send(done)


def measured(way: Callable[[str], Callable[[], int | None]]) -> list[int]:
    """The commits of each process."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        ours, theirs = zip(*(context.Pipe() for _ in range(PROCESSES)), strict=True)
        processes = [context.Process(target=loop, args=(way, folder, end)) for end in theirs]
        for process in processes:
            process.start()
        for end in ours:
            end.recv()
        for end in ours:
            end.send("go")
        counts = [end.recv() for end in ours]
        for process in processes:
            process.join()
    return counts


def prepare(folder: str) -> None:
    """Make the store's schema."""
    from trimtab.clock import SystemClock
    from trimtab.store import migrations
    from trimtab.store.sqlite import SqliteDatabase

    database = SqliteDatabase(Path(folder) / "metadata.db", SystemClock())
    migrations.upgrade(database)
    database.close()


def main() -> None:
    ways = {
        "sqlite3, busy timeout": commit_with_busy_timeout,
        "trimtab, journaled": commit_to_the_store,
        f"trimtab, journaled, {THREADS} threads each": commit_from_threads,
    }
    peer = 0
    for name, way in ways.items():
        counts = measured(way)
        peer = peer or max(1, min(counts))
        print(
            f"{name:38} {sum(counts) / SECONDS:8.0f}/s   fewest {min(counts) / SECONDS:7.0f}/s   "
            f"most {max(counts) / SECONDS:7.0f}/s   fewest to peer's {min(counts) / peer:6.1f} x"
        )


if __name__ == "__main__":
    main()
