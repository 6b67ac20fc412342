"""A prediction over HTTP: the whole gateway beside Granian answering with no model at all.

Run it with `python -m benchmarks gateway`. One client with one connection asks for one row of 12 columns
(LightGBM, 200 trees), routed, validated and logged before it is answered; then, where wrk is installed, 1, 16
and 64 connections.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl

from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.serving.endpoints import Endpoints
from trimtab.serving.routes import single
from trimtab.workspace import Workspace

PATH = "/v1/endpoints/bench/predict"
REQUESTS = 5_000
SECONDS = 4
ROW = {**{f"f{place}": 1.5 for place in range(10)}, "season": "winter", "holiday": True}
BODY = json.dumps({"row": ROW})
BARE = """
import sys
from granian.server.embed import Server
import asyncio
async def app(scope, channel):
    await channel()
    channel.response_bytes(200, [("content-type", "application/json")], b'{"predictions":[1.5]}')
asyncio.run(Server(app, port=int(sys.argv[1]), log_enabled=False).serve())
"""


def prepare(project: Path) -> None:
    """Make a workspace with an endpoint."""
    rng = np.random.default_rng(0)
    rows = 5_000
    frame = pl.DataFrame(
        {
            **{f"f{place}": rng.normal(size=rows) for place in range(10)},
            "season": rng.choice(["winter", "summer"], rows),
            "holiday": rng.random(rows) > 0.9,
        }
    )
    taken = inputs(frame)
    target = 2 * frame["f0"].to_numpy() + rng.normal(size=rows)
    data = lightgbm.Dataset(taken.matrix(frame), target)
    model = Model.lightgbm(lightgbm.train({"verbose": -1}, data, 200), taken, target="y")
    with Workspace.create(project) as workspace, tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        digest = workspace.blobs.put_tree(Path(folder) / "model")
        endpoints = Endpoints(workspace)
        workspace.write(lambda tx: endpoints.create(tx, "bench", "bench"))
        workspace.write(lambda tx: endpoints.set_route(tx, "bench", single("bench", 1, digest)))


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server on a port, ready to answer."""
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                ask(port, 1)
                break
            except (OSError, http.client.HTTPException, RuntimeError):
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def ask(port: int, requests: int) -> list[float]:
    """How long each of so many requests took over one connection, in microseconds, sorted."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    taken = []
    for _ in range(requests):
        began = time.perf_counter()
        connection.request("POST", PATH, BODY)
        response = connection.getresponse()
        response.read()
        taken.append((time.perf_counter() - began) * 1e6)
        if response.status != 200:
            raise RuntimeError(f"status {response.status}")
    connection.close()
    return sorted(taken)


def load(port: int, connections: int, folder: Path) -> float:
    """Requests a second over so many connections."""
    script = folder / "post.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\n")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}", "-s", str(script)]
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{PATH}"], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in said.stdout:
        raise RuntimeError(said.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", said.stdout)
    assert found is not None
    return float(found[1])


def main() -> None:
    """Measure both, and print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder / "project")
        servers = {
            "trimtab gateway": (
                ["-m", "trimtab.serving.gateway", str(folder / "project"), "127.0.0.1", "8651"],
                8651,
            ),
            "bare Granian, no model": (["-c", BARE, "8652"], 8652),
        }
        rates: dict[str, list[float]] = {}
        for title, (command, port) in servers.items():
            with running(command, port):
                ask(port, 200)
                taken = ask(port, REQUESTS)
                middle, p99 = taken[REQUESTS // 2], taken[REQUESTS * 99 // 100]
                print(f"{title:24} one client: median {middle:7.0f} us   p99 {p99:7.0f} us", flush=True)
                if shutil.which("wrk"):
                    rates[title] = [load(port, connections, folder) for connections in (1, 16, 64)]
        for place, connections in enumerate((1, 16, 64) if rates else ()):
            own, bare = (rates[title][place] for title in servers)
            print(f"{connections:3} connections: {own:9.0f} requests/s of {bare:9.0f} ({own / bare:.0%})")


if __name__ == "__main__":
    main()
