"""Runs: one execution each, nested by their parent."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, Row, and_, bindparam, exists, insert, or_, select, update

from trimtab.errors import ConflictError, InvalidInputError, NotFoundError
from trimtab.store.database import Transaction
from trimtab.store.prepared import Prepared
from trimtab.tracking import experiments
from trimtab.tracking.schema import experiments_table, run_tags_table
from trimtab.tracking.schema import runs_table as runs

Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
"""As MLflow names them."""

ENDED: frozenset[Status] = frozenset({"FINISHED", "FAILED", "KILLED"})

_ID = re.compile(r"[0-9a-f]{32}")

_NUMBER = Prepared(select(runs.c.number, runs.c.lifecycle).where(runs.c.id == bindparam("id")))
_INSERT = Prepared(
    insert(runs), ["id", "experiment_id", "parent", "name", "status", "lifecycle", "actor", "started_at"]
)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One execution. `parent` is the id of the run that it belongs to; times are event times."""

    id: str
    experiment_id: int
    parent: str | None
    name: str
    status: Status
    lifecycle: experiments.Lifecycle
    actor: str
    started_at: datetime
    ended_at: datetime | None


class RunPage(msgspec.Struct, frozen=True):
    """Some runs, and the token that asks for those that follow ("" at the end)."""

    runs: tuple[Run, ...]
    next_page_token: str


