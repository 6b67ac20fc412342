"""Event time of a replay moves forward only, for everybody at once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trimtab.clock import SystemClock
from trimtab.errors import ClockWentBackError, ConflictError, InvalidInputError
from trimtab.store import journal
from trimtab.store.replay import ReplayState, advance_replay, end_replay, read_replay, start_replay
from trimtab.workspace import Workspace

START = datetime(2011, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def state(workspace: Workspace) -> ReplayState | None:
    with workspace.read() as connection:
        return read_replay(connection)


def test_each_move_is_a_new_generation(any_workspace: Workspace) -> None:
    assert state(any_workspace) is None
    assert any_workspace.write(lambda tx: start_replay(tx, START)) == 1
    assert any_workspace.write(lambda tx: advance_replay(tx, START + HOUR)) == 2
    assert any_workspace.write(lambda tx: advance_replay(tx, START + HOUR)) == 3
    assert state(any_workspace) == ReplayState(START + HOUR, 3, ended=False)


def test_time_that_would_go_back_is_refused_and_stays(any_workspace: Workspace) -> None:
    any_workspace.write(lambda tx: start_replay(tx, START))
    with pytest.raises(ClockWentBackError, match="2011-01-01"):
        any_workspace.write(lambda tx: advance_replay(tx, START - HOUR))
    assert state(any_workspace) == ReplayState(START, 1, ended=False)


def test_a_time_without_a_zone_is_refused(any_workspace: Workspace) -> None:
    with pytest.raises(InvalidInputError, match="time zone"):
        any_workspace.write(lambda tx: start_replay(tx, datetime(2011, 1, 1)))  # noqa: DTZ001  (the point)
    any_workspace.write(lambda tx: start_replay(tx, START))
    with pytest.raises(InvalidInputError, match="time zone"):
        any_workspace.write(lambda tx: advance_replay(tx, datetime(2012, 1, 1)))  # noqa: DTZ001  (the point)


def test_a_workspace_is_replayed_once(any_workspace: Workspace) -> None:
    with pytest.raises(ConflictError, match="not in replay"):
        any_workspace.write(lambda tx: advance_replay(tx, START))
    any_workspace.write(lambda tx: start_replay(tx, START))
    with pytest.raises(ConflictError, match="already in replay"):
        any_workspace.write(lambda tx: start_replay(tx, START))
    any_workspace.write(end_replay)
    for move in (end_replay, lambda tx: advance_replay(tx, START + HOUR), lambda tx: start_replay(tx, START)):
        with pytest.raises(ConflictError):
            any_workspace.write(move)
    assert state(any_workspace) == ReplayState(START, 1, ended=True)


def test_a_workspace_in_replay_lives_in_its_event_time_and_others_in_the_systems(tmp_path: Path) -> None:
    with Workspace.create(tmp_path, actor="driver") as driver:
        assert abs(driver.clock.now() - SystemClock().now()) < timedelta(minutes=5)
        driver.write(lambda tx: start_replay(tx, START))
        with Workspace.open(tmp_path, actor="role") as role:
            assert role.clock.now() == START
            driver.write(lambda tx: advance_replay(tx, START + HOUR))
            assert role.clock.now() == START, "one pass of a role sees one time"
            assert role.clock.refresh() == START + HOUR
            role.write(lambda tx: tx.journal("thing.put", "thing", "a"))
            with role.read() as connection:
                assert [entry.at for entry in journal.entries(connection, action="thing.put")] == [
                    START + HOUR
                ]
