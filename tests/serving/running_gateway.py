"""A real gateway process on a port of its own choosing, for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

PATIENCE = 60.0


def until(what: Callable[[], bool], *, seconds: float = PATIENCE) -> None:
    """Wait until something holds; no test depends on how long that takes, unless it never does."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def _runs(child: psutil.Process, name: str) -> bool:
    try:
        return f"trimtab.serving.{name}" in child.cmdline()
    except psutil.Error:  # it died meanwhile
        return False


class RunningGateway:
    """`python -m trimtab.serving.gateway` of a project; ends with the `with` block."""

    def __init__(
        self,
        project: Path,
        *,
        host: str = "127.0.0.1",
        workers: int = 1,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._output = project / f"gateway-{time.monotonic_ns()}.txt"
        self._file = self._output.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trimtab.serving.gateway", str(project), host, "0", str(workers)],
            stderr=self._file,
            env={**os.environ, **(environment or {})},
        )
        until(lambda: self._port() is not None or self.process.poll() is not None)
        port = self._port()
        assert port is not None, self.output()
        self.url = f"http://127.0.0.1:{port}"

    def _port(self) -> int | None:
        found = re.search(r"listening on \S+:(\d+)", self.output())
        return int(found[1]) if found else None

    def output(self) -> str:
        """What it said so far."""
        return self._output.read_text()

    def until_ready(self) -> Self:
        """Wait for its health."""
        until(lambda: self.health() == 200)
        return self

    def health(self) -> int:
        """The status of /health; 0 while nobody answers."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code
        except httpx.HTTPError:
            return 0

    def client(self, **options: Any) -> httpx.Client:
        """A client with one connection kept alive."""
        return httpx.Client(base_url=self.url, timeout=30, **options)

    def children(self, name: str) -> list[psutil.Process]:
        """Its worker or shipper processes."""
        return [child for child in psutil.Process(self.process.pid).children() if _runs(child, name)]

    def kill_children(self, name: str) -> None:
        """SIGKILL all its processes of that name."""
        for child in self.children(name):
            child.kill()

    def kill(self) -> None:
        """SIGKILL the whole gateway, all at once, and wait until nothing of it is left."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children()]
        for each in family:
            each.kill()
        psutil.wait_procs(family, timeout=PATIENCE)
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._file.close()
