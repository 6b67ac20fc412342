"""All that an MLflow store holds comes with it, once, and goes out again."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import func, select
from tests.models.migration.stores import told
from tests.models.migration.way_out import move_out
from tests.server.mlflow.conftest import RunningServer

from trimtab.models.migration import run_copy
from trimtab.models.migration.migration import import_mlflow
from trimtab.models.migration.report import Counts, ImportReport
from trimtab.models.registry import Registry
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.tracking.imports import UNFINISHED
from trimtab.tracking.schema import metric_chunks_table, run_tags_table
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

ALL = Counts(
    experiments=3,
    runs=7,
    metric_points=3015,
    params=4,
    tags=13,
    datasets=2,
    logged_models=2,
    artifacts=11,
    artifact_bytes=272_076,
    registered_models=2,
    model_versions=3,
    aliases=2,
)
"""What is in a filled store."""


def good(report: ImportReport) -> ImportReport:
    """The report, if all was copied and is the same."""
    assert report.problems == []
    assert report.differences in ([], None)
    assert report.good
    return report


def test_everything_in_a_sqlite_file_comes_with_it(
    workspace: Workspace, served: MlflowClient, sqlite_store: Path, tmp_path: Path
) -> None:
    report = good(import_mlflow(workspace, f"sqlite:///{sqlite_store}", verify=True))
    assert report.copied == report.verified == ALL
    assert told(served, folder(tmp_path, "here")) == told(stock(sqlite_store), folder(tmp_path, "there"))


def test_everything_in_a_folder_comes_with_it(
    workspace: Workspace, served: MlflowClient, folder_store: Path, tmp_path: Path
) -> None:
    report = good(import_mlflow(workspace, str(folder_store), verify=True))
    assert report.copied == report.verified == ALL
    theirs = MlflowClient(folder_store.as_uri())
    assert told(served, folder(tmp_path, "here")) == told(theirs, folder(tmp_path, "there"))


def test_everything_on_a_server_comes_with_it(
    workspace: Workspace, served: MlflowClient, sqlite_store: Path, tmp_path: Path, free_port: int
) -> None:
    with Workspace.create(tmp_path / "first", actor="tester") as first:
        import_mlflow(first, str(sqlite_store))
        with RunningServer(first, _other_port(free_port)) as server:
            report = good(import_mlflow(workspace, server.url, verify=True))
    assert report.copied == report.verified == ALL
    assert told(served, folder(tmp_path, "here")) == told(stock(sqlite_store), folder(tmp_path, "there"))


def test_ids_numbers_and_times_are_kept(workspace: Workspace, sqlite_store: Path) -> None:
    import_mlflow(workspace, str(sqlite_store))
    theirs = stock(sqlite_store)
    runs = {run.info.run_id: run for run in theirs.search_runs(["1"])}
    ours = {run.id: run for run in Tracking(workspace).search(["prices"]).runs}
    assert ours.keys() == runs.keys()
    assert {run.experiment_id for run in ours.values()} == {1}
    registry = Registry(workspace)
    assert [version.version for version in registry.versions("bikes")] == [4, 2, 1]
    made = {int(each.version): each for each in theirs.search_model_versions("name = 'bikes'")}
    for version in registry.versions("bikes"):
        assert int(version.created_at.timestamp() * 1000) == made[version.version].creation_timestamp
        assert version.run_id == made[version.version].run_id
    digest = registry.get_version("bikes", 1).digest
    newest = workspace.write(lambda tx: registry.register(tx, "bikes", digest))
    assert newest.version == 5, "a number that was given at the source is not given again"


def test_what_went_in_comes_out_with_stock_tools_and_nothing_is_lost(
    workspace: Workspace,
    served: MlflowClient,
    sqlite_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import_mlflow(workspace, str(sqlite_store))
    outside = folder(tmp_path, "outside")
    monkeypatch.chdir(outside)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{outside}/mlflow.db")
    target = stock(outside / "mlflow.db")
    move_out(served, target, folder(tmp_path, "on the way"))
    assert told(target, folder(tmp_path, "here")) == told(stock(sqlite_store), folder(tmp_path, "there"))


@pytest.mark.parametrize("again", ["the same", "another address"])
def test_an_import_that_is_repeated_adds_nothing(
    workspace: Workspace, sqlite_store: Path, tmp_path: Path, again: str
) -> None:
    good(import_mlflow(workspace, str(sqlite_store)))
    before = size(workspace)
    address = sqlite_store
    if again == "another address":
        address = Path(shutil.copy(sqlite_store, tmp_path / "copy.db"))
    report = good(import_mlflow(workspace, str(address), verify=True))
    assert report.copied == Counts()
    assert (report.here.runs, report.here.logged_models, report.here.model_versions) == (7, 2, 3)
    assert size(workspace) == before
    with workspace.read() as connection:
        journal.verify(connection)


def test_a_killed_import_goes_on_and_doubles_nothing(
    sqlite_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        run_copy, "POINTS_AT_ONCE", 1000
    )  # so that one of the runs takes several transactions
    project = tmp_path / "project"
    Workspace.create(project, actor="tester").close()
    seen_unfinished = False
    for survived in itertools.count(1):
        child = multiprocessing.get_context("fork").Process(
            target=import_and_die, args=(project, sqlite_store, survived)
        )
        child.start()
        child.join()
        with Workspace.open(project, actor="tester") as opened:
            seen_unfinished |= unfinished(opened) > 0
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert survived > 2
    assert seen_unfinished
    with Workspace.open(project, actor="tester") as opened:
        assert unfinished(opened) == 0
        assert good(import_mlflow(opened, str(sqlite_store), verify=True)).verified == ALL
        found = size(opened)
    with Workspace.create(tmp_path / "undisturbed", actor="tester") as other:
        import_mlflow(other, str(sqlite_store))
        assert size(other)["points"] == found["points"]


def import_and_die(project: Path, store: Path, writes: int) -> None:
    """Import in this process, which is killed right after so many of its transactions."""
    with Workspace.open(project, actor="tester") as workspace:
        write, count = workspace.database.write, itertools.count(1)

        def counted(work: Callable[[Transaction], Any], *, actor: str) -> Any:
            answer = write(work, actor=actor)
            if next(count) == writes:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        workspace.database.write = counted  # type: ignore[method-assign]  # the hand that pulls the plug
        import_mlflow(workspace, str(store))


def test_a_run_that_is_not_whole_yet_cannot_be_taken_for_one(
    workspace: Workspace, sqlite_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_copy, "POINTS_AT_ONCE", 1000)
    monkeypatch.setattr(run_copy.RunCopy, "_write_some", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_mlflow(workspace, str(sqlite_store))
    tracking = Tracking(workspace)
    assert "rich" not in {run.name for run in tracking.search(["prices"]).runs}
    (half,) = [run for run in tracking.search(["prices"], lifecycle="deleted").runs if run.name == "rich"]
    assert UNFINISHED in tracking.tags(half.id)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_import_into_either_database(any_workspace: Workspace, sqlite_store: Path) -> None:
    assert good(import_mlflow(any_workspace, str(sqlite_store), verify=True)).verified == ALL
    made = Tracking(any_workspace).get_or_create_experiment("made here")
    assert made.id == 3, "ids go on from those that came in"
    with any_workspace.read() as connection:
        journal.verify(connection)


def stock(database: Path) -> MlflowClient:
    """MLflow's own store over a database."""
    return MlflowClient(f"sqlite:///{database}", f"sqlite:///{database}")


def folder(parent: Path, name: str) -> Path:
    """A new folder."""
    made = parent / name
    made.mkdir()
    return made


def size(workspace: Workspace) -> dict[str, object]:
    """What must not grow when nothing new is copied."""
    with workspace.read() as connection:
        points = connection.execute(select(func.sum(metric_chunks_table.c.points))).scalar_one()
        entries = connection.exec_driver_sql("SELECT count(*) FROM journal").scalar_one()
    return {"points": points, "entries": entries, "blobs": sorted(workspace.blobs.digests())}


def unfinished(workspace: Workspace) -> int:
    """Runs that are not whole."""
    with workspace.read() as connection:
        query = select(func.count()).where(run_tags_table.c.key == UNFINISHED)
        return int(connection.execute(query).scalar_one())


def _other_port(_taken: int) -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
