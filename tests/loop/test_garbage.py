"""What was deleted goes for good, what is pointed at stays, whoever else is at work."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, inspect, select

from trimtab.clock import FixedClock
from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.loop.garbage import collect_garbage
from trimtab.models.addresses import Place
from trimtab.models.contents import tree_at
from trimtab.models.registry import Registry
from trimtab.pipelines.schema import step_cache_table, step_runs_table
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.store.types import metadata
from trimtab.store.uploads import Uploads
from trimtab.store.vacuum import free_bytes, vacuum
from trimtab.tracking import artifacts as run_artifacts
from trimtab.tracking import experiments, logged_models
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

DAY = timedelta(days=1)


def pass_time(workspace: Workspace, time: timedelta) -> None:
    """Let event time go on, and all that lies in the stores of files be so much older."""
    assert isinstance(workspace.clock, FixedClock)
    workspace.clock.set(workspace.clock.now() + time)
    for folder in ("blobs", "uploads"):
        for path in (workspace.root / folder).rglob("*"):
            at = path.stat().st_mtime - time.total_seconds()
            os.utime(path, (at, at))


def kept_files(workspace: Workspace) -> set[bytes]:
    return {workspace.blobs.get(digest) for digest in workspace.blobs.digests()}


def a_run(workspace: Workspace, content: bytes, experiment: str = "made") -> str:
    tracking = Tracking(workspace)
    run = tracking.start_run(experiment)
    tracking.log_params(run.id, {"a": 1})
    tracking.set_tags(run.id, {"t": "x"})
    tracking.log_metrics(run.id, {"loss": 1.0, "accuracy": 0.5})
    tracking.log_artifact(run.id, content, "file")
    return run.id


def rows(workspace: Workspace) -> dict[str, int]:
    """How many rows each table has."""
    with workspace.read() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(metadata.tables[name])).scalar_one()
            for name in inspect(connection).get_table_names()
            if name in metadata.tables
        }


def test_a_deleted_run_goes_after_the_grace_and_nothing_of_it_stays(any_workspace: Workspace) -> None:
    workspace = any_workspace
    kept = a_run(workspace, b"kept")
    before = rows(workspace)
    gone = a_run(workspace, b"gone")
    shared = a_run(workspace, b"kept")
    tracking = Tracking(workspace)
    tracking.delete_run(gone)
    tracking.delete_run(shared)
    pass_time(workspace, 29 * DAY)
    assert collect_garbage(workspace).runs == 0
    pass_time(workspace, 2 * DAY)
    collected = collect_garbage(workspace)
    assert (collected.runs, collected.blobs, collected.bytes) == (2, 1, 4)
    for run in (gone, shared):
        with pytest.raises(NotFoundError):
            tracking.get_run(run)
    assert tracking.load_artifact(kept, "file") == b"kept"
    assert kept_files(workspace) == {b"kept"}
    after = rows(workspace)
    told = {"journal", "metric_writers"}
    assert {name: count for name, count in after.items() if name not in told} == {
        name: count for name, count in before.items() if name not in told
    }
    assert collect_garbage(workspace).runs == collect_garbage(workspace).blobs == 0


def test_a_dry_run_says_what_would_go_and_deletes_nothing(any_workspace: Workspace) -> None:
    workspace = any_workspace
    Tracking(workspace).delete_run(a_run(workspace, b"gone"))
    with workspace.blobs.draft() as draft:
        draft.write(b"unfinished")
    pass_time(workspace, 31 * DAY)
    before = rows(workspace)
    planned = collect_garbage(workspace, dry_run=True)
    assert (planned.runs, planned.blobs, planned.bytes, planned.dry_run) == (1, 1, 4, True)
    assert rows(workspace) == before
    assert kept_files(workspace) == {b"gone"}
    done = collect_garbage(workspace)
    assert (done.runs, done.blobs, done.bytes, done.dry_run) == (1, 1, 4, False)


def test_a_run_that_was_restored_stays(workspace: Workspace) -> None:
    run = a_run(workspace, b"content")
    tracking = Tracking(workspace)
    tracking.delete_run(run)
    pass_time(workspace, 31 * DAY)
    tracking.restore_run(run)
    assert collect_garbage(workspace).runs == 0
    assert tracking.load_artifact(run, "file") == b"content"


def test_a_deleted_experiment_takes_its_runs_and_models_along(any_workspace: Workspace) -> None:
    workspace = any_workspace
    run = a_run(workspace, b"of a run")
    experiment = Tracking(workspace).get_run(run).experiment_id
    content = workspace.blobs.put(b"of a model")

    def log_model(tx: Transaction) -> None:
        model = logged_models.create(tx, experiment, name="m", params={"p": "1"}, tags={"t": "1"})
        shelf = logged_models.shelf(tx.connection, model)
        run_artifacts.record_on(tx, shelf, {"MLmodel": (content, 10)})

    workspace.write(log_model)
    Tracking(workspace).delete_experiment("made")
    pass_time(workspace, 31 * DAY)
    collected = collect_garbage(workspace)
    assert (collected.runs, collected.experiments, collected.logged_models) == (1, 1, 1)
    assert kept_files(workspace) == set()
    assert Tracking(workspace).get_or_create_experiment("made").id != experiment


def test_the_default_experiment_keeps_its_row(workspace: Workspace) -> None:
    workspace.write(experiments.make_default)
    name = Tracking(workspace).experiments()[0].name
    Tracking(workspace).delete_run(a_run(workspace, b"gone", name))
    Tracking(workspace).delete_experiment(name)
    pass_time(workspace, 31 * DAY)
    collected = collect_garbage(workspace)
    assert (collected.runs, collected.experiments) == (1, 0)
    assert [each.id for each in Tracking(workspace).experiments(lifecycle=None)] == [0]


def test_the_content_of_a_version_stays_as_long_as_the_version(
    any_workspace: Workspace, tmp_path: Path
) -> None:
    workspace = any_workspace
    registry = Registry(workspace)
    workspace.write(lambda tx: registry.create_model(tx, "bikes"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text(name)
        (tmp_path / name / "shared").write_text("shared")
        digest = workspace.blobs.put_tree(tmp_path / name)
        workspace.write(lambda tx, digest=digest: registry.register(tx, "bikes", digest))  # type: ignore[misc]
    pass_time(workspace, 31 * DAY)
    assert collect_garbage(workspace).blobs == 0
    workspace.write(lambda tx: registry.delete_version(tx, "bikes", 1))
    pass_time(workspace, 31 * DAY)
    assert collect_garbage(workspace).blobs == 2  # the manifest, and the file that only it has
    workspace.blobs.fetch_tree(digest, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "shared").read_text() == "shared"
    assert b"one" not in kept_files(workspace)


def test_what_steps_returned_stays_as_long_as_a_run_that_has_it(workspace: Workspace) -> None:
    made, used = a_run(workspace, b"made"), a_run(workspace, b"used")
    digest = workspace.blobs.put(b"output")
    at = workspace.clock.now()

    def step(run: str) -> dict[str, object]:
        return {
            "run_id": run, "node": "a", "step": "a", "position": 0, "status": "finished", "attempts": 1,
            "cache_key": "key", "inputs": {}, "output": {"type": "leaf", "digest": digest}, "started_at": at,
            "error": "",
        }  # fmt: skip

    cached = {
        "cache_key": "key", "step": "a", "output": {"type": "leaf", "digest": digest}, "seconds": 1.0,
        "run_id": made, "created_at": at,
    }  # fmt: skip

    def work(tx: Transaction) -> None:
        tx.execute(step_runs_table.insert(), [step(made), step(used)])
        tx.execute(step_cache_table.insert(), [cached])

    workspace.write(work)
    Tracking(workspace).delete_run(made)
    pass_time(workspace, 31 * DAY)
    collect_garbage(workspace)
    assert kept_files(workspace) == {b"output", b"used"}
    Tracking(workspace).delete_run(used)
    pass_time(workspace, 31 * DAY)
    assert collect_garbage(workspace, dry_run=True).blobs == 2
    assert collect_garbage(workspace).blobs == 2
    counts = rows(workspace)
    assert counts["step_runs"] == counts["step_cache"] == 0


def test_any_text_that_names_a_blob_keeps_it(workspace: Workspace) -> None:
    digest = workspace.blobs.put(b"named")
    run = a_run(workspace, b"file")
    Tracking(workspace).set_tags(run, {"snapshot": f"made from {digest}"})
    pass_time(workspace, 31 * DAY)
    collect_garbage(workspace)
    assert workspace.blobs.exists(digest)


def test_the_journal_keeps_no_content_and_tells_what_went(workspace: Workspace) -> None:
    digest = workspace.blobs.put(b"told of")
    workspace.write(lambda tx: tx.journal("thing.made", "thing", "it", details={"digest": digest}))
    Tracking(workspace).delete_run(a_run(workspace, b"gone"))
    pass_time(workspace, 31 * DAY)
    collect_garbage(workspace)
    assert kept_files(workspace) == set()
    with workspace.read() as connection:
        (entry,) = journal.entries(connection, action="garbage.collected")
        journal.verify(connection)
    assert (entry.details["runs"], entry.details["blobs"]) == (1, 2)
    collect_garbage(workspace)
    with workspace.read() as connection:
        assert len(list(journal.entries(connection, action="garbage.collected"))) == 1


def test_a_young_blob_stays_whatever_the_grace(workspace: Workspace) -> None:
    workspace.blobs.put(b"young")
    assert collect_garbage(workspace, older_than=timedelta(0)).blobs == 0
    pass_time(workspace, DAY / 2)
    assert collect_garbage(workspace, older_than=timedelta(0)).blobs == 0
    pass_time(workspace, DAY)
    assert collect_garbage(workspace, older_than=timedelta(0)).blobs == 1


def test_a_tree_that_is_about_to_be_a_version_keeps_its_old_files(workspace: Workspace) -> None:
    run = a_run(workspace, b"weights")
    Tracking(workspace).log_artifact(run, b"flavors", "model/MLmodel")
    pass_time(workspace, 31 * DAY)
    tree = tree_at(workspace, Place("runs", run))
    assert tree is not None
    Tracking(workspace).delete_run(run)
    workspace.clock.set(workspace.clock.now() + DAY)  # type: ignore[attr-defined]
    collected = collect_garbage(workspace, older_than=timedelta(0))
    assert (collected.runs, collected.blobs) == (1, 0)
    registry = Registry(workspace)
    workspace.write(lambda tx: registry.create_model(tx, "bikes"))
    workspace.write(lambda tx: registry.register(tx, "bikes", tree))
    assert {b"weights", b"flavors"} < kept_files(workspace)


def test_unfinished_uploads_go(workspace: Workspace) -> None:
    uploads = Uploads(workspace.uploads)
    with uploads.part(uploads.create("0/x", 2), 1) as draft:
        draft.write(b"x" * 1000)
        draft.keep()
    assert collect_garbage(workspace).uploads == 0
    pass_time(workspace, 31 * DAY)
    collected = collect_garbage(workspace)
    assert (collected.uploads, collected.bytes > 1000) == (1, True)
    assert list(workspace.uploads.iterdir()) == []


def test_a_negative_grace_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InvalidInputError):
        collect_garbage(workspace, older_than=timedelta(seconds=-1))


COLLECT = """
import sys
from datetime import timedelta
from pathlib import Path
from trimtab.clock import FixedClock
from trimtab.loop.garbage import collect_garbage
from trimtab.workspace import Workspace
from datetime import datetime
with Workspace.open(Path(sys.argv[1]), clock=FixedClock(datetime.fromisoformat(sys.argv[2]))) as workspace:
    print("open", flush=True)
    collect_garbage(workspace)
    print("done", flush=True)
