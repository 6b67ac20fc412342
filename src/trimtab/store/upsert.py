"""Insert or update, the same on SQLite and Postgres."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Table
from sqlalchemy.dialects import sqlite

from trimtab.store.prepared import Prepared

if TYPE_CHECKING:
    from sqlalchemy.sql.base import ReadOnlyColumnCollection

    from trimtab.store.database import Transaction


def upsert(
    tx: Transaction,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    keys: Sequence[str],
    update: Sequence[str] | None = None,
    where: Callable[[ReadOnlyColumnCollection[str, Any]], ColumnElement[bool]] | None = None,
) -> int:
    """Insert `rows`; where `keys` already stand, set the columns `update` (all others, if None; an
    empty list leaves the standing row as it is), if the standing row and the new one, whose columns
    `where` is given, meet its condition. Answers how many rows were written."""
    if not rows:
        return 0
    columns = tuple(rows[0])
    changed = columns if update is None else tuple(update)
    return _statement(tx.connection.dialect.name, table, columns, changed, tuple(keys), where).run(
        tx.connection, rows
    )


@functools.lru_cache(maxsize=256)
def _statement(
    dialect: str,
    table: Table,
    columns: tuple[str, ...],
    changed: tuple[str, ...],
    keys: tuple[str, ...],
    where: Callable[[ReadOnlyColumnCollection[str, Any]], ColumnElement[bool]] | None,
) -> Prepared:
    """Kept, since to build it takes SQLAlchemy longer than to run it."""
    statement = _insert(dialect, table)
    changes = {name: statement.excluded[name] for name in changed if name not in keys}
    if not changes:
        return Prepared(statement.on_conflict_do_nothing(index_elements=list(keys)), columns)
    upserting = statement.on_conflict_do_update(
        index_elements=list(keys),
        set_=changes,
        where=None if where is None else where(statement.excluded),
    )
    return Prepared(upserting, columns)


def _insert(dialect: str, table: Table) -> Any:
    if dialect != "postgresql":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  (80 ms, which a folder workspace need not spend)

    return postgresql.insert(table)
