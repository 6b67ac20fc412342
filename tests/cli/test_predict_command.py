from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import update
from tests.cli.conftest import Trimtab
from tests.loop.scene import Scene
from tests.serving.tiny_models import version_of, write_model

from trimtab.data.datasets import Datasets
from trimtab.data.profiles import Profile
from trimtab.loop.deployment import Deployments
from trimtab.loop.schema import cycles_table
from trimtab.loop.training_profile import training_profile
from trimtab.models.registry import Registry
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project with two versions of the model `rides`; the endpoint `live` answers with the first, the alias
    `fast` names the second. Its dataset `trips` has six rows."""
    project = tmp_path / "home"
    with Workspace.create(project, actor="tester") as workspace:
        registry = Registry(workspace)
        workspace.write(lambda tx: registry.create_model(tx, "rides"))
        for number in (1, 2):
            write_model(tmp_path / str(number), number)
            digest = workspace.blobs.put_tree(tmp_path / str(number))
            workspace.write(partial(registry.register, name="rides", digest=digest))
        workspace.write(lambda tx: registry.set_alias(tx, "rides", "fast", 2))
        workspace.write(lambda tx: Deployments(workspace).deploy(tx, "live", "rides", 1, reason="first"))
        Datasets(workspace).create("trips", key=["id"])
        Datasets(workspace).append("trips", trips(), key="all")
    return project


def trips() -> pl.DataFrame:
    """Six rows that both versions take."""
    return pl.DataFrame(
        {
            "id": list("abcdef"),
            "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            "season": ["winter", "summer"] * 3,
            "holiday": [True, False, False] * 2,
        }
    )


@pytest.mark.parametrize(
    ("words", "version"),
    [
        (["--endpoint", "live"], 1),
        (["--endpoint", "live", "--version", "2"], 2),
        (["--model", "models:/rides/2"], 2),
        (["--model", "models:/rides@fast"], 2),
    ],
)
def test_the_version_that_is_named_answers_into_a_dataset(
    trimtab: Trimtab, home: Path, words: list[str], version: int
) -> None:
    told = trimtab(
        "predict", *words, "--input", "dataset:trips", "--output", "dataset:scores", "--key", "id",
        "--dir", home, "--json",
    ).json  # fmt: skip
    assert (told["answered"], told["rejected"], told["drift"], told["output"]) == (
        6,
        0,
        None,
        "dataset:scores",
    )
    with Workspace.open(home) as workspace:
        made = Datasets(workspace).read("scores")
    assert made["id"].to_list() == list("abcdef")
    assert {version_of(answer) for answer in made["prediction"]} == {version}


def test_a_folder_needs_no_project_and_the_same_command_again_says_so(
    trimtab: Trimtab, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trips().write_csv("trips.csv")
    words = ["predict", "--model", "1", "--input", "trips.csv", "--output", "scores.csv", "--as", "y"]
    first = trimtab(*words)
    assert (first.status, "scores.csv: 6 rows of trips.csv" in first.out) == (0, True), first.err
    assert "Predictions: mean" in first.out
    assert pl.read_csv("scores.csv").columns == ["id", "x", "season", "holiday", "y"]
    assert "already" in trimtab(*words).out
    trimtab(*words, "--key", "id").failed(4, "'scores.csv' exists", "Remove it first")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 2, "--endpoint or --model"),
        (["--endpoint", "live", "--model", "1"], 2, "--endpoint or --model"),
        (["--model", "models:/rides/1", "--version", "1"], 2, "--version goes with --endpoint"),
        (["--endpoint", "life"], 3, "Did you mean 'live'?"),
        (["--endpoint", "live", "--version", "7"], 3, "Version 7"),
        (["--model", "models:/rides@slow"], 3, "'slow'"),
        (["--model", "s3://bucket/model"], 2, "no address of a model"),
        (["--model", "nowhere"], 3, "There is no folder 'nowhere'"),
        (["--endpoint", "live", "--input", "dataset:trip"], 3, "There is no dataset 'trip'"),
        (["--endpoint", "live", "--input", "dataset:trips@3"], 3, "no version 3"),
        (["--endpoint", "live", "--key", "ident"], 2, "no column 'ident'"),
        (["--endpoint", "live", "--on-error", "ignore"], 2, "fail or skip"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_made(
    trimtab: Trimtab, home: Path, words: list[str], status: int, told: str
) -> None:
    given = [] if "--input" in words else ["--input", "dataset:trips"]
    trimtab("predict", *words, *given, "--output", "dataset:made", "--dir", home).failed(status, told)
    with Workspace.open(home) as workspace:
        assert [dataset.name for dataset in Datasets(workspace).list()] == ["trips"]


def test_where_a_loop_trained_the_version_the_drift_from_its_rows_is_told(
    trimtab: Trimtab, scene: Scene, tmp_path: Path
) -> None:
    trips().write_parquet(tmp_path / "trips.parquet")
    write_model(tmp_path / "model", 1)
    workspace, registry = scene.workspace, Registry(scene.workspace)
    trained_on = Profile.of(trips().with_columns(pl.col("x") + 100))
    made = workspace.blobs.put_tree(tmp_path / "model")
    kept = workspace.blobs.put(trained_on.to_bytes())
    version = workspace.write(lambda tx: registry.register(tx, "bikes", made)).version

    def trained(tx: Transaction) -> None:
        tx.execute(update(cycles_table).values(candidate=version, profile=kept))

    workspace.write(trained)
    told = trimtab(
        "predict", "--model", f"models:/bikes/{version}", "--input", tmp_path / "trips.parquet",
        "--output", tmp_path / "scores", "--dir", workspace.project, "--json",
    ).json  # fmt: skip
    assert told["drift"][0] == {"feature": "x", "effect": 1.0}
    assert {found["feature"]: found["effect"] for found in told["drift"]}["season"] == 0.0
    assert training_profile(workspace, "bikes", version + 1) is None
    assert training_profile(workspace, "rides", version) is None