"""


@pytest.mark.parametrize("moments", [0.0, 0.05, 0.15])
def test_a_collector_that_is_killed_leaves_nothing_broken(workspace: Workspace, moments: float) -> None:
    kept = [a_run(workspace, b"kept %d" % number) for number in range(3)]
    tracking = Tracking(workspace)
    for number in range(60):
        tracking.delete_run(a_run(workspace, b"gone %d" % number))
    pass_time(workspace, 31 * DAY)
    command = [sys.executable, "-c", COLLECT, str(workspace.project), workspace.clock.now().isoformat()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        time.sleep(moments)
        process.send_signal(signal.SIGKILL)
    for run in kept:
        tracking.metric_history(run, "loss")
        assert tracking.load_artifact(run, "file").startswith(b"kept")
    collect_garbage(workspace)
    assert kept_files(workspace) == {b"kept %d" % number for number in range(3)}
    counts = rows(workspace)
    assert (counts["runs"], counts["artifacts"], counts["params"], counts["latest_metrics"]) == (3, 3, 3, 6)
    with workspace.read() as connection:
        journal.verify(connection)


@contextlib.contextmanager
def collecting(workspace: Workspace) -> Iterator[None]:
    """Collect garbage in a thread, again and again."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def collect() -> None:
        while not ended.is_set():
            try:
                collect_garbage(workspace, older_than=timedelta(0))
            except BaseException as error:  # noqa: BLE001  (raised again in the test)
                failures.append(error)
                return

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert failures == []


