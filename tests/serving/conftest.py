"""Workspaces with an endpoint, and a gateway in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.serving.running_gateway import RunningGateway
from tests.serving.tiny_models import write_model

from trimtab.serving.endpoints import Endpoints
from trimtab.serving.routes import Route, single
from trimtab.workspace import Workspace

ENDPOINT = "rides"


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Versions 1, 2 and 3; version 3 takes one column more."""
    root = tmp_path_factory.mktemp("models")
    for version in (1, 2, 3):
        write_model(root / str(version), version, extra="leak" if version == 3 else None)
    return {version: root / str(version) for version in (1, 2, 3)}


class Served:
    """A workspace whose blobs hold the three versions, with the endpoint `rides` on version 1."""

    def __init__(self, workspace: Workspace, folders: dict[int, Path]) -> None:
        self.workspace = workspace
        self.project = workspace.project
        self.digests = {version: workspace.blobs.put_tree(folder) for version, folder in folders.items()}
        self.endpoints = Endpoints(workspace)
        workspace.write(lambda tx: self.endpoints.create(tx, ENDPOINT, "rides-model"))
        self.route(single("rides-model", 1, self.digests[1]))

    def route(self, route: Route) -> int:
        """Put a route behind the endpoint."""
        return self.workspace.write(lambda tx: self.endpoints.set_route(tx, ENDPOINT, route))

    def single(self, version: int) -> int:
        """Let one version answer everything."""
        return self.route(single("rides-model", version, self.digests[version]))


@pytest.fixture
def served(tmp_path: Path, model_folders: dict[int, Path]) -> Iterator[Served]:
    """A fresh workspace with an endpoint, in real time."""
    with Workspace.create(tmp_path / "project", actor="tester") as workspace:
        yield Served(workspace, model_folders)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[int, Path]) -> Iterator[Served]:
    """A workspace that a module's tests share."""
    with Workspace.create(tmp_path_factory.mktemp("shared") / "project", actor="tester") as workspace:
        yield Served(workspace, model_folders)


@pytest.fixture(scope="module")
def gateway(shared: Served) -> Iterator[RunningGateway]:
    """The gateway of the shared workspace."""
    with RunningGateway(shared.project) as running:
        yield running.until_ready()


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[httpx.Client]:
    """A client of the shared gateway."""
    with gateway.client() as client:
        yield client
