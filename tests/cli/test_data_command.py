from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests.cli.conftest import Trimtab

from trimtab.data.sources import Sources
from trimtab.workspace import Workspace

CONTRACT = """
from datetime import datetime
import trimtab as tt

class Trips(tt.Contract):
    at: datetime
    distance: float = tt.field(ge=0)

class Strict(Trips):
    distance: float = tt.field(ge=0, le=100)

answer = 42
"""
GOOD = "at,distance\n2011-09-01T00:00:00Z,3.5\n2011-09-01T01:00:00Z,4\n"
BAD = "at,distance\n2011-09-01T02:00:00Z,5\n2011-09-01T03:00:00Z,-1\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a contract, and files of rows beside it."""
    Workspace.create(tmp_path / "project").close()
    (tmp_path / "project" / "trips.py").write_text(CONTRACT)
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.csv").write_text(BAD)
    return tmp_path / "project"


@pytest.fixture
def trips(trimtab: Trimtab, project: Path) -> Path:
    """The same with the dataset `trips`."""
    made = trimtab("data", "create", "trips", "--time", "at", "--contract", "trips:Trips", "--dir", project)
    assert made.status == 0, made.err
    return project


def test_rows_are_appended_once_listed_shown_and_read_back(
    trimtab: Trimtab, trips: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        (version,) = trimtab("data", "append", "trips", tmp_path / "good.csv", "--dir", trips, "--json").json
        assert (version["number"], version["rows"]) == (1, 2)
    (dataset,) = trimtab("data", "list", "--dir", trips, "--json").json
    assert (dataset["name"], dataset["time"]) == ("trips", "at")
    assert "trips" in trimtab("data", "list", "--dir", trips).out
    shown = trimtab("data", "show", "trips", "--dir", trips, "--json").json
    assert [version["added"] for version in shown["versions"]] == [2]
    assert "2011-09-01 01:00" in trimtab("data", "show", "trips", "--dir", trips).out
    for name in ("out.csv", "out.parquet"):
        assert trimtab("data", "read", "trips", tmp_path / name, "--dir", trips).status == 0
    assert pl.read_parquet(tmp_path / "out.parquet")["distance"].to_list() == [3.5, 4.0]
    assert pl.read_csv(tmp_path / "out.csv").height == 2


def test_bad_rows_refuse_the_append_or_go_into_quarantine(
    trimtab: Trimtab, trips: Path, tmp_path: Path
) -> None:
    append = ("data", "append", "trips", tmp_path / "bad.csv", "--dir", trips)
    trimtab(*append).failed(2, "1 row", "distance", "ge")
    made = trimtab(*append, "--quarantine")
    assert "1 rows from" in made.out
    assert "1 in quarantine" in made.out
    read = trimtab("data", "read", "trips", tmp_path / "aside.csv", "--quarantined", "--dir", trips)
    assert read.status == 0
    assert "distance" in (tmp_path / "aside.csv").read_text()


def test_a_contract_can_be_changed_for_later_rows(trimtab: Trimtab, trips: Path, tmp_path: Path) -> None:
    assert trimtab("data", "contract", "trips", "trips:Strict", "--dir", trips).status == 0
    (tmp_path / "far.csv").write_text("at,distance\n2011-09-01T00:00:00Z,500\n")
    trimtab("data", "append", "trips", tmp_path / "far.csv", "--dir", trips).failed(2, "'Strict'", "le")


def test_a_folder_is_watched_and_what_it_could_not_use_is_listed(
    trimtab: Trimtab, trips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    (folder / "notes.csv").write_text("wrong,columns\n1,2\n")
    assert trimtab("data", "watch", "trips", folder, "--dir", trips).status == 0
    with Workspace.open(trips) as workspace:
        Sources(workspace).register("trips", folder, settle=Sources(workspace).list("trips")[0].settle * 0)
        Sources(workspace).poll("trips")
    found = trimtab("data", "sources", "trips", "--dir", trips, "--json").json
    assert found["sources"][0]["folder"] == str(folder)
    assert "missing column" in found["files"][0]["reason"]
    assert "notes.csv" in trimtab("data", "sources", "trips", "--dir", trips).out
    assert "1 files will be tried again" in trimtab("data", "retry", "trips", "--dir", trips).out


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["create", "a b"], 2, "cannot be called 'a b'"),
        (["create", "trips"], 4, "exists with another"),
        (["create", "more", "--contract", "trips:Trip"], 2, "'trips:Trip' cannot be loaded"),
        (["create", "more", "--contract", "nothing:Trips"], 2, "ModuleNotFoundError"),
        (["create", "more", "--contract", "trips:answer"], 2, "42 is not a contract"),
        (["create", "more", "--contract", "trips:Trips", "--time", "when"], 2, "lacks 'when'"),
        (["append", "trip", "good.csv"], 3, "Did you mean 'trips'?"),
        (["append", "trips", "none.csv"], 2, "none.csv cannot be read: No such file"),
        (["append", "trips", "good.csv", "bad.csv", "--key", "k"], 2, "One --key names one append"),
        (["append", "trips", "trips.txt"], 2, "has no suffix"),
        (["append", "trips", "other.json"], 2, "missing column"),
        (["append", "trips", "empty.parquet"], 2, "the frame is empty"),
        (["show", "trip"], 3, "Did you mean 'trips'?"),
        (["read", "trips", "out.csv"], 3, "has no version"),
        (["read", "trips", "out.txt"], 2, "ends neither in .parquet nor in .csv"),
        (["watch", "trips", "nowhere"], 2, "is not a folder"),
        (["watch", "trip", "."], 3, "'trip'"),
        (["contract", "trips", "trips:answer"], 2, "is not a contract"),
        (["sources", "trip"], 3, "'trip'"),
    ],
)
def test_a_users_mistake_is_told_with_its_status(
    trimtab: Trimtab,
    trips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('[{"x": 1}]')
    pl.DataFrame(schema={"at": pl.Datetime, "distance": pl.Float64}).write_parquet("empty.parquet")
    trimtab("data", *words, "--dir", trips).failed(status, told)


def test_a_contract_whose_module_is_broken_is_told_without_a_traceback(
    trimtab: Trimtab, project: Path
) -> None:
    (project / "broken.py").write_text("def (:\n")
    create = ("data", "create", "more", "--contract", "broken:Trips", "--dir", project)
    trimtab(*create).failed(2, "'broken:Trips' cannot be loaded: SyntaxError")
