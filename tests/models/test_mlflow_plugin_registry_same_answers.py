"""The plug-in's registry gives the unmodified client the answers of MLflow's own: the server's claims."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from tests.models.test_mlflow_plugin_same_answers import PairInProcess, client, server, stock
from tests.server.mlflow.pair import Pair
from tests.server.mlflow.test_registry_same_answers import *  # noqa: F403  (every claim, whatever is added to them)

__all__ = ["client", "server", "stock"]


@pytest.fixture  # type: ignore[no-redef]  # in place of the server's
def pair(client: MlflowClient, stock: MlflowClient) -> Pair:
    return PairInProcess(client, stock)
