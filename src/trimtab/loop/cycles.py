"""Cycles in the store: every change of one is an arrow that the machine knows, recorded with its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, case, func, insert, select, update

from trimtab.errors import ConflictError, NotFoundError
from trimtab.loop.budget import Spent
from trimtab.loop.cycle import ARROWS, Cycle, Moved, State
from trimtab.loop.machine import Move
from trimtab.loop.schema import cycle_moves_table, cycles_table, loops_table
from trimtab.store.database import Transaction

_FIELDS = tuple(field for field in Cycle.__struct_fields__)
_COLUMNS = [cycles_table.c[field] for field in _FIELDS]


def active_cycle(connection: Connection, loop: str) -> Cycle | None:
    """The loop's unfinished cycle; there is never more than one."""
    found = _select(connection, cycles_table.c.active == loop)
    return found[0] if found else None


def active_cycles(connection: Connection) -> dict[str, Cycle]:
    """The unfinished cycle of each loop that has one."""
    return {cycle.loop: cycle for cycle in _select(connection, cycles_table.c.active.is_not(None))}


def get_cycle(connection: Connection, cycle_id: str) -> Cycle:
    """The cycle of this id; raises NotFoundError."""
    found = _select(connection, cycles_table.c.id == cycle_id)
    if not found:
        raise NotFoundError(
            f"There is no cycle '{cycle_id}'.", hint="List them with: trimtab loop cycles NAME"
        )
    return found[0]


def list_cycles(connection: Connection, loop: str, *, limit: int = 1000) -> list[Cycle]:
    """The loop's cycles, newest first."""
    return _select(connection, cycles_table.c.loop == loop, limit=limit)


def moves_of(connection: Connection, cycle_id: str) -> list[Moved]:
    """Every arrow that the cycle took, in order."""
    query = (
        select(cycle_moves_table)
        .where(cycle_moves_table.c.cycle == cycle_id)
        .order_by(cycle_moves_table.c.sequence)
    )
    return [Moved(**row) for row in connection.execute(query).mappings()]


def endings(connection: Connection, loop: str) -> dict[str, str]:
    """The reason of the last arrow that each of the loop's cycles took, by the cycle's id."""
    moves, cycles = cycle_moves_table.c, cycles_table.c
    query = (
        select(moves.cycle, moves.reason)
        .join(cycles_table, moves.cycle == cycles.id)
        .where(cycles.loop == loop)
        .order_by(moves.cycle, moves.sequence)
    )
    return {row.cycle: row.reason for row in connection.execute(query)}


def spent(connection: Connection, loop: str, at: datetime) -> Spent:
    """What the loop has used of its budget by `at`."""
    table = cycles_table.c
    started = connection.execute(
        select(table.triggered_at).where(table.loop == loop, table.triggered_at > at - timedelta(days=1))
    ).scalars()
    first = table.baseline.is_(None) & (table.state == State.PROMOTED.value)
    ends = select(
        func.max(table.finished_at),
        func.max(case((table.state == State.PROMOTED.value, table.finished_at))),
    ).where(table.loop == loop, ~first)
    last_end, last_promotion = connection.execute(ends).one()
    active = connection.execute(select(table.id).where(table.active == loop)).scalar()
    return Spent(active=active, started=tuple(started), last_end=last_end, last_promotion=last_promotion)


def last_given(connection: Connection, loop: str) -> int | None:
    """How many rows the last cycle that got to train was given; None if none did."""
    table = cycles_table.c
    query = select(table.rows).where(table.loop == loop, table.as_of.is_not(None))
    return connection.execute(query.order_by(table.number.desc()).limit(1)).scalar()


