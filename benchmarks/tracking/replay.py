"""The server's own cost: requests that the client sent, recorded and sent again by wrk."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec
from benchmarks.tracking.servers import Client, Server, get

NEEDED = "wrk is not installed (Debian: apt-get install wrk); this part is left out"

SCRIPT = """
local file = io.open(os.getenv("BENCH_REQUEST"), "rb")
local parts, text, stamp = {}, file:read("*a"), os.getenv("BENCH_STAMP")
local from = 1
while stamp ~= "" do
  local first, last = text:find(stamp, from, true)
  if not first then break end
  parts[#parts + 1] = text:sub(from, first - 1)
  from = last + 1
end
parts[#parts + 1] = text:sub(from)
local now = tonumber(os.getenv("BENCH_FROM"))
request = function()
  now = now + 1
  return table.concat(parts, string.format("%d", now))
end
"""
"""Each request carries a time of its own, so that no store meets a metric that it has already."""


class Recorded(msgspec.Struct, frozen=True):
    """One request as it came over the line, and what in it belongs to the place where it was recorded."""

    name: str
    request: bytes
    run: str
    connections: int


class Cost(msgspec.Struct, frozen=True):
    """What wrk found: requests a second, and the server's processor seconds for each."""

    rate: float
    cpu: float
    failed: int


def record(client: Client, null: Server) -> list[Recorded]:
    """What the client sends, taken down by the null server."""
    run: str = client.ask("open", uri=null.url)["run"]
    found = []
    # Fewer at once for what takes long: what is under way when wrk ends was paid for, but is not counted.
    for name, what, more, connections in (
        ("log-metric", "log_metric", {}, 8),
        ("log-batch of 100", "log_batch", {"size": 100}, 4),
        ("log-batch of 1000", "log_batch", {"size": 1000}, 1),
        ("get-run", "get_run", {}, 8),
    ):
        client.ask("turn", what=what, uri=null.url, seconds=0, **more)
        found.append(Recorded(name, get(f"{null.url}/last"), run, connections))
    return found


def replay(recorded: Recorded, server: Server, run: str, seconds: float) -> Cost:
    """Send a request to a server for some seconds over several connections."""
    address = server.url.removeprefix("http://")
    text = recorded.request.replace(recorded.run.encode(), run.encode())
    text = re.sub(rb"(?i)\r\nhost: [^\r]*", b"\r\nHost: " + address.encode(), text, count=1)
    stamp = re.search(rb'"timestamp": ?"?(\d{13})', text)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "request").write_bytes(text)
        (folder / "replay.lua").write_text(SCRIPT)
        before = server.cpu()
        done = subprocess.run(
            ["wrk", "-t1", f"-c{recorded.connections}", f"-d{max(1, round(seconds))}", "--timeout", "20",
             "-s", folder / "replay.lua", server.url],
            env={
                "BENCH_REQUEST": str(folder / "request"),
                "BENCH_STAMP": stamp[1].decode() if stamp else "",
                "BENCH_FROM": str(int(time.time() * 1000)),
            },
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    spent = server.cpu() - before
    total = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    assert total is not None
    assert rate is not None
    count = max(1, int(total[1]))
    return Cost(float(rate[1]), spent / count, int(failed[1]) if failed else 0)


def possible() -> bool:
    """Whether wrk is there."""
    return shutil.which("wrk") is not None