def test_content_that_comes_again_while_it_is_collected_is_not_lost(workspace: Workspace) -> None:
    tracking = Tracking(workspace)
    deleted = a_run(workspace, b"content 0")
    for number in range(1, 20):
        tracking.log_artifact(deleted, b"content %d" % number, f"{number}")
    tracking.delete_run(deleted)
    pass_time(workspace, 2 * DAY)
    run = tracking.start_run("again")
    with collecting(workspace):
        for number in range(20):
            tracking.log_artifact(run.id, b"content %d" % number, f"{number}")
            time.sleep(0.005)
    for number in range(20):
        assert tracking.load_artifact(run.id, f"{number}") == b"content %d" % number


def test_the_file_gets_smaller_when_it_is_rewritten(workspace: Workspace) -> None:
    tracking = Tracking(workspace)
    run = tracking.start_run("large")
    tracking.set_tags(run.id, {f"t{number}": "x" * 4000 for number in range(500)})
    tracking.delete_run(run.id)
    pass_time(workspace, 31 * DAY)
    collected = collect_garbage(workspace)
    assert collected.database_bytes == free_bytes(workspace.database) > 10**6
    assert vacuum(workspace.database) > 10**6
    assert free_bytes(workspace.database) == 0
    assert tracking.start_run("large").id