def create_cycle(
    tx: Transaction,
    *,
    loop: str,
    declaration: int,
    state: State,
    trigger: str,
    reason: str,
    baseline: int | None,
    params: dict[str, object],
    evidence: object,
) -> Cycle:
    """Begin a cycle; raises ConflictError if the loop has an unfinished one."""
    # Whoever begins a cycle of this loop at the same time waits here, and then sees this one.
    tx.execute(select(loops_table.c.name).where(loops_table.c.name == loop).with_for_update())
    standing = active_cycle(tx.connection, loop)
    if standing is not None:
        raise ConflictError(
            f"The cycle '{standing.id}' of the loop '{loop}' is not finished: it is {standing.state.value}.",
            hint=f"Wait for it, or end it with: trimtab loop cancel {loop}",
        )
    number = 1 + (
        tx.execute(select(func.max(cycles_table.c.number)).where(cycles_table.c.loop == loop)).scalar() or 0
    )
    cycle = Cycle(
        id=f"{loop}-{number}",
        loop=loop,
        number=number,
        declaration=declaration,
        state=state,
        trigger=trigger,
        reason=reason,
        actor=tx.actor,
        baseline=baseline,
        params=params,
        triggered_at=tx.at,
        moved_at=tx.at,
        moves=1,
    )
    tx.execute(insert(cycles_table).values(**_row(cycle), active=loop))
    _record(tx, cycle, "", reason, evidence)
    return cycle


def move_cycle(tx: Transaction, cycle: Cycle, move: Move, **changes: object) -> Cycle:
    """Take an arrow, with `changes` to the cycle's other fields.

    Raises ConflictError if the cycle has moved since it was read, or if there is no such arrow: the
    caller's picture was stale, nothing is changed, and it should look again.
    """
    if move.to not in ARROWS[cycle.state]:
        raise ConflictError(f"The cycle '{cycle.id}' cannot go from {cycle.state.value} to {move.to.value}.")
    moved = msgspec.structs.replace(
        cycle,
        state=move.to,
        moved_at=tx.at,
        moves=cycle.moves + 1,
        finished_at=tx.at if move.to.final else None,
        **changes,
    )
    row = _row(moved)
    done = tx.execute(
        update(cycles_table)
        .where(cycles_table.c.id == cycle.id, cycles_table.c.moves == cycle.moves)
        .values(**row, active=None if move.to.final else cycle.loop)
    )
    if done.rowcount != 1:
        raise ConflictError(f"The cycle '{cycle.id}' has moved meanwhile.", hint="Look again.")
    _record(tx, moved, cycle.state.value, move.reason, move.evidence)
    return moved


def amend_cycle(tx: Transaction, cycle: Cycle, **changes: object) -> Cycle:
    """Note something about an unfinished cycle that is not an arrow; raises ConflictError if it has moved."""
    done = tx.execute(
        update(cycles_table)
        .where(cycles_table.c.id == cycle.id, cycles_table.c.moves == cycle.moves)
        .values(**changes)
    )
    if done.rowcount != 1:
        raise ConflictError(f"The cycle '{cycle.id}' has moved meanwhile.", hint="Look again.")
    return msgspec.structs.replace(cycle, **changes)


def _record(tx: Transaction, cycle: Cycle, came_from: str, reason: str, evidence: object) -> None:
    tx.execute(
        insert(cycle_moves_table).values(
            cycle=cycle.id,
            sequence=cycle.moves,
            from_state=came_from,
            to_state=cycle.state.value,
            at=tx.at,
            actor=tx.actor,
            reason=reason,
            evidence={} if evidence is None else evidence,
        )
    )
    details = {
        "loop": cycle.loop,
        "from": came_from,
        "to": cycle.state.value,
        "stage": cycle.stage,
        "candidate": cycle.candidate,
        "baseline": cycle.baseline,
        "trigger": cycle.trigger,
        "evidence": evidence,
    }
    tx.journal(
        "cycle.moved" if came_from else "cycle.started", "cycle", cycle.id, reason=reason, details=details
    )


def _row(cycle: Cycle) -> dict[str, object]:
    return {field: getattr(cycle, field) for field in _FIELDS} | {"state": cycle.state.value}


def _select(connection: Connection, *where: ColumnElement[bool], limit: int = 1000) -> list[Cycle]:
    query = select(*_COLUMNS).where(*where).order_by(cycles_table.c.number.desc()).limit(limit)
    return [_cycle(row) for row in connection.execute(query).mappings()]


def _cycle(row: RowMapping) -> Cycle:
    values = dict(row)
    return Cycle(**values | {"state": State(values["state"])})


def cycles_by_id(connection: Connection, ids: Sequence[str]) -> list[Cycle]:
    """The cycles of these ids, newest first."""
    return _select(connection, cycles_table.c.id.in_(ids)) if ids else []
