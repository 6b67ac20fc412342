"""Trimtab's server role, started once for all tests of a process that send it what they like."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.mlflow.peers.processes import trimtab_server


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Trimtab's server role."""
    with trimtab_server(tmp_path_factory.mktemp("ours") / "project") as url:
        yield url
