from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.cli.conftest import Trimtab

from trimtab.workspace import Workspace


@pytest.fixture
def project(tmp_path: Path) -> Path:
    Workspace.create(tmp_path / "project", actor="tester").close()
    return tmp_path / "project"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stock store with one run."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    run = client.create_run(client.create_experiment("prices"), run_name="first")
    for step in range(3):
        client.log_metric(run.info.run_id, "loss", 1 / (step + 1), step=step)
    client.log_text(run.info.run_id, "looks fine", "note.txt")
    client.set_terminated(run.info.run_id)
    return tmp_path / "mlruns"


def test_an_import_is_told_in_counts_and_repeated_without_a_trace(
    trimtab: Trimtab, project: Path, store: Path
) -> None:
    tried = trimtab("import", "mlflow", store, "--dir", project, "--dry-run", "--json").json
    assert (tried["copied"]["runs"], tried["dry_run"]) == (1, True)
    made = trimtab("import", "mlflow", store, "--dir", project, "--verify")
    assert made.status == 0, made.err
    for words in ("metric points", "Source and copy are the same.", "points a second"):
        assert words in made.out
    again = trimtab("import", "mlflow", store, "--dir", project, "--verify", "--json").json
    assert (again["copied"]["runs"], again["here"]["runs"], again["differences"]) == (0, 1, [])
    assert trimtab("journal", "list", "--dir", project, "--json").out.count('"experiment.imported"') == 2


def test_what_was_not_copied_ends_the_command_with_status_1(
    trimtab: Trimtab, project: Path, store: Path
) -> None:
    (note,) = store.rglob("tags/mlflow.runName")
    note.write_bytes(b"\xff")
    failed = trimtab("import", "mlflow", store, "--dir", project)
    assert failed.status == 1
    assert "Not copied" in failed.out
    assert "is not text in UTF-8" in failed.out


def test_a_source_that_is_none_is_an_error_in_words(trimtab: Trimtab, project: Path, free_port: int) -> None:
    trimtab("import", "mlflow", project / "missing", "--dir", project).failed(3, "There is nothing at")
    trimtab("import", "mlflow", f"http://127.0.0.1:{free_port}", "--dir", project).failed(
        5, "No server answers"
    )
    trimtab("import", "mlflow", project / "trimtab.toml", "--dir", project).failed(2, "no SQLite database")
    trimtab("import", "mlflow", project, "--dir", project.parent).failed(3, "no Trimtab project")
