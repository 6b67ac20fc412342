"""A real server on a port of its own, and the unmodified MLflow client."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from granian.constants import Interfaces
from granian.server.embed import Server
from mlflow import MlflowClient

from trimtab.server.http import create_app
from trimtab.workspace import Workspace


class RunningServer:
    """A server over a workspace, in a thread of this process."""

    def __init__(self, workspace: Workspace, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._app = create_app(workspace, "127.0.0.1")
        self._port = port
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="test-server")

    def __enter__(self) -> RunningServer:
        self._thread.start()
        for _ in range(500):
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
            else:
                return self
        raise TimeoutError(self.url)

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._server is not None
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = Server(
            self._app, address="127.0.0.1", port=self._port, interface=Interfaces.ASGI, log_access=False
        )
        await self._server.serve()


@pytest.fixture(autouse=True)
def _quick_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client must not try for minutes what fails."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@pytest.fixture(scope="module")
def shared_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One workspace for the tests of a module: each uses names of its own."""
    with Workspace.create(tmp_path_factory.mktemp("mlflow") / "project", actor="tester") as opened:
        yield opened


@pytest.fixture(scope="module")
def server(shared_workspace: Workspace) -> Iterator[RunningServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with RunningServer(shared_workspace, port) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> MlflowClient:
    return MlflowClient(server.url, server.url)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """MLflow's own store on SQLite, as the pattern."""
    path: Path = tmp_path_factory.mktemp("stock")
    return MlflowClient(f"sqlite:///{path / 'stock.db'}", f"sqlite:///{path / 'stock.db'}")
