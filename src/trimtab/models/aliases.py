"""Aliases of models, and the history of each: which version it named, since when, and on what ground.

An event is kept under the name by which the world asked for the model at the time, so "what was champion of
NAME at time T" has one answer whatever was renamed or deleted since.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, insert, select

from trimtab.errors import InvalidInputError
from trimtab.models.schema import alias_events_table as events
from trimtab.models.schema import model_aliases_table as aliases
from trimtab.store.database import Transaction
from trimtab.store.prepared import Prepared
from trimtab.store.upsert import upsert

CHAMPION = "champion"

Kind = Literal["set", "deleted", "rolled_back", "renamed", "affirmed"]

Ground = Literal["free", "report", "override", "rollback"]
"""Why an alias could be set: nobody governs it; a passing gate report; a person's override; it went back to
an earlier champion."""


class Basis(msgspec.Struct, frozen=True):
    """The ground of a change, and the number of the gate report that it rests on."""

    ground: Ground
    report: int | None = None


FREE = Basis("free")


class AliasEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an alias. `version` and `digest` are None where it was taken away; `policy` is the gates
    policy in force at the time, `entry` the journal entry that tells of it."""

    number: int
    model: str
    alias: str
    kind: Kind
    version: int | None
    digest: str | None
    basis: Ground
    report: int | None
    policy: str | None
    entry: int
    at: datetime
    actor: str
    reason: str


def checked_alias(alias: str) -> str:
    """`alias`, if it can be one, by MLflow's rules; raises InvalidInputError otherwise."""
    if not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise InvalidInputError(
            f"{alias!r:.80} cannot be an alias.",
            hint="Use letters, digits, '_' and '-'; 'latest' and words like 'v1' are taken.",
        )
    return alias


def version_of(connection: Connection, model_id: int, alias: str) -> int | None:
    """The version that an alias names, or None."""
    row = _NAMED.first(connection, model=model_id, alias=alias)
    return None if row is None else int(row.version)


def put(
    tx: Transaction,
    model: Row[Any],
    alias: str,
    version: Row[Any] | None,
    *,
    kind: Kind,
    basis: Basis = FREE,
    entry: int,
    reason: str = "",
) -> None:
    """Point an alias at a version (None takes it away) and write the event, for the journal's `entry`."""
    if version is None:
        tx.execute(delete(aliases).where(aliases.c.model_id == model.id, aliases.c.alias == alias))
    else:
        row = {"model_id": model.id, "alias": alias, "version": version.version}
        upsert(tx, aliases, [row], keys=["model_id", "alias"])
    write_event(tx, model, alias, version, kind=kind, basis=basis, entry=entry, reason=reason)


def write_event(
    tx: Transaction,
    model: Row[Any],
    alias: str,
    version: Row[Any] | None,
    *,
    kind: Kind,
    basis: Basis = FREE,
    entry: int,
    reason: str = "",
    name: str | None = None,
) -> None:
    """Write an event alone; `name` is what the model is called in it, its present name unless given."""
    values = {
        "model_id": model.id,
        "model": name or model.name,
        "alias": alias,
        "kind": kind,
        "version": None if version is None else version.version,
        "digest": None if version is None else version.digest,
        "basis": basis.ground,
        "report": basis.report,
        "policy": model.policy,
        "entry": entry,
        "at": tx.at,
        "actor": tx.actor,
        "reason": reason,
    }
    _NEW_EVENT.run(tx.connection, [values])


def alias_at(connection: Connection, name: str, alias: str, at: datetime) -> AliasEvent | None:
    """The event by which the alias named what it named at that event time (a change counts from its own
    time on), or None if it named nothing."""
    query = (
        select(events)
        .where(events.c.model == name, events.c.alias == alias, events.c.at <= at)
        .order_by(events.c.number.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None or row.version is None else _event(row)


def history(connection: Connection, name: str, alias: str | None = None) -> list[AliasEvent]:
    """All events of a name, the oldest first; of one alias if given."""
    query = select(events).where(events.c.model == name).order_by(events.c.number)
    if alias is not None:
        query = query.where(events.c.alias == alias)
    return [_event(row) for row in connection.execute(query)]


def champion_events(connection: Connection, model_id: int) -> list[AliasEvent]:
    """All events of the champion of a model, under whatever name, the oldest first."""
    query = select(events).where(events.c.model_id == model_id, events.c.alias == CHAMPION)
    return [_event(row) for row in connection.execute(query.order_by(events.c.number))]


def _event(row: Row[Any]) -> AliasEvent:
    fields = AliasEvent.__struct_fields__
    return AliasEvent(**{name: value for name, value in row._mapping.items() if name in fields})


_NAMED = Prepared(
    select(aliases.c.version).where(
        aliases.c.model_id == bindparam("model"), aliases.c.alias == bindparam("alias")
    )
)
_NEW_EVENT = Prepared(insert(events), [column.name for column in events.columns if column.name != "number"])
