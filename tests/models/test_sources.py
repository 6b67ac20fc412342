"""Sources of model versions, and the places that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.models.addresses import Place, artifacts_address, place_on_a_server, tree_on_a_server
from trimtab.models.registry import Registry
from trimtab.models.sources import logged_model_in, place_of_source
from trimtab.workspace import Workspace

MODEL = "m-" + "0a" * 16
RUN = "0b" * 16
TREE = "b3:" + "0c" * 32


@pytest.mark.parametrize(
    ("source", "model"),
    [
        (f"models:/{MODEL}", MODEL),
        (f"models:///{MODEL}/", MODEL),
        (f"mlflow-artifacts:/7/models/{MODEL}/artifacts", MODEL),
        (f"mlflow-artifacts:/7/models/{MODEL}/artifacts/", MODEL),
        (artifacts_address(Path("/srv/a b"), "logged-models", MODEL), MODEL),
        (artifacts_address(Path("/srv/a b"), "runs", RUN), None),
        (f"mlflow-artifacts:/7/{RUN}/artifacts/model", None),
        ("models:/bikes/3", None),
        ("models:/bikes@champion", None),
        (f"runs:/{RUN}/model", None),
        ("s3://bucket/models/m-1", None),
        ("trimtab:///nothing", None),
        ("", None),
    ],
)
def test_a_source_tells_its_logged_model(source: str, model: str | None) -> None:
    assert logged_model_in(source) == model


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (f"models:/{MODEL}", Place("logged-models", MODEL)),
        (f"runs:/{RUN}/a/b/", Place("runs", RUN, "a/b")),
        (f"runs:/{RUN}", Place("runs", RUN)),
        (f"mlflow-artifacts:/0/{RUN}/artifacts/a", Place("runs", RUN, "a")),
        (tree_on_a_server(TREE), Place("trees", TREE)),
        (f"{tree_on_a_server(TREE)}/deep/file", Place("trees", TREE, "deep/file")),
        ("s3://bucket/model", None),
        ("trimtab:nowhere", None),
        ("mlflow-artifacts://elsewhere/0/x/artifacts", None),
    ],
)
def test_a_source_names_a_place_of_this_workspace(
    workspace: Workspace, source: str, place: Place | None
) -> None:
    assert place_of_source(Registry(workspace), workspace.project, source) == place


def test_the_address_of_another_workspace_is_elsewhere(workspace: Workspace) -> None:
    here = artifacts_address(workspace.project, "runs", RUN)
    there = artifacts_address(workspace.project / "other", "runs", RUN)
    registry = Registry(workspace)
    assert place_of_source(registry, workspace.project, here) == Place("runs", RUN)
    assert place_of_source(registry, workspace.project, there) is None


@pytest.mark.parametrize("uri", ["mlflow-artifacts:/trees/00", "mlflow-artifacts:/x/y/artifacts", "trees/00"])
def test_what_is_no_address_of_a_server_is_no_place(uri: str) -> None:
    assert place_on_a_server(uri) is None
