"""Who is champion of a loop's model now, in one cheap question."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, select

from trimtab.models.aliases import CHAMPION
from trimtab.models.schema import (
    alias_events_table,
    model_aliases_table,
    model_versions_table,
    models_table,
)


class Champion(msgspec.Struct, frozen=True):
    """The version that the alias champion names, and the digest of its content."""

    version: int
    digest: str


def champion_of(connection: Connection, model: str) -> Champion | None:
    """The champion of the model; None while there is none."""
    models, aliases, versions = models_table.c, model_aliases_table.c, model_versions_table.c
    query = (
        select(versions.version, versions.digest)
        .join(
            model_aliases_table,
            (aliases.model_id == versions.model_id) & (aliases.version == versions.version),
        )
        .join(models_table, models.id == versions.model_id)
        .where(models.name == model, models.lifecycle == "active", aliases.alias == CHAMPION)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Champion(row.version, row.digest)


def champion_since(connection: Connection, model: str) -> datetime | None:
    """The event time at which the present champion became it; None if there is none."""
    events = alias_events_table.c
    query = (
        select(events.at, events.version)
        .where(
            events.model == model,
            events.alias == CHAMPION,
            events.kind.in_(("set", "rolled_back", "deleted")),
        )
        .order_by(events.number.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None or row.version is None else row.at


def policy_of_model(connection: Connection, model: str) -> str:
    """The digest of the gates policy that the model is held to; "" if nobody governs it."""
    query = select(models_table.c.policy).where(models_table.c.name == model)
    return connection.execute(query).scalar() or ""
