from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sqlalchemy import select

from trimtab.data.appends import COMPACT_EVERY, table_of
from trimtab.data.contracts import Contract, check, field
from trimtab.data.datasets import Datasets
from trimtab.data.versions import DatasetVersion
from trimtab.data.violations import Violation
from trimtab.data.window import last
from trimtab.errors import ConflictError, ContractViolationError, InvalidInputError, NotFoundError
from trimtab.store.schema import journal_table
from trimtab.workspace import Workspace

AT = datetime(2011, 1, 1, tzinfo=UTC)


class Trips(Contract):
    at: datetime
    distance: float = field(ge=0)
    city: str | None


class CheckedTrips(Trips):
    @check("short in Lyon")
    @staticmethod
    def short(rows: pl.DataFrame) -> pl.Expr:
        return (pl.col("city") != "Lyon") | (pl.col("distance") < 50)


def trips(start: int, count: int, city: str = "Paris") -> pl.DataFrame:
    """Hourly trips; the distance says which hour."""
    hours = range(start, start + count)
    return pl.DataFrame(
        {
            "at": [AT + timedelta(hours=hour) for hour in hours],
            "distance": [float(hour) for hour in hours],
            "city": [city] * count,
        }
    )


@pytest.fixture
def datasets(workspace: Workspace) -> Datasets:
    made = Datasets(workspace)
    made.create("trips", contract=Trips, time="at")
    return made


def test_rows_come_back_as_they_were_appended_on_both_stores(any_workspace: Workspace) -> None:
    datasets = Datasets(any_workspace)
    datasets.create("trips", contract=Trips, time="at", key=["distance"])
    first = datasets.append("trips", trips(0, 3), key="a")
    second = datasets.append("trips", trips(3, 2), key="b")
    assert (first.number, first.rows, second.number, second.rows, second.added) == (1, 3, 2, 5, 2)
    assert_frame_equal(datasets.read("trips"), trips(0, 5))
    assert_frame_equal(datasets.read("trips", 1), trips(0, 3))
    assert [version.key for version in datasets.versions("trips")] == ["a", "b"]
    assert datasets.get("trips").contract == Trips.spec()
    assert datasets.version("trips") == second
    assert datasets.version("trips", 1) == first
    assert (second.time_min, second.time_max) == (AT, AT + timedelta(hours=4))
    assert second.schema == {"at": "datetime", "distance": "float", "city": "str"}


def test_the_same_append_twice_is_one_version(datasets: Datasets) -> None:
    first = datasets.append("trips", trips(0, 3), key="a")
    datasets.append("trips", trips(3, 1), key="b")
    assert datasets.append("trips", trips(0, 3), key="a") == first
    assert datasets.read("trips").height == 4


def test_a_key_that_was_used_for_other_rows_is_refused(datasets: Datasets) -> None:
    datasets.append("trips", trips(0, 3), key="a")
    with pytest.raises(ConflictError, match="used for other rows"):
        datasets.append("trips", trips(0, 4), key="a")
    assert datasets.version("trips").number == 1


def test_each_version_keeps_the_profile_of_all_its_rows(datasets: Datasets) -> None:
    datasets.append("trips", trips(0, 3, "Lyon"), key="a")
    datasets.append("trips", trips(3, 2), key="b")
    assert datasets.profile("trips").rows == 5
    assert datasets.profile("trips").counts("city") == {"Lyon": 3, "Paris": 2}
    assert datasets.profile("trips").feature("distance").mean == 2.0
    assert datasets.profile("trips", 1).rows == 3
    assert list(datasets.profile("trips").features) == ["at", "distance", "city"]


def test_the_digest_is_of_the_rows_and_not_of_files(datasets: Datasets) -> None:
    one = datasets.append("trips", trips(0, 3), key="a")
    datasets.create("again", contract=Trips, time="at")
    rechunked = pl.concat([trips(0, 1), trips(1, 2)], rechunk=False)
    assert datasets.append("again", rechunked, key="other").digest == one.digest
    datasets.create("different", contract=Trips, time="at")
    assert datasets.append("different", trips(0, 3, "Lyon"), key="a").digest != one.digest
    before = datasets.version("trips").digest
    datasets._ws.tables.compact(table_of("trips"))
    assert datasets.version("trips").digest == before


def test_a_window_is_cut_by_event_time_and_late_rows_find_their_place(datasets: Datasets) -> None:
    datasets.append("trips", trips(10, 5), key="a")
    datasets.append("trips", trips(0, 3), key="late")
    assert datasets.read("trips")["distance"].to_list() == [0, 1, 2, 10, 11, 12, 13, 14]
    assert datasets.read("trips", 1)["distance"].to_list() == [10, 11, 12, 13, 14]
    found = datasets.read("trips", start=AT + timedelta(hours=2), end=AT + timedelta(hours=12))
    assert found["distance"].to_list() == [2, 10, 11]
    window = datasets.read_window("trips", last(hours=3), AT + timedelta(hours=14))
    assert window["distance"].to_list() == [11, 12, 13]
    assert datasets.version("trips").time_min == AT


