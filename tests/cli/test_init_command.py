from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests.cli.conftest import Trimtab

from trimtab.data.datasets import Datasets
from trimtab.workspace import Workspace


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A small file of one's own."""
    path = tmp_path / "sales.csv"
    days = pl.date_range(pl.date(2012, 1, 1), pl.date(2012, 4, 9), eager=True)
    written = days.dt.strftime("%Y-%m-%d")
    rows = pl.DataFrame(
        {"day": written, "code": ["007", "008"] * 50, "x": range(0, 200, 2), "y": [1, 2] * 50}
    )
    rows.with_columns(pl.col("x") * 1.5).write_csv(path)
    return path


def test_a_table_becomes_a_project(trimtab: Trimtab, tmp_path: Path, table: Path) -> None:
    project = tmp_path / "shop"
    made = trimtab("init", "--data", table, "--target", "y", "--time", "day", "--dir", project)
    assert made.status == 0, made.err
    assert made.out.splitlines() == [
        f"wrote {project / 'trimtab.toml'}",
        f"wrote {project / 'loop.py'}",
        f"wrote {project / 'README.md'}",
        f"Now run: trimtab up --dir {project}",
    ]
    with Workspace.open(project) as workspace:
        version = Datasets(workspace).version("sales")
    assert (version.rows, version.schema["day"]) == (100, "datetime")


def test_in_the_folder_at_hand_the_next_command_needs_no_folder(
    trimtab: Trimtab, tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = trimtab("init", "--data", table.name, "--target", "y")
    assert made.out.splitlines()[-1] == "Now run: trimtab up"


def test_the_mode_can_be_chosen(trimtab: Trimtab, tmp_path: Path, table: Path) -> None:
    project = tmp_path / "shop"
    made = trimtab("init", "--data", table, "--target", "y", "--mode", "auto", "--dir", project, "--json")
    assert made.json == {
        "loop": "sales",
        "files": [str(project / name) for name in ("trimtab.toml", "loop.py", "README.md")],
    }
    assert 'mode="auto"' in (project / "loop.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "Say what the project is for"),
        (["--example", "bikes", "--data", "sales.csv"], 2, "Say what the project is for"),
        (["--data", "sales.csv"], 2, "Add --target COLUMN"),
        (["--data", "sales.csv", "--target", "sales"], 3, "There is no column 'sales'"),
        (["--data", "sales.csv", "--target", "y", "--time", "date"], 3, "There is no column 'date'"),
        (["--data", "sales.csv", "--target", "y", "--time", "code"], 2, "'007', which is not a datetime"),
        (["--data", "sales.csv", "--target", "day"], 2, "'day' holds Date, not numbers or true/false"),
        (["--data", "sales.csv", "--target", "y", "--mode", "wild"], 2, "Give auto, approve or advise"),
        (["--data", "nothing.csv", "--target", "y"], 2, "cannot be read"),
        (["--data", "sales.xlsx", "--target", "y"], 2, "has no suffix that says how to read it"),
        (["--data", "broken.parquet", "--target", "y"], 2, "cannot be read as parquet"),
        (["--data", "empty.csv", "--target", "y"], 2, "the content is empty"),
        (["--example", "trains"], 3, "There is no example 'trains'"),
    ],
)
def test_what_init_cannot_use_is_refused_and_nothing_written(
    trimtab: Trimtab,
    tmp_path: Path,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.parquet").write_text("no parquet")
    (tmp_path / "empty.csv").touch()
    trimtab("init", "--dir", "project", *arguments).failed(status, words)
    assert not (tmp_path / "project").exists()


def test_an_example_is_written_once(trimtab: Trimtab, tmp_path: Path) -> None:
    made = trimtab("init", "--example", "bikes", "--dir", tmp_path / "bikes", "--json")
    assert {Path(file).name for file in made.json["files"]} >= {"loop.py", "trimtab.toml", "README.md"}
    trimtab("init", "--example", "bikes", "--dir", tmp_path / "bikes").failed(4, "is not empty")
