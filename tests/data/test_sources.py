from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from sqlalchemy import select

from trimtab.data.contracts import Contract, field
from trimtab.data.datasets import Datasets
from trimtab.data.sources import Sources
from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.store.schema import journal_table
from trimtab.workspace import Workspace

AT = datetime(2011, 1, 1, tzinfo=UTC)
NOW = timedelta(0)


class Trips(Contract):
    at: datetime
    station: str
    distance: float = field(ge=0)


def trips(start: int, count: int) -> pl.DataFrame:
    hours = range(start, start + count)
    return pl.DataFrame(
        {
            "at": [AT + timedelta(hours=hour) for hour in hours],
            "station": [f"{hour:03}" for hour in hours],
            "distance": [float(hour) for hour in hours],
        }
    )


@pytest.fixture
def datasets(workspace: Workspace) -> Datasets:
    made = Datasets(workspace)
    made.create("trips", contract=Trips, time="at")
    return made


@pytest.fixture
def folder(workspace: Workspace, datasets: Datasets) -> Path:
    made = workspace.project / "incoming"
    made.mkdir()
    Sources(workspace).register("trips", "incoming", settle=NOW)
    return made


def test_each_new_file_is_appended_once(workspace: Workspace, datasets: Datasets, folder: Path) -> None:
    sources = Sources(workspace)
    trips(0, 2).write_parquet(folder / "a.parquet")
    trips(2, 2).write_csv(folder / "b.csv")
    (folder / "readme.txt").write_text("nothing")
    assert [version.added for version in sources.poll("trips")] == [2, 2]
    assert sources.poll("trips") == []
    (folder / "2011").mkdir()
    trips(4, 1).write_parquet(folder / "2011" / "c.parquet")
    assert [version.number for version in sources.poll("trips")] == [3]
    assert datasets.read("trips")["station"].to_list() == ["000", "001", "002", "003", "004"]
    assert [(file.name, file.version, file.reason) for file in sources.files("trips")] == [
        ("2011/c.parquet", 3, ""),
        ("a.parquet", 1, ""),
        ("b.csv", 2, ""),
    ]


@pytest.mark.parametrize(
    ("written", "hour"),
    [
        ("2011-01-01T05:00:00Z", 5),
        ("2011-01-01T05:00:00+02:00", 3),
        ("2011-01-01 05:00:00", 5),
        ("2011-01-01 05:00", 5),
        ("2011-01-01", 0),
    ],
)
def test_a_csv_file_is_read_as_the_contracts_types(
    workspace: Workspace, datasets: Datasets, folder: Path, written: str, hour: int
) -> None:
    (folder / "a.csv").write_text(f"at,station,distance\n{written},007,1\n")
    Sources(workspace).poll("trips")
    assert datasets.read("trips").rows() == [(AT + timedelta(hours=hour), "007", 1.0)]


def test_a_bad_file_is_recorded_with_its_reason_and_blocks_no_other(
    workspace: Workspace, datasets: Datasets, folder: Path
) -> None:
    sources = Sources(workspace)
    (folder / "a.parquet").write_bytes(b"PAR1 but no more")
    (folder / "b.csv").write_text("")
    trips(0, 2).drop("station").write_parquet(folder / "c.parquet")
    trips(0, 2).clear().write_parquet(folder / "d.parquet")
    trips(0, 2).write_parquet(folder / "e.parquet")
    (folder / "f.csv").write_text("at,station,distance\n2011-01-01T00:00:00Z,1,far\n")
    (folder / "g.csv").write_text("at,station,distance\nyesterday,1,2\n")
    assert [version.key.split(":")[1] for version in sources.poll("trips")] == ["e.parquet"]
    assert sources.poll("trips") == []
    reasons = {file.name: file.reason for file in sources.files("trips")}
    assert "cannot be read" in reasons["a.parquet"]
    assert "content is empty" in reasons["b.csv"]
    assert "station: missing column" in reasons["c.parquet"]
    assert "no rows" in reasons["d.parquet"]
    assert "far" in reasons["f.csv"]
    assert "yesterday" in reasons["g.csv"]
    assert reasons["e.parquet"] == ""
    with workspace.read() as connection:
        refused = connection.execute(
            select(journal_table.c.reason).where(journal_table.c.action == "source.file_refused")
        ).all()
    assert len(refused) == 6