def test_rows_of_one_time_stay_in_the_order_they_were_appended_in(datasets: Datasets) -> None:
    for number in range(5):
        same = pl.DataFrame(
            {"at": [AT] * 2, "distance": [2.0 * number, 2.0 * number + 1], "city": ["x", "y"]}
        )
        datasets.append("trips", same, key=str(number))
    datasets._ws.tables.compact(table_of("trips"))
    assert datasets.read("trips")["distance"].to_list() == list(range(10))


def test_columns_can_be_chosen_and_unknown_ones_are_named(datasets: Datasets) -> None:
    datasets.append("trips", trips(0, 2), key="a")
    assert datasets.read("trips", columns=["distance"]).columns == ["distance"]
    with pytest.raises(NotFoundError, match="Did you mean 'distance'"):
        datasets.read("trips", columns=["distanse"])


def test_rows_that_break_the_contract_refuse_the_append_and_change_nothing(datasets: Datasets) -> None:
    datasets.append("trips", trips(0, 2), key="a")
    bad = trips(2, 3).with_columns(distance=pl.Series([1.0, -1.0, math.nan]))
    with pytest.raises(ContractViolationError, match="2 rows break the contract 'Trips' of dataset 'trips'"):
        datasets.append("trips", bad, key="b")
    assert datasets.version("trips").number == 1
    assert datasets.read("trips").height == 2
    assert datasets.quarantined("trips").is_empty()


def test_quarantined_rows_are_kept_counted_and_told_why(datasets: Datasets) -> None:
    bad = trips(0, 4).with_columns(distance=pl.Series([1.0, -1.0, math.nan, 2.0]))
    version = datasets.append("trips", bad, key="b", on_violation="quarantine")
    assert (version.added, version.quarantined, version.rows) == (2, 2, 2)
    assert datasets.read("trips")["distance"].to_list() == [1.0, 2.0]
    aside = datasets.quarantined("trips")
    assert aside["quarantine_reason"].to_list() == ["distance ge=0", "distance not null"]
    assert aside["quarantine_row"].to_list() == [1, 2]
    assert aside["quarantine_version"].to_list() == [1, 1]
    assert aside["distance"].fill_nan(-99).to_list() == [-1, -99]
    assert datasets.append("trips", bad, key="b", on_violation="quarantine") == version
    assert datasets.quarantined("trips").height == 2


def test_an_append_of_bad_rows_only_is_a_version_that_adds_none(datasets: Datasets) -> None:
    bad = trips(0, 2).with_columns(distance=pl.lit(-1.0))
    version = datasets.append("trips", bad, key="bad", on_violation="quarantine")
    assert (version.number, version.rows, version.quarantined) == (1, 0, 2)
    assert datasets.read("trips").schema == trips(0, 1).schema
    assert datasets.append("trips", trips(0, 2), key="good").rows == 2


@pytest.mark.parametrize("on_violation", ["refuse", "quarantine"])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (trips(0, 2).drop("city"), "city: missing column"),
        (trips(0, 2).rename({"distance": "dist"}), "dist: unexpected column"),
        (trips(0, 2).with_columns(distance=pl.lit("far")), "distance: type float"),
    ],
)
def test_wrong_columns_refuse_the_append_always(
    datasets: Datasets, rows: pl.DataFrame, words: str, on_violation: str
) -> None:
    with pytest.raises(ContractViolationError, match=words) as caught:
        datasets.append("trips", rows, key="a", on_violation=on_violation)  # type: ignore[arg-type]
    assert all(isinstance(violation, Violation) for violation in caught.value.violations)
    assert datasets.versions("trips") == []


def test_an_empty_frame_and_an_empty_key_are_refused(datasets: Datasets) -> None:
    with pytest.raises(InvalidInputError, match="no rows"):
        datasets.append("trips", trips(0, 0), key="a")
    with pytest.raises(InvalidInputError, match="needs a key"):
        datasets.append("trips", trips(0, 1), key="")


