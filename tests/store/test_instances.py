"""Who is alive, and what each has acknowledged."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from trimtab.store import journal
from trimtab.store.instances import LIVE_SECONDS
from trimtab.store.schema import instances_table
from trimtab.workspace import Workspace


def test_a_heartbeat_says_who_where_and_what_was_acknowledged(any_workspace: Workspace) -> None:
    due = datetime(2011, 9, 1, 3, tzinfo=UTC)
    any_workspace.instances.beat("g1", "gateway", address="127.0.0.1:8601", detail={"routes": {"bikes": 4}})
    any_workspace.instances.beat("c1", "controller", acknowledged=7, next_due=due)
    any_workspace.instances.beat("c1", "controller", acknowledged=8)
    (gateway,) = any_workspace.instances.live("gateway")
    assert (gateway.id, gateway.address, gateway.detail) == ("g1", "127.0.0.1:8601", {"routes": {"bikes": 4}})
    (controller,) = any_workspace.instances.live("controller")
    assert (controller.acknowledged, controller.next_due) == (8, None)
    assert [one.id for one in any_workspace.instances.live()] == ["c1", "g1"]


def test_who_left_or_fell_silent_is_not_alive(any_workspace: Workspace) -> None:
    any_workspace.instances.beat("left", "worker")
    any_workspace.instances.beat("silent", "worker")
    any_workspace.instances.beat("here", "worker")
    any_workspace.instances.leave("left")
    long_ago = datetime.now(UTC) - timedelta(seconds=LIVE_SECONDS + 1)
    silent = update(instances_table).where(instances_table.c.id == "silent").values(heartbeat_at=long_ago)
    any_workspace.write(lambda tx: tx.execute(silent))
    assert [one.id for one in any_workspace.instances.live("worker")] == ["here"]


def test_a_process_of_this_machine_that_was_killed_is_not_alive(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr("os.getpid", lambda: process.pid)
    workspace.instances.beat("w1", "worker")
    assert [one.pid for one in workspace.instances.live("worker")] == [process.pid]
    process.kill()
    process.communicate()
    assert workspace.instances.live("worker") == []


def test_heartbeats_are_no_journal_entries(any_workspace: Workspace) -> None:
    any_workspace.instances.beat("w1", "worker")
    with any_workspace.read() as connection:
        assert list(journal.entries(connection)) == []
