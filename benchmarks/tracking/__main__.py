"""Tracking and the registry beside stock MLflow: the same client drives both servers, in turn.

`make bench-tracking`, with ARGS such as "--quick", "--only log_metric,history" or "--runs 1000000".

The servers are `mlflow server --workers 1` on SQLite, Trimtab's server role alone, and one that answers at
once with the same bytes, which shows what the client itself costs. Everything runs on this machine and talks
over the loopback; all stores are in one folder for temporary files (TMPDIR names another).
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import msgspec
from benchmarks.peers import peer
from benchmarks.tracking import over_http
from benchmarks.tracking.bench import Bench
from benchmarks.tracking.in_process import in_process, values
from benchmarks.tracking.many_runs import many_runs
from benchmarks.tracking.report import Verdicts, load, machine
from benchmarks.tracking.servers import client
from benchmarks.tracking.starting import ready

MLFLOW = "3.17.2"
PARTS = ("ready", *over_http.NAMES, "in_process", "log_values")


class Settings(msgspec.Struct, frozen=True):
    """How long and what to measure."""

    rounds: int
    seconds: float
    parts: frozenset[str]
    runs: int


def settings() -> Settings:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tracking")
    parser.add_argument("--quick", action="store_true", help="one short round: whether all works")
    parser.add_argument("--rounds", type=int, help="turns of each side (default 5)")
    parser.add_argument("--seconds", type=float, help="length of a turn (default 2)")
    parser.add_argument("--only", default="", help=f"some of: {','.join(PARTS)}")
    parser.add_argument("--runs", type=int, default=0, help="only search, in an experiment of so many runs")
    given = parser.parse_args()
    parts = frozenset(given.only.split(",")) if given.only else frozenset(PARTS)
    if unknown := parts - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    rounds, seconds = (1, 0.7) if given.quick else (5, 2.0)
    return Settings(given.rounds or rounds, given.seconds or seconds, parts, given.runs)


def main() -> None:
    chosen = settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all processes are ended
    python = peer("mlflow", MLFLOW)
    verdicts = Verdicts()
    with tempfile.TemporaryDirectory(prefix="bench-tracking-") as name, client(python) as driver:
        folder = Path(name)
        print(machine(folder, driver.ask("version")), flush=True)
        bench = Bench(folder, python, driver, verdicts, chosen.rounds, chosen.seconds, chosen.parts)
        if chosen.runs:
            many_runs(bench, chosen.runs)
        else:
            if "ready" in chosen.parts:
                ready(bench)
            if chosen.parts & set(over_http.NAMES):
                over_http.over_http(bench)
            if "in_process" in chosen.parts:
                in_process(bench)
            if "log_values" in chosen.parts:
                values(bench)
    print(f"\nload averages after: {load()}")
    verdicts.print()


if __name__ == "__main__":
    main()
