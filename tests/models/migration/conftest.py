"""Stock stores with something of everything, and Trimtab's server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.models.migration.stores import fill
from tests.server.mlflow.conftest import RunningServer

from trimtab.workspace import Workspace


@pytest.fixture(autouse=True)
def _stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's file store has to be asked for; a client must not try for minutes what fails."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@pytest.fixture(scope="session")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite file of a stock store; its artifacts are in folders beside it."""
    folder = tmp_path_factory.mktemp("sqlite-store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        fill(MlflowClient(f"sqlite:///{folder}/mlflow.db"), tmp_path_factory.mktemp("files"))
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def folder_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `mlruns` of a stock store."""
    folder = tmp_path_factory.mktemp("folder-store") / "mlruns"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", folder.as_uri())
        fill(MlflowClient(folder.as_uri()), tmp_path_factory.mktemp("files"))
    return folder


@pytest.fixture
def served(workspace: Workspace, free_port: int) -> Iterator[MlflowClient]:
    """The stock client of a server over the workspace."""
    with RunningServer(workspace, free_port) as running:
        yield MlflowClient(running.url, running.url)
