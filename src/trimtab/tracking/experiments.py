"""Experiments: named groups of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from trimtab.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError, unknown
from trimtab.store.database import Transaction
from trimtab.store.prepared import Prepared
from trimtab.store.upsert import upsert
from trimtab.tracking.schema import experiment_tags_table as experiment_tags
from trimtab.tracking.schema import experiments_table as experiments
from trimtab.tracking.schema import runs_table

Lifecycle = Literal["active", "deleted"]


_BY_ID = Prepared(select(experiments).where(experiments.c.id == bindparam("id")))


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A group of runs. Times are event times."""

    id: int
    name: str
    lifecycle: Lifecycle
    created_at: datetime
    updated_at: datetime


DEFAULT_ID = 0
DEFAULT_NAME = "Default"
"""Where MLflow's clients put the runs that they put nowhere."""


def make_default(tx: Transaction) -> None:
    """Make the experiment that has the id 0, unless there is one, or the name is taken."""
    row = {"id": DEFAULT_ID, "name": DEFAULT_NAME, "lifecycle": "active", "created_at": tx.at}
    taken = (experiments.c.id == DEFAULT_ID) | (experiments.c.name == DEFAULT_NAME)
    if tx.execute(select(experiments.c.id).where(taken)).first() is None:
        tx.execute(insert(experiments).values(updated_at=tx.at, **row))
        tx.journal("experiment.created", "experiment", DEFAULT_NAME)


def create(tx: Transaction, name: str, tags: Mapping[str, str] | None = None) -> Experiment:
    """Make an experiment; raises AlreadyExistsError if there is one of that name, also a deleted one."""
    row = {"name": _checked(name), "lifecycle": "active", "created_at": tx.at, "updated_at": tx.at}
    if upsert(tx, experiments, [row], keys=["name"], update=[]) == 0:
        standing = get(tx.connection, name)
        hint = (
            "It was deleted: restore it." if standing.lifecycle == "deleted" else "Use it, or another name."
        )
        raise AlreadyExistsError(f"Experiment(name={name}) already exists.", hint=hint)
    made = get(tx.connection, name)
    set_tags(tx, made.id, tags or {})
    tx.journal("experiment.created", "experiment", name)
    return made


def rename(tx: Transaction, experiment_id: int, name: str) -> None:
    """Give an experiment that is not deleted another name; raises AlreadyExistsError if that is taken."""
    experiment = active(tx.connection, experiment_id)
    if experiment.name == name:
        return
    taken = select(experiments.c.id).where(experiments.c.name == _checked(name))
    if tx.execute(taken).first() is not None:
        raise AlreadyExistsError(f"Experiment(name={name}) already exists.", hint="Use another name.")
    changes = {"name": name, "updated_at": tx.at}
    tx.execute(update(experiments).where(experiments.c.id == experiment_id).values(changes))
    tx.journal("experiment.renamed", "experiment", name, details={"from": experiment.name})


def set_tags(tx: Transaction, experiment_id: int, tags: Mapping[str, str]) -> None:
    """Set tags of an experiment that is not deleted; one that stands is replaced."""
    active(tx.connection, experiment_id)
    rows = [{"experiment_id": experiment_id, "key": key, "value": value} for key, value in tags.items()]
    upsert(tx, experiment_tags, rows, keys=["experiment_id", "key"])


def delete_tag(tx: Transaction, experiment_id: int, key: str) -> None:
    """Take a tag off an experiment; raises NotFoundError if it has none of that key."""
    active(tx.connection, experiment_id)
    table = experiment_tags
    this = (table.c.experiment_id == experiment_id) & (table.c.key == key)
    if tx.execute(delete(table).where(this)).rowcount == 0:
        raise NotFoundError(f"No tag with name: {key} in experiment with id {experiment_id}.")


def tags_of(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, str]]:
    """The tags of experiments, by id and key."""
    found: dict[int, dict[str, str]] = {number: {} for number in ids}
    table = experiment_tags
    for start in range(0, len(ids), 500):
        query = select(table).where(table.c.experiment_id.in_(ids[start : start + 500]))
        for row in connection.execute(query.order_by(table.c.key)):
            found[row.experiment_id][row.key] = row.value
    return found


def active(connection: Connection, experiment_id: int) -> Experiment:
    """The experiment of that id; raises NotFoundError, and ConflictError for a deleted one."""
    found = get_by_id(connection, experiment_id)
    if found.lifecycle == "deleted":
        raise ConflictError(
            f"The experiment {experiment_id} must be in the 'active' state; it was deleted.",
            hint="Restore it first.",
        )
    return found


def get_or_create(tx: Transaction, name: str) -> Experiment:
    """The experiment of that name, made if there is none; raises ConflictError if it was deleted."""
    _checked(name)
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
    return experiment_of(row)


def get_by_id(connection: Connection, experiment_id: int) -> Experiment:
    """The experiment of that id, also a deleted one; raises NotFoundError."""
    row = _BY_ID.first(connection, id=experiment_id)
    if row is None:
        raise NotFoundError(f"There is no experiment with id {experiment_id}.")
    return experiment_of(row)


def list_all(connection: Connection, *, lifecycle: Lifecycle | None = "active") -> list[Experiment]:
    """Experiments by name: active, deleted or (None) all."""
    query = select(experiments).order_by(experiments.c.name)
    if lifecycle is not None:
        query = query.where(experiments.c.lifecycle == lifecycle)
    return [experiment_of(row) for row in connection.execute(query)]


def set_lifecycle(tx: Transaction, name: str, lifecycle: Lifecycle) -> None:
    """Delete an experiment (it can be restored) or restore it; all its runs go and come with it."""
    experiment = get(tx.connection, name)
    if experiment.lifecycle == lifecycle:
        return
    deleted = lifecycle == "deleted"
    tx.execute(
        update(experiments)
        .where(experiments.c.name == name)
        .values(lifecycle=lifecycle, updated_at=tx.at, deleted_at=tx.at if deleted else None)
    )
    tx.execute(
        update(runs_table)
        .where(runs_table.c.experiment_id == experiment.id, runs_table.c.lifecycle != lifecycle)
        .values(lifecycle=lifecycle, deleted_at=tx.at if deleted else None)
    )
    tx.journal("experiment.deleted" if deleted else "experiment.restored", "experiment", name)


def change_lifecycle(tx: Transaction, experiment_id: int, present: Lifecycle, wanted: Lifecycle) -> None:
    """`set_lifecycle` of an experiment that must be `present` now; raises NotFoundError unless it is."""
    found = get_by_id(tx.connection, experiment_id)
    if found.lifecycle != present:
        raise NotFoundError(f"No Experiment with id={experiment_id} exists that is {present}.")
    set_lifecycle(tx, found.name, wanted)


def _checked(name: str) -> str:
    if not name.strip() or "\0" in name:
        raise InvalidInputError("An experiment needs a name that is not blank.")
    return name


def experiment_of(row: Row[tuple[object, ...]]) -> Experiment:
    """The experiment that a row of the table is."""
    return Experiment(
        id=row.id,
        name=row.name,
        lifecycle=row.lifecycle,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