def test_a_bad_file_that_is_replaced_is_tried_again_and_so_is_one_on_request(
    workspace: Workspace, datasets: Datasets, folder: Path
) -> None:
    sources = Sources(workspace)
    trips(0, 2).write_parquet(folder / "a.parquet")
    whole = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(whole[:-20])
    assert sources.poll("trips") == []
    (folder / "a.parquet").write_bytes(whole)
    assert [version.added for version in sources.poll("trips")] == [2]

    extra = trips(2, 1).with_columns(city=pl.lit("Paris"))
    extra.write_parquet(folder / "b.parquet")
    assert sources.poll("trips") == []

    class Wider(Trips, unexpected="drop"):
        pass

    datasets.set_contract("trips", Wider)
    assert sources.poll("trips") == []
    assert sources.retry("trips") == 2
    assert [version.added for version in sources.poll("trips")] == [1]


def test_rows_that_break_a_rule_go_into_quarantine_or_refuse_the_file(
    workspace: Workspace, datasets: Datasets, folder: Path
) -> None:
    sources = Sources(workspace)
    bad = trips(0, 2).with_columns(distance=pl.Series([-1.0, 1.0]))
    bad.write_parquet(folder / "a.parquet")
    assert [(version.added, version.quarantined) for version in sources.poll("trips")] == [(1, 1)]
    sources.register("trips", "incoming", settle=NOW, on_violation="refuse")
    bad.write_parquet(folder / "b.parquet")
    assert sources.poll("trips") == []
    assert datasets.quarantined("trips").height == 1


