from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.datasets import Datasets
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, TrimtabError
from trimtab.loop import jobs
from trimtab.loop.applying import apply_reference
from trimtab.loop.controller import Controller
from trimtab.loop.declaration import Loop
from trimtab.loop.intake import data_time
from trimtab.loop.loops import Loops
from trimtab.loop.orders import HANDLERS
from trimtab.loop.starter import dataset_name, start_project
from trimtab.loop.user_table import LEAST_ROWS, UserTable, describe
from trimtab.models.registry import Registry
from trimtab.pipelines.jobs import Jobs
from trimtab.pipelines.project import import_project_object
from trimtab.workspace import Workspace

NOW = datetime(2024, 6, 1, tzinfo=UTC)
OLD = datetime(2011, 1, 1)  # noqa: DTZ001  (files often hold times without a zone)


def houses(count: int = 400) -> pl.DataFrame:
    """Numbers, a text and names that Python cannot spell, years ago."""
    chance = np.random.default_rng(0)
    size = chance.normal(100, 20, count)
    return pl.DataFrame(
        {
            "sold at": [OLD + timedelta(hours=6 * row) for row in range(count)],
            "size (m²), inside": size,
            "class": chance.choice(["flat", "house"], count),
            "float": chance.normal(size=count),
            'price: "final"': 3 * size + chance.normal(size=count),
        }
    )


def customers(count: int = 400) -> pl.DataFrame:
    """Two classes, holes everywhere, and columns that a model or a dataset cannot use."""
    chance = np.random.default_rng(1)
    age = chance.integers(18, 80, count).astype(float)
    left = chance.random(count) < age / 100
    age[::7] = np.nan
    return pl.DataFrame(
        {
            "id": [f"c{row}" for row in range(count)],
            "row": range(count),
            "age": age,
            "balance": [None if row % 5 == 0 else Decimal(row) / 4 for row in range(count)],
            "job": [None if row % 11 == 0 else ["cook", "nurse"][row % 2] for row in range(count)],
            "member": [None if row % 3 == 0 else row % 2 == 0 for row in range(count)],
            "joined": [date(2019, 1, 1) + timedelta(days=row) for row in range(count)],
            "country": ["LU"] * count,
            "nothing": [None] * count,
            "rare": ["x" if row < 5 else None for row in range(count)],
            "tags": [["a", "b"]] * count,
            "growth": [float("inf") if row == 3 else 1.0 * (row % 9) for row in range(count)],
            "left": left,
        },
        strict=False,
    )


def numbers(count: int = 60) -> pl.DataFrame:
    """The least that is a table: one input, no time."""
    chance = np.random.default_rng(2)
    x = chance.normal(size=count)
    return pl.DataFrame({"x": x, "y": 2 * x + 1})


def looked_at(rows: pl.DataFrame, target: str, time: str | None = None, key: str | None = None) -> UserTable:
    return describe(rows, target=target, time=time, key=key, now=NOW)


# -- what is written --------------------------------------------------------------------------------------

