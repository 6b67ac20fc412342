"""The plug-in gives the unmodified client the answers of MLflow's own store: the claims are the server's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from tests.server.mlflow.test_same_answers import *  # noqa: F403  (every claim, whatever is added to them)

from trimtab.models.mlflow_plugin import addresses, workspaces
from trimtab.workspace import Workspace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """What stands where the server stands there: an address."""
    project = tmp_path_factory.mktemp("plugin") / "project"
    Workspace.create(project, actor="tester").close()
    yield SimpleNamespace(url=addresses.address_of(project))
    workspaces.close_workspaces()


@pytest.fixture
def client(server: SimpleNamespace) -> MlflowClient:
    return MlflowClient(server.url, server.url)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """MLflow's own store on SQLite, as the pattern."""
    path: Path = tmp_path_factory.mktemp("stock")
    return MlflowClient(f"sqlite:///{path / 'stock.db'}", f"sqlite:///{path / 'stock.db'}")
