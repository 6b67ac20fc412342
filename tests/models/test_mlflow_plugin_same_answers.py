"""The plug-in gives the unmodified client the answers of MLflow's own store: the claims are the server's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from tests.server.mlflow.pair import Pair
from tests.server.mlflow.test_same_answers import *  # noqa: F403  (every claim, whatever is added to them)

from trimtab.models import addresses
from trimtab.models.mlflow_plugin import workspaces
from trimtab.workspace import Workspace


class PairInProcess(Pair):
    """Both sides without a server. There MLflow's own store has numbers of versions as numbers; its client
    declares text, which is what its server gives, and Trimtab both ways."""

    def _told(self, value: Any, side: int) -> Any:
        told = super()._told(value, side)
        if isinstance(value, ModelVersion):
            told["version"] = str(told["version"])
        elif isinstance(value, RegisteredModel):
            latest = {each["current_stage"]: each["version"] for each in told["latest_versions"]}
            told["latest_versions"] = latest  # theirs come in no order, without their aliases
            told["aliases"] = {alias: str(version) for alias, version in told["aliases"].items()}
        return told


@pytest.fixture  # type: ignore[no-redef]  # in place of the server's
def pair(client: MlflowClient, stock: MlflowClient) -> Pair:
    return PairInProcess(client, stock)


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


def test_registered_models(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    source = str(tmp_path / "model")
    pair("create_registered_model", "bikes", {"team": "b"}, "all bikes")
    pair("create_registered_model", "bikes")
    pair("create_registered_model", "a/b")
    pair("create_registered_model", "")
    pair("create_model_version", "none", source)
    pair("create_model_version", "bikes", source, tags={"kind": "first"}, description="one")
    pair("create_model_version", "bikes", source, run_id="0" * 32)
    pair("create_model_version", "bikes", "models:/bikes/2")
    for method in ("get_model_version", "delete_model_version"):
        pair(method, "bikes", "99")
        pair(method, "bikes", "x")
        pair(method, "none", "1")
    pair("update_registered_model", "bikes", "every bike")
    pair("update_registered_model", "none", "x")
    pair("update_model_version", "bikes", "1", "the first")
    pair("set_registered_model_tag", "bikes", "team", "c")
    pair("set_registered_model_tag", "none", "team", "c")
    pair("delete_registered_model_tag", "bikes", "nothing")
    pair("set_model_version_tag", "bikes", "2", "kind", "second")
    pair("delete_model_version_tag", "bikes", "2", "nothing")
    for alias in ("best", "latest", "v1", "a b", ""):
        pair("set_registered_model_alias", "bikes", alias, "1")
    pair("set_registered_model_alias", "bikes", "best", "2")
    pair("set_registered_model_alias", "bikes", "best", "99")
    pair("get_model_version_by_alias", "bikes", "best")
    pair("get_model_version_by_alias", "bikes", "other")
    pair("get_model_version_by_alias", "none", "best")
    pair("delete_registered_model_alias", "bikes", "other")
    pair("transition_model_version_stage", "bikes", "1", "staging")
    pair("transition_model_version_stage", "bikes", "2", "Staging", True)
    pair("transition_model_version_stage", "bikes", "2", "nowhere")
    for version in ("1", "2", "3"):
        pair("get_model_version", "bikes", version)
    pair("get_registered_model", "bikes")
    for stage in ("None", "staging", "Production", "Archived", "nowhere"):
        pair("get_latest_versions", "bikes", [stage])
    pair("delete_model_version", "bikes", "2")
    pair("get_model_version", "bikes", "2")
    pair("get_registered_model", "bikes")
    pair("create_model_version", "bikes", source)
    pair("create_registered_model", "other")
    pair("rename_registered_model", "bikes", "other")
    pair("rename_registered_model", "bikes", "cycles")
    pair("get_registered_model", "bikes")
    pair("get_registered_model", "cycles")
    pair("delete_registered_model", "cycles")
    pair("delete_registered_model", "cycles")
    pair("delete_registered_model", "other")
    pair("search_registered_models")


@pytest.mark.parametrize(
    "filter",
    [
        "", "name = 'sa'", "name LIKE 's%'", "name ILIKE 'S%'", "name != 'sa'", "tags.team = 'b'",
        "tags.team != 'b'", "nothing = 'x'", "name = ", "name > 'a'", "name LIKE 's%' AND tags.team = 'b'",
    ],
)  # fmt: skip
def test_search_of_registered_models(pair: Pair, filter: str) -> None:
    _searched_models(pair)

    def names(client: MlflowClient, _: int) -> list[tuple[list[str], bool]]:
        pages = [
            client.search_registered_models(filter),
            client.search_registered_models(filter, 2, ["name DESC"]),
        ]
        return [([model.name for model in page], bool(page.token)) for page in pages]

    pair.run(names, filter)


@pytest.mark.parametrize(
    "filter",
    [
        "", "name = 'sa'", "name LIKE 's%'", "run_id = 'r1'", "version_number = 1", "version_number >= 2",
        "tags.kind = 'x'", "source_path LIKE '%model'", "nothing = 'x'", "run_id IN ('r1', 'r2')",
    ],
)  # fmt: skip
def test_search_of_versions(pair: Pair, filter: str) -> None:
    _searched_models(pair)
    order = ["name ASC", "version_number DESC"]

    def versions(client: MlflowClient, _: int) -> list[tuple[list[tuple[str, str, Any]], bool]]:
        pages = [client.search_model_versions(filter, size, order) for size in (100, 2)]
        return [
            ([(each.name, str(each.version), each.run_id) for each in page], bool(page.token))
            for page in pages
        ]

    pair.run(versions, filter)
    pair("search_model_versions", filter, 2, ["nothing"])


def _searched_models(pair: Pair) -> None:
    def make(client: MlflowClient, _: int) -> None:
        if client.search_registered_models("name = 'sa'"):
            return
        for name, tags in (("sa", {"team": "b"}), ("sb", {"team": "c"}), ("tc", {})):
            client.create_registered_model(name, tags)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model").mkdir()
            (Path(folder) / "model" / "MLmodel").write_text("flavors: {}\n")
            for name, run, kind in (("sa", "r1", "x"), ("sa", "r2", "y"), ("sb", "r1", "x")):
                client.create_model_version(name, f"{folder}/model", run, tags={"kind": kind})

    pair.made(make)