TABLES: dict[str, tuple[pl.DataFrame, dict[str, str]]] = {
    "houses": (houses(), {"target": 'price: "final"', "time": "sold at"}),
    "customers": (customers(), {"target": "left", "key": "id"}),
    "numbers": (numbers(), {"target": "y"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_written_loop_is_a_loop_and_its_steps_train_a_model_on_the_table(
    tmp_path: Path, name: str
) -> None:
    rows, columns = TABLES[name]
    project = tmp_path / "project"
    start_project(project, rows, written(rows, tmp_path, name), **columns)  # type: ignore[arg-type]
    loop: Any = import_project_object(project, "loop:loop")
    assert isinstance(loop, Loop)
    assert loop.declaration.mode == "approve"
    with Workspace.open(project) as workspace:
        kept = Datasets(workspace).read(name)
        dataset = Datasets(workspace).get(name)
    contract: Any = import_project_object(project, "loop:Rows")
    assert dataset.contract == contract.spec()
    model = loop.train.on({name: kept})
    assert model.target == columns["target"]
    assert np.isfinite(model.predict(kept)).all()


def test_columns_that_no_model_can_use_are_left_out_each_with_its_reason() -> None:
    table = looked_at(customers(), "left", key="id")
    assert table.inputs == ("age", "balance", "job", "member")
    assert table.binary
    assert table.left_out == {
        "left": "the target",
        "id": "the key",
        "row": "it numbers the rows",
        "joined": "a date or time: derive numbers from it in `prepare`",
        "country": "it has one value only",
        "nothing": "it has no value",
        "rare": "it is missing in 99% of the rows",
        "tags": "a dataset cannot hold such values",
        "growth": "some of its values are infinite",
    }


def test_what_a_dataset_cannot_hold_is_dropped_from_later_appends_too(tmp_path: Path) -> None:
    rows = customers()
    project = tmp_path / "project"
    start_project(project, rows, written(rows, tmp_path, "customers"), target="left", key="id")
    with Workspace.open(project) as workspace:
        more = Datasets(workspace).append("customers", rows.tail(3), key="more")
        assert more.rows == rows.height + 3
        assert not {"tags", "nothing"} & set(more.schema)
        with pytest.raises(InvalidInputError, match="missing column"):
            Datasets(workspace).append("customers", rows.drop("age"), key="without")


def test_rows_whose_outcome_is_not_known_yet_may_be_appended(tmp_path: Path) -> None:
    rows = numbers()
    project = tmp_path / "project"
    start_project(project, rows, written(rows, tmp_path, "numbers"), target="y")
    with Workspace.open(project) as workspace:
        Datasets(workspace).append("numbers", pl.DataFrame({"x": [0.5], "y": [None]}), key="open")
        kept = Datasets(workspace).read("numbers")
    loop: Any = import_project_object(project, "loop:loop")
    assert loop.train.on({"numbers": kept}).target == "y"


def test_any_name_that_a_column_may_have_is_spelled_in_the_written_contract(tmp_path: Path) -> None:
    names = [
        "a b", "a_b", "a\tb", "a\nb", 'q"q', "q'q", '"""', "b\\s", "[x]", "{y}", "é", "日本", "class", "None",
        "tt", "datetime", "_x", "__y", "1st", "spec", "validate", "x" * 300,
    ]  # fmt: skip
    rows = pl.DataFrame({name: np.sin(np.arange(60) + place) for place, name in enumerate(names)})
    project = tmp_path / "project"
    start_project(project, rows, written(rows, tmp_path, "names"), target='"""')
    contract: Any = import_project_object(project, "loop:Rows")
    assert [column.name for column in contract.spec().columns] == names
    loop: Any = import_project_object(project, "loop:loop")
    assert loop.declaration.target == '"""'


@pytest.mark.parametrize(
    ("values", "binary"),
    [
        ([True, False], True),
        ([0, 1], True),
        ([0.0, 1.0], True),
        ([None, 0, 1], True),
        ([1, 2], False),
        ([0, 1, 2], False),
    ],
)
def test_zeros_and_ones_are_two_classes_and_other_numbers_are_numbers(
    values: list[object], binary: bool
) -> None:
    count = 240
    rows = pl.DataFrame(
        {"x": np.arange(count) * 0.5, "y": [values[row % len(values)] for row in range(count)]}
    )
    assert looked_at(rows, "y").binary is binary


def test_a_datasets_name_comes_from_the_files() -> None:
    assert dataset_name(Path("data/House Prices (2024).parquet")) == "house-prices-2024"
    assert dataset_name(Path("données.csv")) == "donn-es"
    assert dataset_name(Path("___.csv")) == "rows"
    assert len(dataset_name(Path("x" * 200 + ".csv"))) == 100


# -- which rows are held out ------------------------------------------------------------------------------


def split(table: UserTable, times: list[datetime], now: datetime = NOW) -> tuple[int, int]:
    """How many rows a first cycle trains on and judges by."""
    as_of = data_time(now, max(time for time in times if time < now), table.holdout)
    begin, end = table.holdout.bounds(as_of)
    assert begin is not None
    start, stop = table.window.bounds(begin)
    assert start is not None
    assert stop == begin
    assert end is not None
    return sum(start <= time < begin for time in times), sum(begin <= time < end for time in times)


@given(
    gaps=st.lists(st.timedeltas(timedelta(0), timedelta(days=400)), min_size=60, max_size=120),
    ago=st.timedeltas(timedelta(seconds=1), timedelta(days=3000)),
)
def test_whatever_the_times_the_last_rows_are_held_out_and_the_others_trained_on(
    gaps: list[timedelta], ago: timedelta
) -> None:
    times = [NOW - ago]
    for gap in gaps:
        times.append(times[-1] - gap)
    if times[0] == times[-1]:
        return
    rows = pl.DataFrame({"at": times, "x": range(len(times)), "z": np.sin(np.arange(len(times)))})
    trained, held_out = split(looked_at(rows.with_columns(y=pl.col("z") * 2), "y", time="at"), times)
    assert trained > 0
    assert held_out > 0


@pytest.mark.parametrize(
    ("step", "ago"),
    [
        (timedelta(hours=6), timedelta(days=4000)),
        (timedelta(hours=6), timedelta(0)),
        (timedelta(days=1), timedelta(days=4000)),
        (timedelta(seconds=1), timedelta(days=4000)),
        (timedelta(milliseconds=20), timedelta(days=1)),
    ],
)
def test_about_a_tenth_of_regular_rows_is_held_out_and_all_others_are_trained_on(
    step: timedelta, ago: timedelta
) -> None:
    times = [NOW - ago - step * (row + 1) for row in range(500)]
    rows = pl.DataFrame({"at": times, "x": np.sin(np.arange(500)), "y": np.cos(np.arange(500))})
    trained, held_out = split(looked_at(rows, "y", time="at"), times)
    assert trained + held_out == 500
    assert 45 <= held_out <= 60


def test_rows_of_days_to_come_do_not_count() -> None:
    times = [NOW + timedelta(days=day) for day in range(-100, 100)]
    rows = pl.DataFrame({"at": times, "x": np.sin(np.arange(200)), "y": np.cos(np.arange(200))})
    trained, held_out = split(looked_at(rows, "y", time="at"), times)
    assert trained + held_out == 100
    ahead = rows.with_columns(pl.col("at") + timedelta(days=70))
    with pytest.raises(InvalidInputError, match=r"30 rows .* a time before now"):
        looked_at(ahead, "y", time="at")


# -- it works ---------------------------------------------------------------------------------------------


def first_cycle(workspace: Workspace) -> None:
    """Let the controller act and do its orders here, until nothing is left to do."""
    controller = Controller(workspace)
    for _ in range(20):
        while controller.reconcile():
            pass
        job = Jobs(workspace).claim("here", list(HANDLERS))
        if job is None:
            break
        handler = getattr(jobs, HANDLERS[job.kind].rpartition(":")[2])
        answer = handler(workspace, job.spec, SimpleNamespace(job=job, pool=None))
        Jobs(workspace).finish(job, msgspec.to_builtins(answer))
    controller.close()


@pytest.mark.parametrize("name", ["houses", "numbers"])
def test_a_started_project_gets_a_champion_with_and_without_event_time(tmp_path: Path, name: str) -> None:
    rows, columns = TABLES[name]
    project = tmp_path / "project"
    source = written(rows, tmp_path, name)
    start_project(project, rows, source, mode="auto", **columns)
    with Workspace.open(project) as workspace:
        apply_reference(workspace)
        first_cycle(workspace)
        status = Loops(workspace).status(name)
        assert status.champion is not None, status.finished
        (report,) = Registry(workspace).gate_reports(name, version=1)
        record = Registry(workspace).get_version(name, 1).record
        rest = Datasets(workspace).read(name, part=(0.2, 1)).height
    assert report.passed
    trained = record.metrics["rows"]
    assert trained is not None
    assert rows.height * 0.7 < trained < rows.height * 0.95
    assert name == "houses" or trained == rest
    assert record.held_out == ({} if name == "houses" else {"numbers": 0.2})


# -- what is refused --------------------------------------------------------------------------------------

BAD: dict[str, tuple[pl.DataFrame, dict[str, str], type[TrimtabError], str]] = {
    "an unknown target": (numbers(), {"target": "z"}, NotFoundError, "There is no column 'z'"),
    "an unknown time": (numbers(), {"target": "y", "time": "at"}, NotFoundError, "no column 'at'"),
    "a text as target": (
        customers(), {"target": "job"}, InvalidInputError, r"'job' holds String.*== 'nurse'",
    ),
    "a date as target": (customers(), {"target": "joined"}, InvalidInputError, "holds Date, not numbers"),
    "the target as key": (numbers(), {"target": "y", "key": "y"}, InvalidInputError, "both the target"),
    "a number as time": (numbers(), {"target": "y", "time": "x"}, InvalidInputError, "Float64, not times"),
    "few rows": (numbers(LEAST_ROWS - 1), {"target": "y"}, InvalidInputError, "49 rows"),
    "no rows": (numbers(0), {"target": "y"}, InvalidInputError, "0 rows"),
    "few labels": (
        numbers(200).with_columns(pl.when(pl.col("x") > 2).then("y").alias("y")),
        {"target": "y"}, InvalidInputError, r"a loop needs 50",
    ),
    "one label": (
        numbers().with_columns(y=pl.lit(3)), {"target": "y"}, InvalidInputError, "3 in all rows",
    ),
    "no inputs": (
        customers().select("left", "country", "joined"), {"target": "left"}, InvalidInputError,
        "No column of the table can be an input.*'country': it has one value only",
    ),
    "missing times": (
        houses().with_columns(pl.when(pl.col("class") == "flat").then("sold at").alias("sold at")),
        {"target": "float", "time": "sold at"}, InvalidInputError, "rows have no value in 'sold at'",
    ),
    "missing keys": (customers(), {"target": "left", "key": "job"}, InvalidInputError, "no value in 'job'"),
    "one time": (
        houses().with_columns(pl.lit(OLD).alias("sold at")),
        {"target": "float", "time": "sold at"}, InvalidInputError, "All rows have the same time",
    ),
    "names that tables do not tell apart": (
        numbers().with_columns(pl.col("x").alias("X")), {"target": "y"}, InvalidInputError,
        "upper and lower case",
    ),
    "a year that is a slip": (
        houses().with_columns(
            pl.when(pl.col("float") > 2).then(datetime(2999, 1, 1)).otherwise("sold at").alias("sold at")  # noqa: DTZ001
        ),
        {"target": "float", "time": "sold at"}, InvalidInputError, "rows lie after now, up to 2999-01-01",
    ),
    "a reserved name": (
        numbers().rename({"x": "_trimtab_row"}), {"target": "y"}, InvalidInputError, "reserved",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_nothing_can_be_learned_from_is_refused_and_nothing_written(
    tmp_path: Path, name: str
) -> None:
    rows, columns, error, words = BAD[name]
    with pytest.raises(error, match=words):
        start_project(tmp_path / "project", rows, tmp_path / "rows.parquet", **columns)  # type: ignore[arg-type]
    assert not (tmp_path / "project").exists()


@pytest.fixture(params=["loop.py", "trimtab.toml", "README.md", ".trimtab"])
def taken(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that holds a part of a project."""
    path = tmp_path / str(request.param)
    path.write_text("mine")
    return path


def test_a_folder_that_holds_a_project_is_left_as_it_is(taken: Path) -> None:
    with pytest.raises(ConflictError, match="already there"):
        start_project(taken.parent, numbers(), taken.parent / "rows.parquet", target="y")
    assert [path.name for path in taken.parent.iterdir()] == [taken.name]
    assert taken.read_text() == "mine"


def test_a_project_that_could_not_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_PORT", json.dumps("many"))
    rows = numbers()
    source = written(rows, tmp_path, "numbers")
    with pytest.raises(InvalidInputError, match="port"):
        start_project(tmp_path / "project", rows, source, target="y")
    assert not list((tmp_path / "project").iterdir())


def written(rows: pl.DataFrame, folder: Path, name: str) -> Path:
    """The rows as the file that they came from; only its bytes are looked at."""
    path = folder / f"{name}.json"
    path.write_text(repr(rows))
    return path
