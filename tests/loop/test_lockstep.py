from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from tests.loop.roles import DAY, HOUR, NAME, START, World, world

from trimtab.errors import ClockWentBackError, ConflictError, UnavailableError
from trimtab.loop.cycle import State
from trimtab.loop.replay import NEVER, Replay
from trimtab.monitoring.alerts import Alerts
from trimtab.monitoring.outcomes import Outcomes
from trimtab.store import journal
from trimtab.workspace import Workspace

TOLD = {"cycle", "loop", "alert", "model", "endpoint", "dataset"}


@contextmanager
def slowed(process: psutil.Process) -> Iterator[None]:
    """Stop and continue a process all the time, as on a machine that has little time for it."""
    done = threading.Event()

    def hamper() -> None:
        while not done.is_set():
            process.suspend()
            done.wait(0.06)
            process.resume()
            done.wait(0.04)

    thread = threading.Thread(target=hamper)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def controller_killed_in_training(replayed: World) -> Iterator[list[str]]:
    """Once the second cycle trains, its controller is gone; another one is started."""
    killed: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            active = replayed.loops.active_cycle(NAME)
            if active is not None and active.number == 2 and active.state is State.TRAINING:
                replayed.kill("controller")
                killed.append(active.id)
                replayed.start("controller")
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


def story(replayed: World) -> list[object]:
    """All decisions with their event times, reasons and numbers."""
    with replayed.workspace.read() as connection:
        journal.verify(connection)
        entries = [
            (entry.at, entry.actor, entry.action, entry.name, entry.reason)
            for entry in journal.entries(connection)
            if entry.kind in TOLD
        ]
    cycles = replayed.loops.cycles(NAME)
    moves = [(m.to_state, m.reason) for c in cycles for m in replayed.loops.why(NAME, c.id).moves]
    return [*entries, *moves, *[(cycle.digest, cycle.datasets, cycle.measure) for cycle in cycles]]


@pytest.mark.timeout(600)
def test_a_slow_machine_whose_controller_is_killed_tells_the_same_story(tmp_path: Path) -> None:
    with world(tmp_path / "fast") as replayed:
        replayed.live(1, 1.0)
        replayed.live(5, 1.8)
        expected = story(replayed)
        states = [cycle.state for cycle in replayed.loops.cycles(NAME)]
        assert State.PROMOTED in states[:1]
        joined = Outcomes(replayed.workspace).joined(NAME, START, START + 30 * DAY)
        assert len(joined) == replayed.requests == 6 * 24
        assert joined.labelled.all()
        found = {(finding.monitor, finding.status) for finding in Alerts(replayed.workspace).findings(NAME)}
        assert {("log bias", "alert"), ("drift", "ok"), ("performance loop:log_error", "ok")} <= found
    with world(tmp_path / "slow") as replayed:
        worker = psutil.Process(replayed.processes["worker"].pid)
        with slowed(worker), controller_killed_in_training(replayed) as killed:
            replayed.live(1, 1.0)
            replayed.live(5, 1.8)
        assert killed == [f"{NAME}-2"]
        assert story(replayed) == expected
        replayed.stop()
        assert replayed.processes["controller"].returncode == 0
        assert not replayed.workspace.instances.live("controller")


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace in replay, without any role."""
    with Workspace.create(tmp_path / "project", actor="driver") as workspace:
        Replay(workspace).start(START)
        yield workspace


def test_an_advance_says_who_is_late(still: Workspace) -> None:
    replay = Replay(still)
    assert replay.next_due == NEVER
    with pytest.raises(UnavailableError, match="no controller runs"):
        replay.advance(START + HOUR, timeout=0.05)
    still.instances.beat("shipper-1", "shipper", acknowledged=1)
    with pytest.raises(UnavailableError, match="shipper-1"):
        replay.advance(START + HOUR, timeout=0.05)
    still.instances.beat("shipper-1", "shipper", acknowledged=100)
    still.instances.beat("controller-1", "controller", detail={"failures": {"bikes": "RuntimeError: boom"}})
    with pytest.raises(UnavailableError, match="'bikes' cannot be moved on: RuntimeError: boom"):
        replay.advance(START + HOUR, timeout=0.05)


def test_event_time_does_not_go_back(still: Workspace) -> None:
    replay = Replay(still)
    still.instances.beat("controller-1", "controller", acknowledged=100, next_due=START + DAY)
    replay.advance(START + HOUR)
    assert replay.next_due == START + DAY
    with pytest.raises(ClockWentBackError):
        replay.advance(START)
    replay.advance(START + HOUR)
    assert still.clock.now() == START + HOUR


def test_a_replay_that_ended_stands_still(still: Workspace) -> None:
    replay = Replay(still)
    replay.end()
    with pytest.raises(ConflictError):
        replay.advance(START + timedelta(days=1))


def test_a_gateway_without_its_shipper_holds_the_replay(still: Workspace) -> None:
    still.instances.beat("gateway-1", "gateway", detail={"routes": {}})
    with pytest.raises(UnavailableError, match="gateway-1"):
        Replay(still).advance(START + HOUR, timeout=0.05)
