from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Trimtab
from tests.loop.scene import Scene

from trimtab.models.registry import Registry


def test_models_versions_gates_and_reigns_are_shown(trimtab: Trimtab, project: Path) -> None:
    at = ("bikes", "--dir", project)
    (model,) = trimtab("model", "list", "--dir", project, "--json").json
    assert model["aliases"] == {"champion": 1}
    assert "loop bikes" in trimtab("model", "list", "--dir", project).out
    shown = trimtab("model", "show", *at, "--json").json
    assert [version["version"] for version in shown["versions"]] == [1]
    assert "cycle bikes-1" in trimtab("model", "show", *at).out
    (reign,) = trimtab("model", "history", *at, "--json").json
    assert reign["version"] == 1
    assert "bikes-1" in trimtab("model", "history", *at).out
    assert trimtab("model", "history", *at, "--at", "2011-08-01T00:00:00Z", "--json").json == []
    assert "named nothing" in trimtab("model", "history", *at, "--alias", "challenger").out
    (report,) = trimtab("model", "gates", "bikes", "1", "--dir", project, "--json").json
    assert report["passed"]
    assert "beats champion rmsle" in trimtab("model", "gates", "bikes", "1", "--dir", project).out


def test_the_champion_of_a_governed_model_needs_its_gates_or_a_name_and_a_reason(
    trimtab: Trimtab, project: Path, scene: Scene
) -> None:
    registry = Registry(scene.workspace)
    scene.workspace.write(
        lambda tx: registry.register(tx, "bikes", "b3:" + "0" * 64, description="by hand", request_key="hand")
    )
    set_it = ("model", "alias", "bikes", "champion", "2", "--dir", project)
    trimtab(*set_it).failed(4, "bikes")
    trimtab(*set_it, "--override-by", "ada").failed(2, "reason")
    assert scene.champion == 1
    done = trimtab(*set_it, "--override-by", "ada", "--reason", "an emergency")
    assert done.out.strip() == "'champion' of 'bikes' is version 2."
    assert scene.champion == 2
    assert "has no gate report" in trimtab("model", "gates", "bikes", "2", "--dir", project).out
    assert trimtab("model", "alias", "bikes", "mine", "1", "--dir", project).status == 0


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["show", "bike"], 3, "Did you mean 'bikes'?"),
        (["history", "bike"], 3, "'bike'"),
        (["history", "bikes", "--at", "noon"], 2, "noon"),
        (["gates", "bike", "1"], 3, "'bike'"),
        (["gates", "bikes", "0"], 2, "version"),
        (["gates", "bikes", "9"], 3, "9"),
        (["validate", "bikes", "9"], 3, "9"),
        (["validate", "bikes", "1"], 4, "does not say which column is its target"),
        (["alias", "bikes", "champion", "9"], 3, "9"),
        (["alias", "bikes", "version 1", "1"], 2, "version 1"),
    ],
)
def test_a_users_mistake_is_told_with_its_status(
    trimtab: Trimtab, project: Path, words: list[str], status: int, told: str
) -> None:
    trimtab("model", *words, "--dir", project).failed(status, told)
