"""The load: wrk, which sends one request over again through so many connections."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
from benchmarks.serving.subject import Question
from benchmarks.tracking.servers import Server

NEEDED = "this benchmark needs wrk (Debian: apt-get install wrk)"

SCRIPT = """
wrk.method = "POST"
wrk.body = io.open(os.getenv("BENCH_BODY"), "rb"):read("*a")
for name, value in os.getenv("BENCH_HEADERS"):gmatch("([^\\n]+): ([^\\n]+)") do wrk.headers[name] = value end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("BENCH %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""
"""Its last line: requests, microseconds, median and 99th percentile in microseconds, failures."""


class Turn(msgspec.Struct, frozen=True):
    """One turn: requests a second, latencies in microseconds, the server's processor microseconds for each
    request, and of these what its background processes (shipping the log) took."""

    rate: float
    p50: float
    p99: float
    cpu: float
    behind: float


def possible() -> bool:
    """Whether wrk is there."""
    return shutil.which("wrk") is not None


def turn(server: Server, question: Question, connections: int, seconds: float, folder: Path) -> Turn:
    """Load a server; raises RuntimeError if it failed a request."""
    body, script = folder / "body", folder / "load.lua"
    body.write_bytes(question.body)
    script.write_text(SCRIPT)
    before, behind = server.cpu(), background(server)
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--timeout", "20",
         "-s", script, server.url + question.path],
        env={
            "PATH": os.environ.get("PATH", ""),
            "BENCH_BODY": str(body),
            "BENCH_HEADERS": "\n".join(f"{name}: {value}" for name, value in question.headers.items()),
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    spent, behind = server.cpu() - before, background(server) - behind
    found = re.search(r"BENCH (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        raise RuntimeError(f"wrk said nothing of use: {done.stdout} {done.stderr}")
    requests, length, p50, p99, failed = map(int, found.groups())
    if failed or not requests:
        raise RuntimeError(f"{server.name} failed {failed} of {requests} requests at {question.path}")
    return Turn(1e6 * requests / length, p50, p99, 1e6 * spent / requests, 1e6 * behind / requests)


def background(server: Server) -> float:
    """Processor seconds so far of those of Trimtab's processes that answer no request."""
    return sum(_of_shippers(server, lambda process: sum(process.cpu_times()[:2])))


def held_apart(server: Server) -> float:
    """Megabytes (PSS) that these hold."""
    return sum(_of_shippers(server, lambda process: process.memory_full_info().pss)) / 1e6


def _of_shippers(server: Server, ask: Callable[[psutil.Process], float]) -> list[float]:
    found = []
    for process in server.members():
        with contextlib.suppress(psutil.NoSuchProcess):
            if {"trimtab.serving.shipper", "trimtab.serving.carrier"} & set(process.cmdline()):
                found.append(ask(process))
    return found