def test_unknown_names_versions_and_times_are_told_with_what_there_is(datasets: Datasets) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'trips'"):
        datasets.append("trip", trips(0, 1), key="a")
    with pytest.raises(NotFoundError, match="no version yet"):
        datasets.read("trips")
    datasets.append("trips", trips(0, 1), key="a")
    with pytest.raises(NotFoundError, match="versions 1 to 1"):
        datasets.read("trips", 2)
    with pytest.raises(InvalidInputError, match="time zone"):
        datasets.read("trips", start=datetime(2011, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidInputError, match="cannot be called"):
        datasets.create("../trips")


def test_creating_twice_is_once_and_creating_otherwise_is_refused(datasets: Datasets) -> None:
    assert datasets.create("trips", contract=Trips, time="at") == datasets.get("trips")
    with pytest.raises(ConflictError, match="another key"):
        datasets.create("trips", contract=Trips, time="at", key=["distance"])
    with pytest.raises(ConflictError, match="set_contract"):
        datasets.create("trips", contract=CheckedTrips, time="at")
    assert [dataset.name for dataset in datasets.list()] == ["trips"]


def test_a_contract_that_lacks_the_time_is_refused(datasets: Datasets) -> None:
    with pytest.raises(InvalidInputError, match="lacks 'when'"):
        datasets.create("other", contract=Trips, time="when")
    with pytest.raises(InvalidInputError, match="is float"):
        datasets.create("other", contract=Trips, time="distance")
    with pytest.raises(InvalidInputError, match="may be missing"):
        datasets.create("other", contract=Trips, time="at", key=["city"])


def test_checks_over_whole_rows_are_made_where_the_class_is_given(datasets: Datasets) -> None:
    datasets.create("checked", contract=CheckedTrips, time="at")
    far = trips(60, 2, "Lyon")
    with pytest.raises(ContractViolationError, match="short in Lyon"):
        datasets.append("checked", far, key="a", contract=CheckedTrips)
    with pytest.raises(ConflictError, match="not the one"):
        datasets.append("checked", far, key="a", contract=Trips)
    assert datasets.append("checked", far, key="a").added == 2


def test_without_a_contract_the_first_append_sets_columns_and_types(workspace: Workspace) -> None:
    datasets = Datasets(workspace)
    datasets.create("free", time="day")
    first = pl.DataFrame({"day": [AT.date()], "n": pl.Series([1], dtype=pl.Int16), "x": [1.0]})
    assert datasets.append("free", first, key="a").schema == {"day": "datetime", "n": "int", "x": "float"}
    assert datasets.append("free", first.with_columns(x=pl.lit(2)), key="b").rows == 2
    for wrong in (
        first.drop("n"),
        first.with_columns(z=pl.lit(1)),
        first.with_columns(n=pl.lit(0.5)),
        first.with_columns(day=pl.lit(None, pl.Date)),
    ):
        with pytest.raises(ContractViolationError):
            datasets.append("free", wrong, key="c")
    assert datasets.append("free", first.with_columns(x=pl.lit(None)), key="c").rows == 3
    datasets.create("timeless")
    with pytest.raises(InvalidInputError, match="cannot hold"):
        datasets.append("timeless", pl.DataFrame({"a": [[1]]}), key="a")
    with pytest.raises(InvalidInputError, match="type cannot be told"):
        datasets.append("timeless", pl.DataFrame({"a": [None]}), key="a")
    datasets.append("timeless", pl.DataFrame({"a": [2, 1]}), key="a")
    assert datasets.read("timeless")["a"].to_list() == [2, 1]
    with pytest.raises(InvalidInputError, match="no time column"):
        datasets.read("timeless", end=AT)
    datasets.create("lost", time="when")
    with pytest.raises(NotFoundError, match="no column 'when'"):
        datasets.append("lost", first, key="a")


def test_kept_columns_join_the_schema_and_are_null_where_they_were_not_given(workspace: Workspace) -> None:
    class Loose(Contract, unexpected="keep"):
        x: float

    datasets = Datasets(workspace)
    datasets.create("loose", contract=Loose)
    datasets.append("loose", pl.DataFrame({"x": [1.0]}), key="a")
    datasets.append("loose", pl.DataFrame({"x": [2.0], "more": ["m"]}), key="b")
    version = datasets.append("loose", pl.DataFrame({"x": [3.0]}), key="c")
    assert version.schema == {"x": "float", "more": "str"}
    assert datasets.read("loose")["more"].to_list() == [None, "m", None]
    assert datasets.read("loose", 1).columns == ["x"]
    with pytest.raises(ContractViolationError, match="more: type str"):
        datasets.append("loose", pl.DataFrame({"x": [2.0], "more": [1]}), key="d")


def test_a_contract_may_change_but_not_the_type_of_a_column_with_rows(datasets: Datasets) -> None:
    datasets.append("trips", trips(0, 2), key="a")

    class Stricter(Trips):
        distance: float = field(ge=0, le=10)
        lit: bool | None = field(required=False)

    class Retyped(Trips):
        distance: int

    datasets.set_contract("trips", Stricter, reason="no trip is longer")
    with pytest.raises(ContractViolationError, match="le=10"):
        datasets.append("trips", trips(11, 2), key="b")
    assert datasets.append("trips", trips(0, 2), key="c").schema["lit"] == "bool"
    assert datasets.read("trips")["lit"].to_list() == [None] * 4
    with pytest.raises(ConflictError, match="'distance' of dataset 'trips' is float"):
        datasets.set_contract("trips", Retyped)


def test_changes_are_in_the_journal_with_their_numbers(workspace: Workspace, datasets: Datasets) -> None:
    datasets.append(
        "trips", trips(0, 2).with_columns(distance=pl.Series([-1.0, 1.0])), key="a", on_violation="quarantine"
    )
    with workspace.read() as connection:
        entries = connection.execute(select(journal_table.c.action, journal_table.c.details)).all()
    assert [entry.action for entry in entries] == ["dataset.created", "dataset.appended"]
    assert '"quarantined":1' in entries[1].details
    assert '"rule":"ge=0"' in entries[1].details


def test_appends_at_the_same_time_all_land_each_as_one_version(any_workspace: Workspace) -> None:
    datasets = Datasets(any_workspace)
    datasets.create("trips", contract=Trips, time="at")
    made: list[DatasetVersion] = []

    def write(worker: int) -> None:
        for turn in range(3):
            start = 100 * worker + 10 * turn
            made.append(datasets.append("trips", trips(start, 1 + worker), key=f"{worker}/{turn}"))

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(version.number for version in made) == list(range(1, 10))
    assert datasets.version("trips").rows == sum(version.added for version in made) == 18
    for before, after in zip(datasets.versions("trips"), datasets.versions("trips")[1:], strict=False):
        assert after.rows == before.rows + after.added
        new = datasets.read("trips", after.number).join(
            datasets.read("trips", before.number), on="at", how="anti"
        )
        assert new.height == after.added
        worker, turn = map(int, after.key.split("/"))
        assert new["distance"].min() == 100 * worker + 10 * turn


def test_two_processes_that_make_the_same_append_make_one_version(
    workspace: Workspace, datasets: Datasets
) -> None:
    done = [_append_elsewhere(workspace.project, "same", "") for _ in range(2)]
    assert [process.wait() for process in done] == [0, 0]
    assert datasets.version("trips").number == 1
    assert datasets.read("trips").height == 3


@pytest.mark.parametrize("moment", ["before the rows", "before the version", "after the version"])
def test_an_append_killed_at_any_moment_is_whole_or_nothing_and_can_be_repeated(
    workspace: Workspace, datasets: Datasets, moment: str
) -> None:
    datasets.append("trips", trips(50, 1), key="earlier")
    killed = _append_elsewhere(workspace.project, "killed", moment)
    assert killed.wait() == -signal.SIGKILL
    whole = moment == "after the version"
    assert datasets.version("trips").number == (2 if whole else 1)
    assert datasets.read("trips").height == (4 if whole else 1)
    other = datasets.append("trips", trips(20, 2), key="other")
    assert datasets.read("trips").height == other.rows == (6 if whole else 3)
    again = datasets.append("trips", trips(0, 3), key="killed")
    assert datasets.read("trips").height == 6
    assert again.added == 3
    assert datasets.profile("trips").rows == 6


KILLED = """
import os, signal, sys
from pathlib import Path
from datetime import datetime, timedelta, UTC
import polars as pl
from trimtab.data import appends
from trimtab.data.datasets import Datasets
from trimtab.workspace import Workspace

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

project, key, moment = sys.argv[1:]
at = datetime(2011, 1, 1, tzinfo=UTC)
with Workspace.open(Path(project), actor="other") as ws:
    if moment == "before the rows":
        ws.tables.append = die
    elif moment == "before the version":
        ws.database.write = die
    elif moment == "after the version":
        write = ws.database.write
        ws.database.write = lambda work, *, actor: (write(work, actor=actor), die())
    rows = pl.DataFrame({
        "at": [at + timedelta(hours=h) for h in range(3)],
        "distance": [0.0, 1.0, 2.0],
        "city": ["Paris"] * 3,
    })
    Datasets(ws).append("trips", rows, key=key)
"""


def _append_elsewhere(project: Path, key: str, moment: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIMTAB_")}
    return subprocess.Popen([sys.executable, "-c", KILLED, str(project), key, moment], env=environment)


def test_small_files_are_joined_now_and_then(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.data.appends.COMPACT_EVERY", 3)
    datasets = Datasets(workspace)
    datasets.create("trips", contract=Trips, time="at")
    for number in range(3):
        datasets.append("trips", trips(number, 1), key=str(number))
    folder = workspace.root / "tables" / table_of("trips") / "_delta_log"
    assert len(list(folder.glob("*.json"))) == 4
    assert datasets.read("trips").height == 3
    assert datasets.read("trips", 1).height == 1
    assert COMPACT_EVERY > 3