@pytest.mark.parametrize(
    "name", [".a.parquet", "_a.parquet", "a.parquet.tmp", "a.csv.part", "_staging/a.csv", "a.tmp/a.csv"]
)
def test_files_that_are_being_written_under_another_name_are_left_alone(
    workspace: Workspace, folder: Path, name: str
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    trips(0, 1).write_csv(folder / name)
    assert Sources(workspace).poll("trips") == []
    (folder / name).replace(folder / "a.csv")
    assert len(Sources(workspace).poll("trips")) == 1


def test_a_file_that_was_just_changed_is_left_alone_until_it_settles(
    workspace: Workspace, folder: Path
) -> None:
    sources = Sources(workspace)
    sources.register("trips", "incoming", settle=timedelta(minutes=5))
    trips(0, 1).write_csv(folder / "a.csv")
    assert sources.poll("trips") == []
    assert sources.files("trips") == []
    long_ago = time.time() - 600
    os.utime(folder / "a.csv", (long_ago, long_ago))
    assert len(sources.poll("trips")) == 1


def test_touching_a_file_appends_nothing_and_new_content_under_its_name_does(
    workspace: Workspace, datasets: Datasets, folder: Path
) -> None:
    sources = Sources(workspace)
    trips(0, 2).write_csv(folder / "a.csv")
    sources.poll("trips")
    os.utime(folder / "a.csv", (1, 1))
    assert sources.poll("trips") == []
    trips(2, 2).write_csv(folder / "a.csv")
    assert len(sources.poll("trips")) == 1
    assert datasets.read("trips").height == 4


def test_a_look_that_was_killed_after_the_append_appends_nothing_again(
    workspace: Workspace, datasets: Datasets, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    trips(0, 2).write_csv(folder / "a.csv")
    with monkeypatch.context() as patch:
        patch.setattr("trimtab.data.sources._record", die)
        with pytest.raises(Killed):
            Sources(workspace).poll("trips")
    Sources(workspace).poll("trips")
    assert datasets.version("trips").number == 1
    assert [file.version for file in Sources(workspace).files("trips")] == [1]


def test_a_folder_that_went_away_is_a_problem_that_is_told_and_passes(
    workspace: Workspace, folder: Path
) -> None:
    sources = Sources(workspace)
    folder.rename(folder.with_name("elsewhere"))
    assert sources.poll("trips") == []
    assert "is not there" in sources.list("trips")[0].problem
    folder.with_name("elsewhere").rename(folder)
    sources.poll("trips")
    assert sources.list("trips")[0].problem == ""
    with workspace.read() as connection:
        actions = (
            connection.execute(select(journal_table.c.action).order_by(journal_table.c.seq)).scalars().all()
        )
    assert actions[-2:] == ["source.failed", "source.recovered"]


def test_sources_are_looked_at_when_their_time_has_come(workspace: Workspace, folder: Path) -> None:
    sources = Sources(workspace)
    sources.register("trips", folder, every=timedelta(hours=1), settle=NOW)
    sources.remove("trips", "incoming")
    now = workspace.clock.now()
    assert sources.next_due() == now
    trips(0, 1).write_csv(folder / "a.csv")
    assert len(sources.poll_due(now)) == 1
    assert sources.next_due() == now + timedelta(hours=1)
    trips(1, 1).write_csv(folder / "b.csv")
    assert sources.poll_due(now + timedelta(minutes=59)) == []
    assert len(sources.poll_due(now + timedelta(hours=1))) == 1


def test_sources_of_what_is_not_there_are_refused(workspace: Workspace, datasets: Datasets) -> None:
    sources = Sources(workspace)
    with pytest.raises(InvalidInputError, match="not a folder"):
        sources.register("trips", "nowhere")
    with pytest.raises(NotFoundError, match="Did you mean 'trips'"):
        sources.register("tripz", ".")
    with pytest.raises(NotFoundError, match="not a source"):
        sources.remove("trips", "nowhere")
    with pytest.raises(InvalidInputError, match="interval"):
        sources.register("trips", ".", every=timedelta(0))
    assert sources.next_due() is None


def test_a_delta_table_feeds_a_dataset_commit_by_commit(workspace: Workspace, datasets: Datasets) -> None:
    table = workspace.project / "table"
    write_deltalake(table, trips(0, 2), partition_by=["station"])
    sources = Sources(workspace)
    sources.register("trips", table)
    assert [version.added for version in sources.poll("trips")] == [2]
    write_deltalake(table, trips(2, 3), mode="append")
    DeltaTable(table).optimize.compact()
    assert [version.added for version in sources.poll("trips")] == [3]
    DeltaTable(table).delete("distance = 0")
    assert sources.poll("trips") == []
    assert "removes or changes rows" in sources.files("trips")[-1].reason
    assert datasets.read("trips")["station"].to_list() == ["000", "001", "002", "003", "004"]


def test_a_delta_table_whose_log_was_cut_is_a_problem_that_is_told(
    workspace: Workspace, datasets: Datasets
) -> None:
    table = workspace.project / "table"
    write_deltalake(table, trips(0, 2))
    write_deltalake(table, trips(2, 3), mode="append")
    (table / "_delta_log" / f"{0:020}.json").unlink()
    sources = Sources(workspace)
    sources.register("trips", table)
    assert [version.added for version in sources.poll("trips")] == [3]
    assert "begins at version 1" in sources.list("trips")[0].problem


def test_sources_work_on_both_stores(any_workspace: Workspace) -> None:
    Datasets(any_workspace).create("trips", contract=Trips, time="at")
    sources = Sources(any_workspace)
    sources.register("trips", ".", settle=NOW)
    trips(0, 2).write_csv(any_workspace.project / "a.csv")
    (any_workspace.project / "b.csv").write_text("x\n1\n")
    assert [version.added for version in sources.poll("trips")] == [2]
    assert [file.version for file in sources.files("trips")] == [1, None]
    assert sources.retry("trips") == 1
