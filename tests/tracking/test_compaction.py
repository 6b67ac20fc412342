"""A history that was logged point by point is kept and read like one that was logged in batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.conftest import START

from trimtab.errors import StorageFullError
from trimtab.store.database import Database, Transaction
from trimtab.tracking import compaction
from trimtab.tracking.metrics import MetricWriter, Point, batch_of
from trimtab.tracking.schema import metric_chunks_table as chunks
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "CHUNKS", 16)


def log(writer: MetricWriter, run: str, step: int, *keys: str) -> None:
    at = START + timedelta(seconds=step)
    batch = batch_of(Point(key, step / 7, step, at) for key in keys or ("loss",))
    writer.write(run, batch, step, actor="tester")


def chunk_count(workspace: Workspace) -> int:
    with workspace.read() as connection:
        return int(connection.execute(select(func.count()).select_from(chunks)).scalar_one())


def steps(workspace: Workspace, run: str, key: str = "loss") -> list[int]:
    return [int(step) for step in Tracking(workspace).metric_history(run, key).steps]


def test_small_chunks_are_merged_and_no_point_is_lost(any_workspace: Workspace) -> None:
    run = Tracking(any_workspace).start_run("bikes").id
    writer = MetricWriter(any_workspace.database)
    for step in range(100):
        log(writer, run, step)
    assert chunk_count(any_workspace) < 6 + 16
    assert steps(any_workspace, run) == list(range(100))
    history = Tracking(any_workspace).metric_history(run, "loss", first_step=40, last_step=42)
    assert history.values.tolist() == [40 / 7, 41 / 7, 42 / 7]


def test_a_batch_that_is_sent_again_after_it_was_merged_counts_once(any_workspace: Workspace) -> None:
    run = Tracking(any_workspace).start_run("bikes").id
    writer = MetricWriter(any_workspace.database)
    for step in range(40):
        log(writer, run, step)
    for step in (0, 15, 39):
        log(writer, run, step)
    assert steps(any_workspace, run) == list(range(40))


def test_large_chunks_are_left_alone(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes").id
    writer = MetricWriter(workspace.database)
    for sequence in range(40):
        points = [Point("loss", 0.5, sequence * 100 + step, START) for step in range(compaction.SMALL)]
        writer.write(run, batch_of(points), sequence, actor="tester")
    assert chunk_count(workspace) == 40


def test_keys_that_are_logged_together_are_merged_one_by_one(workspace: Workspace) -> None:
    run = Tracking(workspace).start_run("bikes").id
    keys = [f"key-{number}" for number in range(16)]
    writer = MetricWriter(workspace.database)
    log(writer, run, 0, *keys)
    before = chunk_count(workspace)
    merged = []
    for step in range(1, 33):
        log(writer, run, step, *keys)
        after = chunk_count(workspace)
        merged.append(before + 16 - after)
        before = after
    assert max(merged) < 32  # two keys' worth; all keys at once would be 240
    assert all(steps(workspace, run, key) == list(range(33)) for key in keys)


def test_several_threads_that_log_and_merge_lose_nothing(any_workspace: Workspace) -> None:
    run = Tracking(any_workspace).start_run("bikes").id
    writer = MetricWriter(any_workspace.database)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda step: log(writer, run, step), range(200)))
    assert steps(any_workspace, run) == list(range(200))


def test_a_merge_that_fails_fails_no_write(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    run = Tracking(workspace).start_run("bikes").id
    writer = MetricWriter(workspace.database)

    def full(*_: Any, **__: Any) -> None:
        raise StorageFullError("full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "merge", full)
        for step in range(40):
            log(writer, run, step)
    assert "stay as they are" in caplog.text
    assert steps(workspace, run) == list(range(40))


def test_a_merge_is_all_or_nothing(any_workspace: Workspace) -> None:
    """What kills the process between the statements of a merge leaves the small chunks."""
    run = Tracking(any_workspace).start_run("bikes").id
    database: Database = any_workspace.database
    writer = MetricWriter(database)
    for step in range(10):
        log(writer, run, step)
    with any_workspace.read() as connection:
        row = connection.execute(select(chunks.c.run, chunks.c.key, chunks.c.writer)).first()
    assert row is not None

    def killed(tx: Transaction) -> None:
        compaction.merge(tx, row.run, row.key, row.writer, 0, 9)
        raise KeyboardInterrupt

    before = chunk_count(any_workspace)
    with pytest.raises(KeyboardInterrupt):
        any_workspace.write(killed)
    assert chunk_count(any_workspace) == before
    any_workspace.write(lambda tx: compaction.merge(tx, row.run, row.key, row.writer, 0, 9))
    assert chunk_count(any_workspace) < before
    assert steps(any_workspace, run) == list(range(10))
