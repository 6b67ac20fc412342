"""Logging through `trimtab.log`, and reading a history, beside one row for each value in SQLite.

Values are counted from the first call until all are durable. The peer is the leanest table of rows, written
with one `executemany` and one synced commit for each 10,000 values, in the same folder. The lag is from the
call that took the oldest value of a batch until that batch is durable, while values come at a fixed pace.
"""

from __future__ import annotations

import sqlite3
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path

from trimtab.tracking.log import active_run, log
from trimtab.tracking.metrics import Batch
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

VALUES = 300_000
ROUNDS = 3
PACE = 200_000
PACED_SECONDS = 5.0
HISTORY = 100_000


def rows_in_sqlite(folder: str) -> tuple[float, float]:
    """The peer: seconds to write the values, and to read a history as columns."""
    connection = sqlite3.connect(f"{folder}/peer.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS points (run INT, key INT, step INT, at INT, value REAL)")
    connection.execute("DELETE FROM points")
    began = time.perf_counter()
    for start in range(0, VALUES, 10_000):
        now = time.time_ns()
        connection.execute("BEGIN IMMEDIATE")
        rows = [(1, 1, step, now, 0.5) for step in range(start, start + 10_000)]
        connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    written = time.perf_counter()
    query = "SELECT step, at, value FROM points WHERE run = 1 AND step < ?"
    columns = list(zip(*connection.execute(query, (HISTORY,)).fetchall(), strict=True))
    assert len(columns[0]) == HISTORY
    ended = time.perf_counter()
    connection.close()
    return written - began, ended - written


def logged(workspace: Workspace, call: Callable[[int], int]) -> tuple[float, float]:
    """Seconds until all values are durable, and processor seconds of this process; `call` logs one step and
    answers how many values that were."""
    run = Tracking(workspace).start_run("benchmark")
    spent, began, done, step = time.process_time(), time.perf_counter(), 0, 0
    with active_run(workspace, run.id):
        while done < VALUES:
            done += call(step)
            step += 1
    return time.perf_counter() - began, time.process_time() - spent


def log_one(step: int) -> int:
    log(loss=0.5, step=step)
    return 1


MANY = {f"metric {number}": 0.5 for number in range(10)}


def log_ten(step: int) -> int:
    log(MANY, step=step)
    return 10


def lags(workspace: Workspace) -> list[float]:
    """Milliseconds for which the oldest value of each batch waited to be durable."""
    found: list[float] = []
    run = Tracking(workspace).start_run("benchmark")
    with active_run(workspace, run.id) as buffer:
        writer = buffer._writer
        write = writer.write

        def timed(run_id: str, batch: Batch, sequence: int, *, actor: str) -> None:
            write(run_id, batch, sequence, actor=actor)
            for packed in batch.values():
                (taken,) = struct.unpack_from("<q", packed.data, 8 * packed.points)
                found.append(time.time() * 1e3 - taken / 1e3)

        writer.write = timed  # type: ignore[assignment,method-assign]  # the buffer passes no `also`
        began, step = time.perf_counter(), 0
        while (spent := time.perf_counter() - began) < PACED_SECONDS:
            while step < spent * PACE:
                log(loss=0.5, step=step)
                step += 1
            time.sleep(0.001)
    return sorted(found)


def history(workspace: Workspace) -> float:
    """Seconds to read a long history as columns."""
    tracking = Tracking(workspace)
    run = tracking.start_run("benchmark")
    with active_run(workspace, run.id):
        for step in range(HISTORY):
            log(loss=0.5, step=step)
    began = time.perf_counter()
    assert len(tracking.metric_history(run.id, "loss")) == HISTORY
    return time.perf_counter() - began


def measured(folder: Path, rounds: int) -> tuple[float, float]:
    """Print the table; answers the values a second of one value a call, and the 95th percentile of the lag in
    milliseconds."""
    figures: dict[str, list[float]] = {}
    by_cpu: dict[str, list[float]] = {}
    with Workspace.create(folder / "log-values", actor="benchmark") as workspace:
        for _ in range(rounds):
            written, read = rows_in_sqlite(str(folder))
            figures.setdefault("rows in SQLite", []).append(VALUES / written)
            for name, call in (("1 value", log_one), ("10 values", log_ten)):
                took, cpu = logged(workspace, call)
                figures.setdefault(f"trimtab.log, {name} a call", []).append(VALUES / took)
                by_cpu.setdefault(f"trimtab.log, {name} a call", []).append(VALUES / cpu)
            figures.setdefault("history, rows in SQLite", []).append(HISTORY / read)
            figures.setdefault("history, Trimtab", []).append(HISTORY / history(workspace))
        waited = lags(workspace)
    for name, rates in figures.items():
        rate = statistics.median(rates)
        peer = statistics.median(
            figures["history, rows in SQLite" if "history" in name else "rows in SQLite"]
        )
        print(f"  {name:32} {rate:12,.0f} values/s  {rate / peer:6.2f} of the peer", end="")
        if name in by_cpu:
            print(f", {statistics.median(by_cpu[name]):,.0f} in a second of processor time", end="")
        print()
    late = waited[int(0.95 * len(waited))]
    print(
        f"  lag at {PACE:,} values/s: median {statistics.median(waited):.0f} ms, "
        f"95 of 100 within {late:.0f} ms, at most {waited[-1]:.0f} ms"
    )
    return statistics.median(figures["trimtab.log, 1 value a call"]), late
