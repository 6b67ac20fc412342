"""A verification finds every kind of difference between a source and its copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from trimtab.models.migration.migration import import_mlflow
from trimtab.models.registry import Registry
from trimtab.models.schema import model_versions_table
from trimtab.store.database import Transaction
from trimtab.tracking.schema import (
    artifacts_table,
    experiment_tags_table,
    logged_model_params_table,
    metric_chunks_table,
    metric_keys_table,
    params_table,
    run_datasets_table,
    run_models_table,
    run_tags_table,
    runs_table,
)
from trimtab.workspace import Workspace


def lose_points(tx: Transaction) -> None:
    key = select(metric_keys_table.c.id).where(metric_keys_table.c.name == "odd").scalar_subquery()
    tx.execute(delete(metric_chunks_table).where(metric_chunks_table.c.key == key))


def bend_points(tx: Transaction) -> None:
    key = select(metric_keys_table.c.id).where(metric_keys_table.c.name == "again").scalar_subquery()
    row = tx.execute(select(metric_chunks_table.c.data).where(metric_chunks_table.c.key == key)).one()
    data = row.data[:-1] + bytes([row.data[-1] ^ 1])
    tx.execute(update(metric_chunks_table).where(metric_chunks_table.c.key == key).values(data=data))


DIFFERENCES: dict[str, tuple[Callable[[Transaction], object], str]] = {
    "points are lost": (lose_points, "metrics 'odd' is (6,"),
    "a point has one bit of another": (bend_points, "metrics 'again'"),
    "a param is another": (
        lambda tx: tx.execute(update(params_table).where(params_table.c.key == "depth").values(value="7")),
        "params 'depth' is '6' at the source and '7' here",
    ),
    "a tag is lost": (
        lambda tx: tx.execute(delete(run_tags_table).where(run_tags_table.c.key == "unicode")),
        "tags 'unicode'",
    ),
    "a run has another end": (
        lambda tx: tx.execute(update(runs_table).where(runs_table.c.name == "rich").values(ended_at=None)),
        "end is 1700000050000 at the source and None here",
    ),
    "a deleted run stands": (
        lambda tx: tx.execute(update(runs_table).values(lifecycle="active")),
        "lifecycle is 'deleted' at the source and 'active' here",
    ),
    "a dataset is lost": (lambda tx: tx.execute(delete(run_datasets_table)), "datasets"),
    "what a run read is lost": (lambda tx: tx.execute(delete(run_models_table)), "models"),
    "a file is lost": (
        lambda tx: tx.execute(delete(artifacts_table).where(artifacts_table.c.path == "empty.txt")),
        "file 'empty.txt'",
    ),
    "a file too many": (
        lambda tx: tx.execute(
            update(artifacts_table).where(artifacts_table.c.path == "empty.txt").values(path="more.txt")
        ),
        "file 'more.txt' is None at the source",
    ),
    "a param of a logged model is lost": (
        lambda tx: tx.execute(delete(logged_model_params_table)),
        "logged model",
    ),
    "an experiment's tag is lost": (
        lambda tx: tx.execute(delete(experiment_tags_table)),
        "experiment 'prices'",
    ),
    "a version has another stage": (
        lambda tx: tx.execute(update(model_versions_table).values(stage="None")),
        "stage is 'Production' at the source and 'None' here",
    ),
    "a version has another content": (
        lambda tx: tx.execute(update(model_versions_table).values(digest="b3:" + "0" * 64)),
        "content",
    ),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, sqlite_store: Path) -> Path:
    project = tmp_path_factory.mktemp("copied") / "project"
    with Workspace.create(project, actor="tester") as opened:
        import_mlflow(opened, str(sqlite_store))
    return project


@pytest.mark.parametrize("what", DIFFERENCES)
def test_every_kind_of_difference_is_found(
    copied: Path, sqlite_store: Path, what: str, tmp_path: Path
) -> None:
    change, words = DIFFERENCES[what]
    project = Path(shutil.copytree(copied, tmp_path / "project"))
    with Workspace.open(project, actor="tester") as workspace:
        workspace.write(change)
        report = import_mlflow(workspace, str(sqlite_store), verify=True, dry_run=True)
    assert not report.good
    assert report.differences
    assert any(words in difference for difference in report.differences), report.differences


def test_content_that_went_bad_here_is_found(workspace: Workspace, sqlite_store: Path) -> None:
    import_mlflow(workspace, str(sqlite_store))
    blob = max((workspace.root / "blobs").rglob("*"), key=lambda place: place.stat().st_size)
    blob.chmod(0o644)
    content = bytearray(blob.read_bytes())
    content[1000] ^= 1
    blob.write_bytes(content)
    report = import_mlflow(workspace, str(sqlite_store), verify=True)
    assert report.differences
    assert "curve.bin' cannot be read here" in " ".join(report.differences)


def test_an_alias_that_was_moved_here_is_told_and_stays(workspace: Workspace, sqlite_store: Path) -> None:
    import_mlflow(workspace, str(sqlite_store))
    registry = Registry(workspace)
    workspace.write(lambda tx: registry.set_alias(tx, "bikes", "champion", 1))
    report = import_mlflow(workspace, str(sqlite_store), verify=True)
    assert report.differences == ["model 'bikes': alias 'champion' is 2 at the source and 1 here"]
    assert registry.alias("bikes", "champion").version == 1
