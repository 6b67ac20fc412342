"""Both servers, started once for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.mlflow.peers.processes import stock_server, trimtab_server


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Trimtab's server role."""
    with trimtab_server(tmp_path_factory.mktemp("ours") / "project") as url:
        yield url


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of MLflow's own handlers."""
    with stock_server(tmp_path_factory.mktemp("theirs") / "stock") as url:
        yield url
