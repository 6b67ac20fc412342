"""Servers as processes of their own: Trimtab's server role, and MLflow's."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from trimtab.workspace import Workspace

HERE = Path(__file__).parent
_READY_SECONDS = 60.0


@contextlib.contextmanager
def trimtab_server(folder: Path) -> Iterator[str]:
    """The server role over a fresh workspace; gives its address."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    Workspace.create(folder, actor="tester").close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    arguments = ["server", "--dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "trimtab.server.roles", *arguments, "--gateway-port", "0"]
    with _running(command, folder.parent / "trimtab.log") as process:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/health", process)
        yield url


@contextlib.contextmanager
def stock_server(folder: Path, python: str = sys.executable) -> Iterator[str]:
    """MLflow's own handlers over a fresh SQLite file; gives their address."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / "stock.log"
    with _running([python, str(HERE / "stock_server.py"), str(folder)], log) as process:
        deadline = time.monotonic() + _READY_SECONDS
        while not (found := re.search(r"^(\d+)$", log.read_text(), re.MULTILINE)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        url = f"http://127.0.0.1:{found[1]}"
        _wait_for(f"{url}/health", process)
        yield url


def bare_environment() -> dict[str, str]:
    """The environment without what would change how MLflow or Trimtab behave."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "TRIMTAB_"))}


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=bare_environment()) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(url)
