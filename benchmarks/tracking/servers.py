"""The processes of the benchmark: servers with what they use of the machine, and the client."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from trimtab.workspace import Workspace

READY_SECONDS = 120.0
ROOT = Path(__file__).parents[2]

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "TRIMTAB_ACTOR": "benchmark",
}


class Server:
    """A running server. `ready` is the time from its start to its first 200 at /health, in seconds, and
    `starting` what of the processor its processes used for that."""

    def __init__(self, name: str, url: str, process: psutil.Process, ready: float) -> None:
        self.name = name
        self.url = url
        self.ready = ready
        self._process = process
        self.starting = self.cpu()

    def cpu(self) -> float:
        """Processor seconds that its processes have used so far."""
        return sum(self._each(lambda process: sum(process.cpu_times()[:2])))

    def pss(self) -> float:
        """Megabytes that its processes hold, what they share counted once (PSS; RSS where there is none)."""

        def held(process: psutil.Process) -> float:
            memory = process.memory_full_info()
            return float(getattr(memory, "pss", memory.rss))

        return sum(self._each(held)) / 1e6

    def members(self) -> list[psutil.Process]:
        """Its processes."""
        return family(self._process)

    def processes(self) -> int:
        """How many processes it has."""
        return len(self.members())

    def _each(self, ask: Any) -> list[float]:
        found = []
        for process in family(self._process):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(float(ask(process)))
        return found


class Client:
    """The process of `client.py`, by the Python given."""

    def __init__(self, python: Path) -> None:
        script = Path(__file__).with_name("client.py")
        self._process = subprocess.Popen(
            [python, "-P", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )

    def ask(self, do: str, **given: object) -> dict[str, Any]:
        """Have one order done; raises RuntimeError for one that failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise RuntimeError(f"the client failed at {do} {given}: {answer['error']}"[:1000])
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def client(python: Path) -> Iterator[Client]:
    """A client while the block runs."""
    running = Client(python)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def stock(python: Path, folder: Path, *, jobs: bool = False) -> Iterator[Server]:
    """MLflow's server with one worker on SQLite; its artifacts go through it, into a folder.

    `jobs`: with its eight processes for background jobs, as it starts by default. Tracking needs none of
    them, and they would take their share of a small machine.
    """
    folder.mkdir(exist_ok=True)
    port = free_port()
    command = [
        str(python), "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{stock_database(folder)}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    # It starts programs of its own environment by name.
    extra = {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true" if jobs else "false",
    }
    with running("stock", command, port, folder / "server.log", extra) as server:
        yield server


def stock_database(folder: Path) -> Path:
    """The file of the stock server's store."""
    return folder / "mlflow.db"


@contextlib.contextmanager
def trimtab(project: Path) -> Iterator[Server]:
    """Trimtab's server role alone, over a project that is made if there is none."""
    if not project.exists():
        Workspace.create(project, actor="benchmark").close()
    port = free_port()
    command = [
        sys.executable, "-m", "trimtab.server.roles", "server", "--dir", str(project),
        "--host", "127.0.0.1", "--port", str(port), "--gateway-port", str(free_port()),
    ]  # fmt: skip
    with running("trimtab", command, port, project.with_suffix(".log")) as server:
        yield server


@contextlib.contextmanager
def null(upstream: str, folder: Path) -> Iterator[Server]:
    """The server that answers at once with the bytes that `upstream` gave."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.tracking.null_server", str(port), upstream]
    with running("null", command, port, folder / "null.log") as server:
        yield server


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    log: Path,
    extra: Mapping[str, str] | None = None,
    *,
    answers: Callable[[int], bool] | None = None,
) -> Iterator[Server]:
    """A server from when it answers until the end of the block: /health, or what `answers` asks for."""
    answers = answers or healthy
    began = time.perf_counter()
    with log.open("ab") as output:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(), **(extra or {})},
            cwd=ROOT if name == "null" else log.parent,
        )
    process = psutil.Process(started.pid)
    try:
        while not answers(port):
            if started.poll() is not None or time.perf_counter() - began > READY_SECONDS:
                raise RuntimeError(f"{name} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.005)
        yield Server(name, f"http://127.0.0.1:{port}", process, time.perf_counter() - began)
    finally:
        end(process)
        started.wait()


def end(process: psutil.Process) -> None:
    """End a process that this one started, and all that it started in turn."""
    members = family(process)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    psutil.wait_procs(members, timeout=10)
    left = [member for member in members if member.is_running()]
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=5)


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def healthy(port: int) -> bool:
    """Whether /health answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def get(url: str) -> bytes:
    """The body at an address."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().read()
    finally:
        connection.close()


def free_port() -> int:
    """A port of the loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    """The variables of all processes: no settings of the user's for either side."""
    foreign = ("MLFLOW_", "TRIMTAB_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, **QUIET}
