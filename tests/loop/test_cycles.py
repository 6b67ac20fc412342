from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from trimtab.errors import ConflictError, NotFoundError
from trimtab.loop.cycle import ARROWS, Cycle, State
from trimtab.loop.cycles import (
    active_cycle,
    active_cycles,
    amend_cycle,
    create_cycle,
    get_cycle,
    list_cycles,
    move_cycle,
    moves_of,
    spent,
)
from trimtab.loop.machine import Move
from trimtab.loop.schema import cycles_table, loops_table
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace


def begin(workspace: Workspace, loop: str = "bikes") -> Cycle:
    def work(tx: Transaction) -> Cycle:
        return create_cycle(
            tx,
            loop=loop,
            declaration=1,
            state=State.TRIGGERED,
            trigger="manual",
            reason="because",
            baseline=None,
            params={"rate": 0.1},
            evidence={"asked": True},
        )

    return workspace.write(work)


def take(workspace: Workspace, cycle: Cycle, to: State, **changes: object) -> Cycle:
    move = Move(to=to, reason=f"to {to.value}", evidence={"number": 1.5})
    return workspace.write(lambda tx: move_cycle(tx, cycle, move, **changes))


@pytest.fixture
def looped(any_workspace: Workspace) -> Workspace:
    """A workspace with the bare row of a loop."""

    def work(tx: Transaction) -> None:
        row = {"name": "bikes", "version": 1, "mode": "auto", "paused": 0}
        tx.execute(insert(loops_table).values(**row, created_at=tx.at, watched_at=tx.at))

    any_workspace.write(work)
    return any_workspace


def test_a_cycle_is_read_as_it_was_written(looped: Workspace) -> None:
    cycle = begin(looped)
    assert cycle.id == "bikes-1"
    with looped.read() as connection:
        assert active_cycle(connection, "bikes") == cycle == get_cycle(connection, "bikes-1")
        assert active_cycles(connection) == {"bikes": cycle}


def test_a_loop_has_one_unfinished_cycle_at_a_time(looped: Workspace) -> None:
    first = begin(looped)
    with pytest.raises(ConflictError, match="bikes-1"):
        begin(looped)
    take(looped, first, State.SUPERSEDED)
    second = begin(looped)
    assert second.number == 2
    with pytest.raises(IntegrityError):  # the store itself refuses it too
        looped.write(lambda tx: tx.execute(update(cycles_table).values(active="bikes")))


def test_a_move_is_journaled_with_its_evidence(looped: Workspace) -> None:
    cycle = take(looped, begin(looped), State.TRAINING, rows=7)
    assert (cycle.state, cycle.rows, cycle.moves) == (State.TRAINING, 7, 2)
    with looped.read() as connection:
        moves = moves_of(connection, cycle.id)
        entries = list(journal.entries(connection, kind="cycle"))
    assert [(move.from_state, move.to_state, move.actor) for move in moves] == [
        ("", "triggered", "tester"),
        ("triggered", "training", "tester"),
    ]
    assert moves[1].evidence == {"number": 1.5}
    assert [entry.action for entry in entries] == ["cycle.started", "cycle.moved"]
    assert entries[1].details["evidence"] == {"number": 1.5}


def test_a_stale_picture_of_a_cycle_moves_nothing(looped: Workspace) -> None:
    stale = begin(looped)
    take(looped, stale, State.TRAINING)
    with pytest.raises(ConflictError, match="moved meanwhile"):
        take(looped, stale, State.TRAINING)
    with pytest.raises(ConflictError, match="moved meanwhile"):
        looped.write(lambda tx: amend_cycle(tx, stale, stage=3))
    with looped.read() as connection:
        assert len(moves_of(connection, stale.id)) == 2


def test_of_two_that_begin_at_once_one_is_refused(looped: Workspace) -> None:
    with ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(begin, looped) for _ in range(8)]
    failures = [each.exception() for each in tries]
    assert failures.count(None) == 1
    assert all(failure is None or isinstance(failure, ConflictError) for failure in failures)


def test_an_arrow_that_does_not_exist_is_not_taken(looped: Workspace) -> None:
    cycle = begin(looped)
    for state in set(State) - ARROWS[State.TRIGGERED]:
        with pytest.raises(ConflictError, match="cannot go"):
            take(looped, cycle, state)


def test_a_final_state_frees_the_loop_and_starts_the_cooldown(looped: Workspace) -> None:
    cycle = begin(looped)
    with looped.read() as connection:
        assert spent(connection, "bikes", looped.clock.now()).active == cycle.id
    looped.clock.set(looped.clock.now() + timedelta(hours=2))  # type: ignore[attr-defined]
    ended = take(looped, cycle, State.FAILED)
    with looped.read() as connection:
        used = spent(connection, "bikes", looped.clock.now())
        assert active_cycle(connection, "bikes") is None
        assert list_cycles(connection, "bikes") == [ended]
    assert used.last_end == ended.finished_at == looped.clock.now()
    assert used.started == (cycle.triggered_at,)


def test_an_unknown_cycle_is_named(looped: Workspace) -> None:
    with looped.read() as connection, pytest.raises(NotFoundError, match="bikes-9"):
        get_cycle(connection, "bikes-9")


def test_what_a_cycle_holds_survives_the_store(looped: Workspace) -> None:
    cycle = begin(looped)
    at = cycle.triggered_at + timedelta(days=1)
    changes = {
        "stage": 2,
        "stage_since": at,
        "look_at": at,
        "datasets": {"rentals": 4},
        "measure": {"pairs": 3},
    }
    amended = looped.write(lambda tx: amend_cycle(tx, cycle, **changes))
    with looped.read() as connection:
        assert get_cycle(connection, cycle.id) == amended == msgspec.structs.replace(cycle, **changes)
