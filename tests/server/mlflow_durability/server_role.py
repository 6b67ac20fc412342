"""The server role as a process of its own, and clients that speak to it without a library between."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

PATIENCE = 60.0
API = "/api/2.0/mlflow"

LOST = (ConnectionError, TimeoutError, http.client.HTTPException)
"""What a client sees of a server that dies."""


class ServerRole:
    """A running `server` role; `before` is what starts it, such as a tracer."""

    def __init__(self, project: Path, port: int, before: Sequence[str] = ()) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [
                *before, sys.executable, "-m", "trimtab.server.roles", "server", "--dir", str(project),
                "--host", "127.0.0.1", "--port", str(port), "--gateway-port", str(port),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), Client(port) as client:
                client.ask("GET", "/health")
                return
            time.sleep(0.02)
        self.kill()
        raise TimeoutError(f"the server did not start: {self.process.returncode}")

    def kill(self) -> None:
        """End it without a chance to do anything about it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()


class Client:
    """One kept connection to the server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer. Raises one of LOST if none comes."""
        try:
            self._connection.request(method, path, body, headers or {})
            response = self._connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        except LOST:
            self.close()
            raise

    def post(self, path: str, /, **body: object) -> tuple[int, Any]:
        """Ask one of MLflow's endpoints."""
        return self.ask("POST", f"{API}/{path}", json.dumps(body).encode())

    def get(self, path: str) -> Any:
        """The answer of one of MLflow's endpoints, which must be there."""
        status, answer = self.ask("GET", f"{API}/{path}")
        assert status == 200, answer
        return answer

    def create_run(self, experiment: str = "0") -> str:
        """A new run's id."""
        status, answer = self.post("runs/create", experiment_id=experiment, start_time=1)
        assert status == 200, answer
        return str(answer["run"]["info"]["run_id"])

    def history(self, run: str, key: str) -> list[tuple[int, float]]:
        """All steps and values of a metric, each as often as the server tells of it."""
        found = self.get(f"metrics/get-history?run_id={run}&metric_key={key}")
        return [(int(point["step"]), float(point["value"])) for point in found.get("metrics", [])]

    def close(self) -> None:
        """Let go of the connection; the next request makes another."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serving(project: Path, port: int) -> Iterator[Client]:
    """A server over the project, and one client of it."""
    with ServerRole(project, port), Client(port) as client:
        yield client
