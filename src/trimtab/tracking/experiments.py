"""Experiments: named groups of runs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, Row, select, update

from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, unknown
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.tracking.schema import experiments_table as experiments

Lifecycle = Literal["active", "deleted"]


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A group of runs. Times are event times."""

    id: int
    name: str
    lifecycle: Lifecycle
    created_at: datetime
    updated_at: datetime


def get_or_create(tx: Transaction, name: str) -> Experiment:
    """The experiment of that name, made if there is none; raises ConflictError if it was deleted."""
    if not name.strip() or "\0" in name:
        raise InvalidInputError("An experiment needs a name that is not blank.")
    row = {"name": name, "lifecycle": "active", "created_at": tx.at, "updated_at": tx.at}
    if upsert(tx, experiments, [row], keys=["name"], update=[]) == 1:
        tx.journal("experiment.created", "experiment", name)
    found = get(tx.connection, name)
    if found.lifecycle == "deleted":
        raise ConflictError(
            f"The experiment '{name}' was deleted.", hint="Restore it, or use another name for new runs."
        )
    return found


def get(connection: Connection, name: str) -> Experiment:
    """The experiment of that name, also a deleted one; raises NotFoundError."""
    row = connection.execute(select(experiments).where(experiments.c.name == name)).one_or_none()
    if row is None:
        raise unknown("experiment", name, connection.execute(select(experiments.c.name)).scalars())
    return _experiment(row)


def get_by_id(connection: Connection, experiment_id: int) -> Experiment:
    """The experiment of that id, also a deleted one; raises NotFoundError."""
    row = connection.execute(select(experiments).where(experiments.c.id == experiment_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no experiment with id {experiment_id}.")
    return _experiment(row)


def list_all(connection: Connection, *, lifecycle: Lifecycle | None = "active") -> list[Experiment]:
    """Experiments by name: active, deleted or (None) all."""
    query = select(experiments).order_by(experiments.c.name)
    if lifecycle is not None:
        query = query.where(experiments.c.lifecycle == lifecycle)
    return [_experiment(row) for row in connection.execute(query)]


def set_lifecycle(tx: Transaction, name: str, lifecycle: Lifecycle) -> None:
    """Delete an experiment (it can be restored) or restore it. Its runs stay as they are."""
    if get(tx.connection, name).lifecycle == lifecycle:
        return
    deleted = lifecycle == "deleted"
    tx.execute(
        update(experiments)
        .where(experiments.c.name == name)
        .values(lifecycle=lifecycle, updated_at=tx.at, deleted_at=tx.at if deleted else None)
    )
    tx.journal("experiment.deleted" if deleted else "experiment.restored", "experiment", name)


def _experiment(row: Row[tuple[object, ...]]) -> Experiment:
    return Experiment(
        id=row.id,
        name=row.name,
        lifecycle=row.lifecycle,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
