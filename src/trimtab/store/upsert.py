"""Insert or update, the same on SQLite and Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Table
from sqlalchemy.dialects import sqlite

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
    statement = _insert(tx, table)
    columns = list(rows[0]) if update is None else list(update)
    changes = {name: statement.excluded[name] for name in columns if name not in keys}
    if changes:
        statement = statement.on_conflict_do_update(
            index_elements=list(keys),
            set_=changes,
            where=None if where is None else where(statement.excluded),
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(keys))
    # Without the option psycopg counts nothing for several rows.
    return tx.connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount


def _insert(tx: Transaction, table: Table) -> Any:
    if tx.connection.dialect.name != "postgresql":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  (80 ms, which a folder workspace need not spend)

    return postgresql.insert(table)
