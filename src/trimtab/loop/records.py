"""Loops in the store: which are applied, in which version of their declaration, and how they stand."""

from __future__ import annotations

from datetime import datetime
from typing import cast

import msgspec
from sqlalchemy import Connection, insert, select, update

from trimtab.errors import ConflictError, unknown
from trimtab.loop.declaration import Declaration
from trimtab.loop.machine import Mode
from trimtab.loop.schema import loop_versions_table, loops_table, trigger_decisions_table
from trimtab.loop.triggers import Firing
from trimtab.monitoring.monitors import Number
from trimtab.store.database import Transaction

_decoder = msgspec.json.Decoder(Declaration)
_encoder = msgspec.json.Encoder(order="deterministic")


class LoopRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A loop as it stands. `watched_at`: the last moment of its schedule at which monitors and triggers
    were looked at."""

    name: str
    version: int
    mode: Mode
    paused: bool
    created_at: datetime
    watched_at: datetime


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a declaration. `project` is the digest of the code that it was applied with."""

    loop: str
    version: int
    digest: str
    declaration: Declaration
    project: str
    at: datetime
    actor: str


class TriggerDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger that fired led to: "started" and the cycle, or "suppressed" and because of what."""

    trigger: str
    occasion: str
    at: datetime
    outcome: str
    because: str
    reason: str
    numbers: dict[str, Number]
    cycle: str | None


def find_loop(connection: Connection, name: str) -> LoopRecord | None:
    """The loop of this name, or None."""
    row = connection.execute(select(loops_table).where(loops_table.c.name == name)).mappings().one_or_none()
    return None if row is None else LoopRecord(**{**row, "paused": bool(row["paused"])})


def get_loop(connection: Connection, name: str) -> LoopRecord:
    """The loop of this name; raises NotFoundError with the names that there are."""
    found = find_loop(connection, name)
    if found is None:
        known = list(connection.execute(select(loops_table.c.name)).scalars())
        hint = "" if known else "Apply one with: trimtab loop apply"
        raise unknown("loop", name, known, hint=hint)
    return found


def all_loops(connection: Connection) -> list[LoopRecord]:
    """All loops by name."""
    rows = connection.execute(select(loops_table).order_by(loops_table.c.name)).mappings()
    return [LoopRecord(**{**row, "paused": bool(row["paused"])}) for row in rows]


def get_applied(connection: Connection, loop: str, version: int) -> Applied:
    """That version of the loop's declaration."""
    table = loop_versions_table
    row = (
        connection.execute(select(table).where(table.c.loop == loop, table.c.version == version))
        .mappings()
        .one()
    )
    return Applied(**{**row, "declaration": _decoder.decode(cast("str", row["declaration"]))})


def add_applied(tx: Transaction, declared: Declaration, project: str, version: int) -> None:
    """Keep a new version of a declaration."""
    tx.execute(
        insert(loop_versions_table).values(
            loop=declared.name,
            version=version,
            digest=declared.digest,
            declaration=_encoder.encode(declared).decode(),
            project=project,
            at=tx.at,
            actor=tx.actor,
        )
    )


def amend_loop(tx: Transaction, name: str, **changes: object) -> None:
    """Change how a loop stands."""
    tx.execute(update(loops_table).where(loops_table.c.name == name).values(**changes))


def mark_watched(tx: Transaction, loop: LoopRecord, moment: datetime) -> None:
    """Note that a loop was looked at as of `moment`; raises ConflictError if somebody else did meanwhile."""
    done = tx.execute(
        update(loops_table)
        .where(loops_table.c.name == loop.name, loops_table.c.watched_at == loop.watched_at)
        .values(watched_at=moment)
    )
    if done.rowcount != 1:
        raise ConflictError(f"The loop '{loop.name}' was looked at meanwhile.", hint="Look again.")


def record_decision(
    tx: Transaction,
    loop: str,
    firing: Firing,
    *,
    outcome: str,
    because: str = "",
    reason: str,
    cycle: str | None = None,
) -> None:
    """Keep what a trigger that fired led to, with its numbers, in the journal too."""
    tx.execute(
        insert(trigger_decisions_table).values(
            loop=loop,
            trigger=firing.trigger,
            occasion=firing.occasion,
            at=tx.at,
            outcome=outcome,
            because=because,
            reason=reason,
            numbers=firing.numbers,
            cycle=cycle,
        )
    )
    details = {
        "trigger": firing.trigger,
        "occasion": firing.occasion,
        "because": because,
        "numbers": firing.numbers,
        "cycle": cycle,
    }
    tx.journal(f"trigger.{outcome}", "loop", loop, reason=reason, details=details)


def decided(connection: Connection, loop: str, trigger: str, occasion: str) -> bool:
    """Whether this occasion of a trigger has led to a decision already."""
    table = trigger_decisions_table.c
    query = select(table.id).where(table.loop == loop, table.trigger == trigger, table.occasion == occasion)
    return connection.execute(query).first() is not None


def decisions_of(
    connection: Connection, loop: str, *, cycle: str | None = None, limit: int = 1000
) -> list[TriggerDecision]:
    """What triggers led to, newest first; with `cycle`, only those that led to it."""
    table = trigger_decisions_table
    query = select(table).where(table.c.loop == loop).order_by(table.c.id.desc()).limit(limit)
    if cycle is not None:
        query = query.where(table.c.cycle == cycle)
    return [
        TriggerDecision(**{field: row[field] for field in TriggerDecision.__struct_fields__})
        for row in connection.execute(query).mappings()
    ]
