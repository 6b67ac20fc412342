"""The limits of the machine that no server and no store can surpass."""

from __future__ import annotations

import http.client
import sqlite3
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.tracking.null_server import LIMIT_PATH

BODY = b'{"run_id": "00000000000000000000000000000000", "key": "loss", "value": 0.5, "step": 1}'


def posts(url: str, seconds: float) -> float:
    """POSTs a second over one connection by one thread of Python's own HTTP client."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        connection.request("POST", LIMIT_PATH, BODY, {"Content-Type": "application/json"})
        connection.getresponse().read()
        done += 1
    spent = time.perf_counter() - began
    connection.close()
    return done / spent


def commits(folder: Path, seconds: float) -> float:
    """Durable commits a second of one row each, in SQLite's WAL with synchronous=FULL."""
    connection = table_in(folder)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        connection.execute("INSERT INTO points VALUES (1, 1, ?, 1, 0.5)", (done,))
        done += 1
    spent = time.perf_counter() - began
    connection.close()
    return done / spent


def rows(folder: Path, seconds: float) -> float:
    """Rows a second in durable commits of 10,000."""
    connection = table_in(folder)
    batch = [(1, 1, step, 1, 0.5) for step in range(10_000)]
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", batch)
        connection.execute("COMMIT")
        done += len(batch)
    spent = time.perf_counter() - began
    connection.close()
    return done / spent


def table_in(folder: Path) -> sqlite3.Connection:
    """An empty table of points."""
    connection = sqlite3.connect(folder / "limits.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("DROP TABLE IF EXISTS points")
    connection.execute("CREATE TABLE points (run INT, key INT, step INT, at INT, value REAL)")
    return connection
