"""Batch inference: the rows that come out are the rows that went in, with the endpoint's answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import psutil
import pyarrow.parquet as pq
import pytest
from tests.serving.tiny_models import write_model

from trimtab.data.datasets import Datasets
from trimtab.data.profiles import Profile
from trimtab.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    TrimtabError,
)
from trimtab.models.inputs import frame_columns
from trimtab.models.runtimes.predictor import load_predictor
from trimtab.monitoring.live_profiles import ANSWER
from trimtab.serving.batch_job import Ask, Report, predict_table
from trimtab.serving.batch_model import model_at
from trimtab.workspace import Workspace

ROWS = 6_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of x, season, holiday and leak, the last of which may be missing."""
    folder = tmp_path_factory.mktemp("models") / "rides"
    write_model(folder, 1, extra="leak")
    return folder


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """Rows with a key, awkward texts and what is missing."""
    chance = np.random.default_rng(7)
    return pl.DataFrame(
        {
            "id": np.arange(ROWS),
            "x": chance.uniform(0, 10, ROWS),
            "season": chance.choice(["winter", "summer", "never seen"], ROWS),
            "holiday": chance.random(ROWS) < 0.3,
            "leak": [None if number % 3 else number / ROWS for number in range(ROWS)],
            "note": ['said "so",\nand left', "plain", "ä€"] * (ROWS // 3),
        }
    )


@pytest.fixture(scope="module")
def answers(model: Path, table: pl.DataFrame) -> list[float]:
    """What the gateway's predictor answers."""
    with load_predictor(model) as predictor:
        return [float(answer) for answer in predictor.predict(frame_columns(table, predictor.signature))]


def run(
    model: Path, given: object, output: object, *, workspace: Workspace | None = None, **more: Any
) -> Report:
    """One job with parts of a few hundred rows, in one worker."""
    options: dict[str, object] = {"rows": 40, "workers": 1, "key": "id", **more}
    return predict_table(
        workspace,
        model_at(workspace, str(model)),
        msgspec.convert({"input": str(given), "output": str(output), **options}, Ask),
    )


def left(folder: Path) -> list[str]:
    """What a job left in a folder, beside its input."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("table"))


def write(table: pl.DataFrame, path: Path) -> Path:
    """The table as a file, in groups of 500 rows."""
    match path.suffix:
        case ".parquet":
            table.write_parquet(path, row_group_size=500)
        case ".arrow":
            table.write_ipc(path, record_batch_size=500)
        case ".csv":
            table.write_csv(path)
        case _:
            table.write_ndjson(path)
    return path


def read(path: Path) -> pl.DataFrame:
    """What `write` wrote."""
    match path.suffix:
        case ".parquet":
            return pl.read_parquet(path)
        case ".arrow":
            return pl.read_ipc(path)
        case ".csv":
            return pl.read_csv(path)
        case _:
            return pl.read_ndjson(path)


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv", "ndjson"])
def test_each_form_gives_the_gateways_answers_in_the_order_of_the_rows(
    tmp_path: Path, model: Path, table: pl.DataFrame, answers: list[float], form: str
) -> None:
    given = write(table, tmp_path / f"table.{form}")
    report = run(model, given, tmp_path / f"out.{form}", columns=["note"], workers=2)
    made = read(tmp_path / f"out.{form}")
    assert made.columns == ["id", "note", "prediction"]
    assert made["id"].cast(pl.Int64).to_list() == table["id"].to_list()
    assert made["note"].to_list() == table["note"].to_list()
    assert made["prediction"].to_list() == pytest.approx(answers, rel=1e-12)
    assert (report.rows, report.answered, report.rejected) == (ROWS, ROWS, 0)
    assert left(tmp_path) == [f"out.{form}", f"out.{form}.report.json"]


def test_without_a_key_all_columns_stay_and_a_folder_gets_one_file_for_each_part(
    tmp_path: Path, model: Path, table: pl.DataFrame, answers: list[float]
) -> None:
    (tmp_path / "table").mkdir()
    write(table[:2000], tmp_path / "table" / "a.parquet")
    write(table[2000:], tmp_path / "table" / "b.csv")
    with pytest.raises(InvalidInputError, match=r"'id' is String in .*b\.csv and Int64 in"):
        run(model, tmp_path / "table", tmp_path / "out", key=None)
    (tmp_path / "table" / "b.csv").unlink()
    write(table[2000:], tmp_path / "table" / "b.parquet")
    report = run(model, tmp_path / "table" / "*.parquet", tmp_path / "out", key=None)
    assert len(list((tmp_path / "out").iterdir())) == report.parts > 2
    made = pl.read_parquet(tmp_path / "out")
    assert made.drop("prediction").equals(table)
    assert made["prediction"].to_list() == pytest.approx(answers, rel=1e-12)


def test_the_profile_is_of_what_was_asked_and_answered(
    tmp_path: Path, model: Path, table: pl.DataFrame, answers: list[float]
) -> None:
    report = run(model, write(table, tmp_path / "table.parquet"), tmp_path / "out.parquet")
    profile = Profile.from_bytes(report.profile)
    assert (profile.rows, report.profiled) == (ROWS, ROWS)
    assert profile.feature("leak").missing == table["leak"].null_count()
    assert profile.feature("season").counts() == dict(table["season"].value_counts().iter_rows())
    assert profile.feature(ANSWER).mean == pytest.approx(np.mean(answers))
    written = json.loads((tmp_path / "out.parquet.report.json").read_text())
    assert [feature["name"] for feature in written["statistics"]] == [
        "x",
        "season",
        "holiday",
        "leak",
        ANSWER,
    ]


def test_a_job_killed_again_and_again_ends_with_every_row_once(
    tmp_path: Path, model: Path, table: pl.DataFrame, answers: list[float]
) -> None:
    given, output = write(table, tmp_path / "table.parquet"), tmp_path / "out.parquet"
    command = [sys.executable, "-m", "trimtab.cli", "predict", "--model", str(model)]
    command += [
        "--input",
        str(given),
        "--output",
        str(output),
        "--key",
        "id",
        "--batch-rows",
        "10",
        "--workers",
        "2",
    ]
    reports = tmp_path / ".out.parquet.partial" / "reports"

    def finished() -> int:
        return len(list(reports.glob("*.json"))) if reports.exists() else 0

    kills = before = 0
    while kills < 3:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while finished() <= before and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
        assert not output.exists()
        before = finished()
    assert kills
    until_alone(reports.parent)
    resumed = finished()
    report = run(model, given, output, rows=10)
    assert report.resumed >= resumed > 0
    made = pl.read_parquet(output)
    assert made["id"].to_list() == table["id"].to_list()
    assert made["prediction"].to_list() == pytest.approx(answers, rel=1e-12)
    assert left(tmp_path) == ["out.parquet", "out.parquet.report.json"]


def test_a_killed_worker_ends_the_job_which_can_be_resumed(
    tmp_path: Path, model: Path, table: pl.DataFrame
) -> None:
    given = write(table, tmp_path / "table.parquet")
    command = [sys.executable, "-m", "trimtab.cli", "predict", "--model", str(model), "--batch-rows", "10"]
    command += ["--input", str(given), "--output", str(tmp_path / "out"), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        reports = tmp_path / ".out.partial" / "reports"
        while not list(reports.glob("*.json")) and process.poll() is None:
            time.sleep(0.002)
        for child in psutil.Process(process.pid).children():
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
        _, told = process.communicate(timeout=60)
    assert (process.returncode, b"ended by signal 9" in told, b"run the same again" in told) == (
        5,
        True,
        True,
    )
    assert not (tmp_path / "out").exists()
    report = run(model, given, tmp_path / "out", rows=10, key=None)
    assert (report.rows, report.resumed > 0) == (ROWS, True)


def until_alone(folder: Path) -> None:
    """Until the killed job's workers have ended, which they do after the part that they have in hand."""
    while list(folder.glob("*/*.draft")):
        time.sleep(0.01)


def test_the_same_job_again_changes_nothing_and_another_is_refused(
    tmp_path: Path, model: Path, table: pl.DataFrame
) -> None:
    given, output = write(table, tmp_path / "table.parquet"), tmp_path / "out.parquet"
    first = run(model, given, output)
    before = output.stat()
    again = run(model, given, output)
    assert (again.already, again.job, output.stat()) == (True, first.job, before)
    with pytest.raises(AlreadyExistsError, match="exists"):
        run(model, given, output, columns=["note"])
    write(table[:100], given)
    with pytest.raises(AlreadyExistsError):
        run(model, given, output)


def test_what_another_unfinished_job_left_is_thrown_away_only_when_told(
    tmp_path: Path, model: Path, table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, output = write(table, tmp_path / "table.csv"), tmp_path / "out.csv"
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", _full)
        patched.setattr(Path, "rename", _full)
        with pytest.raises(TrimtabError, match="no space left") as full:
            run(model, given, output)
        assert "run the same command again" in full.value.hint
    assert left(tmp_path) == [".out.csv.partial"]
    with pytest.raises(ConflictError, match="unfinished job"):
        run(model, given, output, answer="y")
    report = run(model, given, output)
    assert report.resumed == report.parts
    output.unlink()
    assert run(model, given, output, answer="y", restart=True).resumed == 0


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_row_that_the_model_cannot_take_fails_the_job_by_file_row_and_column(
    tmp_path: Path, model: Path, table: pl.DataFrame
) -> None:
    bad = table.with_columns(x=pl.when(pl.col("id") == 4321).then(None).otherwise("x"))
    given = write(bad, tmp_path / "table.parquet")
    with pytest.raises(
        InvalidInputError, match=r"table\.parquet, row 4321 \(id 4321\): The column 'x' is missing"
    ):
        run(model, given, tmp_path / "out.parquet", rows=1000)
    assert not (tmp_path / "out.parquet").exists()


def test_rows_that_the_model_cannot_take_are_put_aside_each_with_its_reason(
    tmp_path: Path, model: Path, table: pl.DataFrame, answers: list[float]
) -> None:
    lines = write(table.drop("note"), tmp_path / "table.csv").read_text().splitlines()
    lines[11] = "10,much,summer,true,0.5"
    lines[21] = "20,1.5,summer,true"
    lines[31] = "30,1.5,summer,yes,0.5,7"
    lines[5001] = "5000,,summer,true,0.5"
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n\n")
    report = run(model, tmp_path / "table.csv", tmp_path / "out.csv", on_error="skip", workers=2)
    found = [json.loads(line) for line in (tmp_path / "out.csv.rejects.ndjson").read_text().splitlines()]
    reasons = {reject["row"]: reject["reason"] for reject in found}
    assert reasons == {
        10: "The column 'x' has 'much', which is not a number.",
        20: "It has 4 values, and the header has 5.",
        30: "It has 6 values, and the header has 5.",
        5000: "The column 'x' is missing, and the model does not allow that.",
    }
    assert [reject["key"] for reject in found] == ["10", None, None, "5000"]
    assert (report.answered, report.rejected) == (ROWS - 4, 4)
    kept = [number for number in range(ROWS) if number not in reasons]
    made = pl.read_csv(tmp_path / "out.csv")
    assert made["id"].to_list() == kept
    assert made["prediction"].to_list() == pytest.approx([answers[row] for row in kept], rel=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"given": "nowhere.parquet"}, NotFoundError, "There is no file"),
        ({"given": "nowhere/*.csv"}, NotFoundError, "There is no file"),
        ({"given": "table.txt"}, InvalidInputError, "no suffix that says how to read it"),
        ({"given": "table.noise.parquet"}, InvalidInputError, "cannot be read"),
        ({"given": "dataset:rentals"}, NotFoundError, "no project"),
        ({"output": "out.xlsx"}, InvalidInputError, "no suffix that says how to write it"),
        ({"output": "no/folder.csv"}, InvalidInputError, "There is no folder"),
        ({"columns": ["nte"]}, InvalidInputError, "Did you mean 'note'"),
        ({"answer": "id"}, InvalidInputError, "--as NAME"),
        ({"given": "table.less.parquet"}, InvalidInputError, r"The column 'season' is missing"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_left_behind(
    tmp_path: Path,
    model: Path,
    table: pl.DataFrame,
    change: dict[str, object],
    error: type[Exception],
    words: str,
) -> None:
    write(table, tmp_path / "table.parquet")
    write(table.drop("season"), tmp_path / "table.less.parquet")
    (tmp_path / "table.txt").write_text("x\n1\n")
    (tmp_path / "table.noise.parquet").write_bytes(b"PAR1 noise PAR1")
    asked: dict[str, Any] = {"given": "table.parquet", "output": "out.parquet", **change}
    given, output = str(asked.pop("given")), tmp_path / str(asked.pop("output"))
    place = given if ":" in given else tmp_path / given
    with pytest.raises(error, match=words):
        run(model, place, output, **asked)
    assert left(tmp_path) == []


def test_a_dataset_goes_into_a_dataset_once_however_often_it_is_asked_for(
    tmp_path: Path, model: Path, table: pl.DataFrame, answers: list[float]
) -> None:
    with Workspace.create(tmp_path / "project", actor="tester") as workspace:
        datasets = Datasets(workspace)
        datasets.create("rides", key=["id"])
        datasets.append("rides", table[:1000], key="one")
        datasets.append("rides", table[1000:], key="two")
        first = run(model, "dataset:rides@1", "dataset:scores", workspace=workspace)
        assert (first.rows, datasets.read("scores").height) == (1000, 1000)
        for _ in range(2):
            report = run(model, "dataset:rides", "dataset:scores2", workspace=workspace)
        made = datasets.read("scores2")
        assert (report.rows, made["id"].to_list()) == (ROWS, table["id"].to_list())
        assert made["prediction"].to_list() == pytest.approx(answers, rel=1e-12)
        with pytest.raises(InvalidInputError, match="input and output"):
            run(model, "dataset:rides", "dataset:rides", workspace=workspace)


def test_large_row_groups_are_read_as_streams(tmp_path: Path, model: Path, table: pl.DataFrame) -> None:
    table.write_parquet(tmp_path / "table.parquet", row_group_size=ROWS)
    report = run(model, tmp_path / "table.parquet", tmp_path / "out.parquet")
    assert (report.parts, report.rows) == (1, ROWS)
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_rows == ROWS
