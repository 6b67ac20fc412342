from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Trimtab
from tests.loop.scene import Scene
from tests.models.rentals import rentals, trained

from trimtab.data.datasets import Datasets
from trimtab.models.registry import Registry
from trimtab.store import journal
from trimtab.workspace import Workspace


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


ROWS = ("--data", "holdout", "--target", "cnt")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workspace]:
    """A project without a loop: held-out rows, and a model `prices` of two versions."""
    with Workspace.create(tmp_path / "shop", actor="ada") as opened:
        datasets = Datasets(opened)
        datasets.create("holdout", time="at")
        datasets.append("holdout", rentals(200, seed=2), key="all")
        registry = Registry(opened)
        opened.write(lambda tx: registry.create_model(tx, "prices"))
        for trees in (1, 40):
            folder = tmp_path / f"model-{trees}"
            trained(rentals(500), trees=trees).save(folder)
            digest = opened.blobs.put_tree(folder)
            opened.write(lambda tx, of=digest: registry.register(tx, "prices", of))  # type: ignore[misc]
        yield opened


def test_a_model_is_governed_validated_crowned_and_released_without_a_loop(
    trimtab: Trimtab, shop: Workspace
) -> None:
    at = ("prices", "--dir", shop.project)
    gate = ("--gate", "metric rmsle max=0.3", "--gate", "signature")
    assert "governed" in trimtab("model", "govern", *at, *gate, *ROWS).out
    shown = trimtab("model", "show", *at).out
    assert "metric rmsle, signature" in shown
    assert "dataset 'holdout', target 'cnt'" in shown
    assert trimtab("model", "show", *at, "--json").json["policy"]["rows"]["dataset"] == "holdout"

    crown = ("model", "alias", "prices", "champion")
    trimtab(*crown, "2", "--dir", shop.project).failed(4, "metric rmsle", "trimtab model validate prices 2")
    failing = trimtab("model", "validate", "prices", "1", "--dir", shop.project)
    assert failing.status == 1
    assert "did NOT pass, on 'holdout' version 1" in failing.out
    passing = trimtab("model", "validate", "prices", "2", "--dir", shop.project, "--json")
    assert passing.json["passed"]
    assert passing.json["results"][0]["numbers"]["max"] == 0.3
    trimtab(*crown, "1", "--dir", shop.project).failed(4, "did not pass")
    assert trimtab(*crown, "2", "--dir", shop.project).status == 0

    more = (*gate, "--gate", "bias max_abs=0.5")
    assert trimtab("model", "govern", *at, *more, *ROWS).status == 0
    trimtab("model", "govern", *at, *gate, *ROWS).failed(4, "taking away or changing the gates bias")
    trimtab("model", "govern", *at, "--release").failed(2, "--reason")
    assert "free" in trimtab("model", "govern", *at, "--release", "--reason", "closing down").out
    with shop.read() as connection:
        (entry,) = journal.entries(connection, action="model.ungoverned")
    assert entry.reason == "closing down"
    assert "Nobody governs" in trimtab("model", "govern", *at, "--release").out


def test_what_is_champion_already_is_judged_before_a_model_is_governed(
    trimtab: Trimtab, shop: Workspace, tmp_path: Path
) -> None:
    registry = Registry(shop)
    shop.write(lambda tx: registry.set_alias(tx, "prices", "champion", 1))
    (tmp_path / "gates.toml").write_text(
        'dataset = "holdout"\ntarget = "cnt"\ngates = ["metric rmsle max=0.3"]\n'
    )
    govern = ("model", "govern", "prices", "--gates", tmp_path / "gates.toml", "--dir", shop.project)
    refused = trimtab(*govern)
    refused.failed(4, "cannot be governed yet", "did not pass: metric rmsle")
    assert "Judging version 1, which stands as champion" in refused.out
    shop.write(lambda tx: registry.set_alias(tx, "prices", "champion", 2))
    assert trimtab(*govern).status == 0
    assert registry.model("prices").governed_by == "a policy"


def test_a_loop_is_not_released_by_mistake(trimtab: Trimtab, project: Path) -> None:
    release = ("model", "govern", "bikes", "--release", "--reason", "x", "--dir", project)
    trimtab(*release).failed(4, "loop bikes", "--override-by")
    assert trimtab(*release, "--override-by", "ada").status == 0


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["govern", "prices"], 2, "No gates are given"),
        (["govern", "prices", "--gate", "signature"], 2, "--data DATASET"),
        (["govern", "prise", "--gate", "signature", *ROWS], 3, "'prices'"),
        (["govern", "prices", "--gate", "signature", "--data", "hold", "--target", "cnt"], 3, "'holdout'"),
        (["govern", "prices", "--gate", "signature", "--data", "holdout", "--target", "ct"], 2, "'cnt'"),
        (["govern", "prices", "--gate", "metric rmsel max=1", *ROWS], 3, "rmsel"),
        (["govern", "prices", "--gates", "missing.toml", *ROWS], 2, "missing.toml"),
        (["govern", "prices", "--release", "--gate", "signature"], 2, "do not go together"),
        (["validate", "prices", "1"], 4, "trimtab model govern prices"),
        (["validate", "prise", "1"], 3, "'prices'"),
    ],
)  # fmt: skip
def test_what_cannot_be_governed_or_validated_is_told(
    trimtab: Trimtab, shop: Workspace, words: list[str], status: int, told: str
) -> None:
    trimtab("model", *words, "--dir", shop.project).failed(status, told)