def new_run_id() -> str:
    """An id that no run has: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def start(
    tx: Transaction,
    run_id: str,
    experiment: str,
    *,
    name: str = "",
    parent: str | None = None,
    status: Status = "RUNNING",
) -> Run:
    """Start the run `run_id` (see `new_run_id`) in an experiment, which is made if there is none.

    A run that stands already, in the same experiment and with the same parent, is taken up again: its
    start, params and metrics stay. Raises ConflictError if it belongs elsewhere or was deleted.
    """
    if not _ID.fullmatch(run_id):
        raise InvalidInputError(f"'{run_id}' is no run id.", hint="One has 32 hexadecimal digits.")
    group = experiments.get_or_create(tx, experiment)
    row = tx.execute(select(runs).where(runs.c.id == run_id).with_for_update()).one_or_none()
    if row is None:
        if parent is not None:
            number_of(tx.connection, parent)
        values = {
            "id": run_id,
            "experiment_id": group.id,
            "parent": parent,
            "name": name or run_id[:8],
            "status": status,
            "lifecycle": "active",
            "actor": tx.actor,
            "started_at": tx.at,
        }
        tx.execute(insert(runs).values(values))
        return get(tx.connection, run_id)
    if row.experiment_id != group.id or row.parent != parent or row.lifecycle != "active":
        raise ConflictError(
            f"The run {run_id} stands already and cannot be taken up as asked: it is {row.lifecycle}, in "
            f"experiment {row.experiment_id}, with parent {row.parent}.",
            hint="Start a run with a new id.",
        )
    tx.execute(update(runs).where(runs.c.number == row.number).values(status=status, ended_at=None))
    return get(tx.connection, run_id)


def create(
    tx: Transaction,
    run_id: str,
    experiment_id: int,
    *,
    name: str,
    parent: str | None = None,
    actor: str = "",
    started_at: datetime | None = None,
) -> None:
    """Start a new run as MLflow's clients do, who say when it started and whose it is; raises NotFoundError
    for an unknown experiment and ConflictError for a deleted one. The parent need not be known."""
    experiments.active(tx.connection, experiment_id)
    values = {
        "id": run_id,
        "experiment_id": experiment_id,
        "parent": parent,
        "name": name,
        "status": "RUNNING",
        "lifecycle": "active",
        "actor": actor or tx.actor,
        "started_at": started_at or tx.at,
    }
    _INSERT.run(tx.connection, [values])


def change(
    tx: Transaction,
    run_id: str,
    *,
    status: Status | None = None,
    ended_at: datetime | None = None,
    name: str | None = None,
    parent: str | None = None,
) -> None:
    """Change what is given of a run that is not deleted."""
    number = number_of(tx.connection, run_id)
    given = {"status": status, "ended_at": ended_at, "name": name, "parent": parent}
    changes = {column: value for column, value in given.items() if value is not None}
    if changes:
        tx.execute(update(runs).where(runs.c.number == number).values(changes))


def finish(tx: Transaction, run_id: str, status: Status = "FINISHED") -> Run:
    """End a run. Ending it once more in the same way keeps the time of the first."""
    if status not in ENDED:
        raise InvalidInputError(f"A run cannot end as {status}.", hint=f"Use one of {sorted(ENDED)}.")
    number = number_of(tx.connection, run_id)
    tx.execute(
        update(runs)
        .where(runs.c.number == number, runs.c.status != status)
        .values(status=status, ended_at=tx.at)
    )
    return get(tx.connection, run_id)


def rename(tx: Transaction, run_id: str, name: str) -> None:
    """Give a run another name."""
    number = number_of(tx.connection, run_id)
    tx.execute(update(runs).where(runs.c.number == number).values(name=name))


def set_lifecycle(tx: Transaction, run_id: str, lifecycle: experiments.Lifecycle) -> None:
    """Delete a run (it can be restored) or restore it."""
    if get(tx.connection, run_id).lifecycle == lifecycle:
        return
    deleted = lifecycle == "deleted"
    tx.execute(
        update(runs)
        .where(runs.c.id == run_id)
        .values(lifecycle=lifecycle, deleted_at=tx.at if deleted else None)
    )
    tx.journal("run.deleted" if deleted else "run.restored", "run", run_id)


def get(connection: Connection, run_id: str) -> Run:
    """The run of that id, also a deleted one; raises NotFoundError."""
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        raise _unknown(run_id)
    return _run(row)


def number_of(connection: Connection, run_id: str, *, writing: bool = True) -> int:
    """The small number of a run; raises NotFoundError, and ConflictError if `writing` to a deleted one."""
    row = _NUMBER.first(connection, id=run_id)
    if row is None:
        raise _unknown(run_id)
    if writing and row.lifecycle != "active":
        raise ConflictError(f"The run {run_id} was deleted.", hint="Restore it before writing to it.")
    return int(row.number)


def children(connection: Connection, run_id: str) -> list[Run]:
    """The active runs whose parent this is, in the order in which they were started."""
    query = select(runs).where(runs.c.parent == run_id, runs.c.lifecycle == "active").order_by(runs.c.number)
    return [_run(row) for row in connection.execute(query)]


def search(
    connection: Connection,
    experiment_names: Sequence[str] | None = None,
    *,
    statuses: Sequence[Status] = (),
    tags: Mapping[str, str] | None = None,
    lifecycle: experiments.Lifecycle = "active",
    limit: int = 100,
    page_token: str = "",
) -> RunPage:
    """Runs that meet every condition, the latest started first, a page at a time."""
    query = select(runs).where(runs.c.lifecycle == lifecycle)
    if experiment_names is not None:
        ids = select(experiments_table.c.id).where(experiments_table.c.name.in_(experiment_names))
        query = query.where(runs.c.experiment_id.in_(ids))
    if statuses:
        query = query.where(runs.c.status.in_(statuses))
    for key, value in (tags or {}).items():
        tag = run_tags_table
        query = query.where(
            exists().where(and_(tag.c.run == runs.c.number, tag.c.key == key, tag.c.value == value))
        )
    if page_token:
        at, number = _place(page_token)
        query = query.where(
            or_(runs.c.started_at < at, and_(runs.c.started_at == at, runs.c.number < number))
        )
    query = query.order_by(runs.c.started_at.desc(), runs.c.number.desc()).limit(limit + 1)
    rows = connection.execute(query).all()
    token = _token(rows[limit - 1]) if len(rows) > limit else ""
    return RunPage(tuple(_run(row) for row in rows[:limit]), token)


def _token(row: Row[tuple[object, ...]]) -> str:
    place = msgspec.json.encode((row.started_at, row.number))
    return base64.urlsafe_b64encode(place).decode()


def _place(token: str) -> tuple[datetime, int]:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[datetime, int])
    except ValueError:
        raise InvalidInputError(
            f"'{token}' is no page token.", hint="Use the one that the page before gave."
        ) from None


def _unknown(run_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no run '{run_id}'.",
        hint="`trimtab run` prints it, and `trimtab loop cycles` has those of a loop.",
    )


def _run(row: Row[tuple[object, ...]]) -> Run:
    return Run(
        id=row.id,
        experiment_id=row.experiment_id,
        parent=row.parent,
        name=row.name,
        status=row.status,
        lifecycle=row.lifecycle,
        actor=row.actor,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
