from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tests.cli.conftest import Trimtab
from tests.serving.tiny_models import write_model

from trimtab.models.registry import Registry
from trimtab.serving.endpoints import Endpoints
from trimtab.workspace import Workspace


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project with the model `rides`; its version 3 has files that no gateway serves."""
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn}}")
    for version in (1, 2):
        write_model(tmp_path / str(version), version)
    with Workspace.create(tmp_path / "home", actor="tester") as workspace:
        registry = Registry(workspace)
        workspace.write(lambda tx: registry.create_model(tx, "rides"))
        for version in (1, 2, 3):
            digest = workspace.blobs.put_tree(tmp_path / str(version))
            workspace.write(partial(registry.register, name="rides", digest=digest))
        workspace.write(lambda tx: registry.set_alias(tx, "rides", "fast", 2))
    return tmp_path / "home"


def answering(home: Path) -> int:
    with Workspace.open(home) as workspace:
        route = Endpoints(workspace).route("live")
    assert route is not None
    return route.primary.version


def test_a_version_is_deployed_taken_back_and_deleted(trimtab: Trimtab, home: Path) -> None:
    model = ("--model", "rides", "--dir", home)
    assert (
        "Version 1 of 'rides' answers at 'live'"
        in trimtab("endpoint", "deploy", "live", *model, "--version", 1).out
    )
    assert "Version 2" in trimtab("endpoint", "deploy", "live", *model, "--alias", "fast").out
    assert answering(home) == 2
    told = trimtab("endpoint", "rollback", "live", "--dir", home, "--reason", "slow").out
    assert "version 1 (primary) of 'rides' again" in told
    assert answering(home) == 1
    trimtab("endpoint", "rollback", "live", "--dir", home, "--to", "2")
    assert answering(home) == 2
    assert "no endpoint 'live' any more" in trimtab("endpoint", "delete", "live", "--dir", home).out
    trimtab("endpoint", "show", "live", "--dir", home).failed(3, "'live'")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--model", "rides"], 2, "Give --version or --alias"),
        (["--model", "rides", "--version", "1", "--alias", "fast"], 2, "Give --version or --alias"),
        (["--model", "ride", "--version", "1"], 3, "Did you mean 'rides'?"),
        (["--model", "rides", "--version", "9"], 3, "Version 9"),
        (["--model", "rides", "--alias", "slow"], 3, "'slow'"),
        (["--model", "rides", "--version", "3"], 4, "unpickling code"),
    ],
)
def test_a_users_mistake_is_told_with_its_status(
    trimtab: Trimtab, home: Path, words: list[str], status: int, told: str
) -> None:
    trimtab("endpoint", "deploy", "live", *words, "--dir", home).failed(status, told)
    with Workspace.open(home) as workspace:
        assert Endpoints(workspace).list() == []


def test_the_endpoint_of_a_loop_is_left_to_it(trimtab: Trimtab, project: Path) -> None:
    for words in (["rollback", "bikes"], ["delete", "bikes"]):
        trimtab("endpoint", *words, "--dir", project).failed(4, "belongs to the loop 'bikes'")
