"""Tables of rows on Delta Lake: versioned, read by Polars, DuckDB, Spark and Trino without Trimtab.

delta-rs records application transaction ids but does not refuse a repeated one, so each append holds the
table's lock while it looks its id up and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import polars as pl
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError, TableNotFoundError

from trimtab.errors import InvalidInputError, NotFoundError, StorageFullError, UnavailableError

_TRANSACTION = "trimtab.transaction"

_PROPERTIES = {"delta.checkpointInterval": "20"}
"""Opening a table replays its log from the last checkpoint: at delta-rs's interval of 100 an append took
ten times as long after 200 appends, at 20 it stays as it was."""

_LOOKED_AT = 200
"""Rows by which a column of texts is judged."""


class Tables(Protocol):
    """The port of the table store."""

    def append(
        self, table: str, rows: pl.DataFrame, *, transaction_id: str, partition_by: Sequence[str] = ()
    ) -> int:
        """Append rows and answer the table's version; new columns are added, missing ones become null.

        A `transaction_id` that was appended before appends nothing and answers the version of then. Raises
        InvalidInputError for a column whose type is not the table's and does not widen to it.
        """
        ...

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """The rows as of a version (the newest, if None); raises NotFoundError if there is no such table."""
        ...

    def scan(self, table: str, *, version: int | None = None) -> pl.LazyFrame:
        """The same, lazily."""
        ...

    def version(self, table: str) -> int | None:
        """The newest version, or None if there is no such table."""
        ...

    def compact(self, table: str) -> None:
        """Join small files into large ones; the rows and older versions stay as they are."""
        ...


class DeltaTables:
    """Tables below one folder or object-store prefix. `exclusive` holds a lock across processes."""

    def __init__(self, root: str, exclusive: Callable[[str], AbstractContextManager[None]]) -> None:
        self._root = root.rstrip("/")
        self._exclusive = exclusive

    def append(
        self, table: str, rows: pl.DataFrame, *, transaction_id: str, partition_by: Sequence[str] = ()
    ) -> int:
        """See `Tables.append`."""
        address = self._address(table)
        with self._exclusive(f"table:{table}"):
            standing = self._open(table)
            if standing is not None and standing.transaction_version(transaction_id) is not None:
                return _version_of(standing, transaction_id)
            if standing is not None:
                rows = _fitted(table, rows, pl.scan_delta(standing).collect_schema())
            try:
                write_deltalake(
                    address if standing is None else standing,
                    rows,
                    mode="append",
                    schema_mode="merge" if standing is not None else None,
                    partition_by=list(partition_by) or None,
                    writer_properties=_writer(rows),
                    configuration=None if standing is not None else _PROPERTIES,
                    commit_properties=CommitProperties(
                        app_transactions=[Transaction(transaction_id, 1)],
                        custom_metadata={_TRANSACTION: transaction_id},
                    ),
                )
            except (DeltaError, OSError) as error:
                raise _failed(table, error) from error
            return DeltaTable(address).version() if standing is None else _newest(standing)

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """See `Tables.read`."""
        rows = self.scan(table, version=version)
        if where is not None:
            rows = rows.filter(where)
        if columns is not None:
            rows = rows.select(list(columns))
        return rows.collect()

    def scan(self, table: str, *, version: int | None = None) -> pl.LazyFrame:
        """See `Tables.scan`."""
        standing = self._open(table, version)
        if standing is None:
            raise NotFoundError(f"There is no table '{table}'.")
        return pl.scan_delta(standing)

    def version(self, table: str) -> int | None:
        """See `Tables.version`."""
        standing = self._open(table)
        return None if standing is None else standing.version()

    def compact(self, table: str) -> None:
        """See `Tables.compact`."""
        with self._exclusive(f"table:{table}"):
            standing = self._open(table)
            if standing is not None:
                floats = [
                    field.name
                    for field in standing.schema().fields
                    if getattr(field.type, "type", None) in ("double", "float")
                ]
                standing.optimize.compact(
                    max_concurrent_tasks=1, writer_properties=_without_dictionaries(floats)
                )

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        try:
            return DeltaTable(self._address(table), version=version)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            if version is not None:
                raise NotFoundError(f"The table '{table}' has no version {version}.") from error
            raise _failed(table, error) from error

    def _address(self, table: str) -> str:
        parts = table.split("/")
        if not all(
            part and part not in {".", ".."} and "\\" not in part and "\0" not in part for part in parts
        ):
            raise InvalidInputError(f"'{table}' cannot be the name of a table.")
        return f"{self._root}/{table}"


def _fitted(table: str, rows: pl.DataFrame, kept: pl.Schema) -> pl.DataFrame:
    """The rows in the table's types. delta-rs itself would cast whatever can be cast, text to numbers too."""
    changed = {
        name: kept[name] for name, dtype in rows.schema.items() if name in kept and dtype != kept[name]
    }
    for name, dtype in changed.items():
        if not _widens(rows.schema[name], dtype):
            raise InvalidInputError(
                f"The column '{name}' is {rows.schema[name]}, but {dtype} in the table '{table}'.",
                hint="Convert it before it is appended.",
            )
    try:
        return rows.with_columns(pl.col(name).cast(dtype) for name, dtype in changed.items())
    except pl.exceptions.InvalidOperationError as error:
        raise InvalidInputError(f"The rows do not fit the table '{table}': {error}.") from None


def _writer(rows: pl.DataFrame) -> WriterProperties:
    """Without dictionaries of what seldom repeats, as measured numbers and ids: to try takes three times as
    long as to write them."""
    some = rows.head(_LOOKED_AT)
    plain = [
        name
        for name, dtype in rows.schema.items()
        if dtype.is_float() or (dtype == pl.String and some[name].n_unique() > some.height // 2)
    ]
    return _without_dictionaries(plain)


def _without_dictionaries(columns: Sequence[str]) -> WriterProperties:
    without = ColumnProperties(dictionary_enabled=False)
    return WriterProperties(column_properties=dict.fromkeys(columns, without))


def _widens(given: pl.DataType, kept: pl.DataType) -> bool:
    if isinstance(given, pl.List) and isinstance(kept, pl.List):
        inner, outer = given.inner, kept.inner
        return inner == outer or (
            isinstance(inner, pl.DataType) and isinstance(outer, pl.DataType) and _widens(inner, outer)
        )
    return (
        given == pl.Null
        or (given.is_integer() and (kept.is_integer() or kept.is_float()))  # an overflow raises in the cast
        or (given.is_float() and kept.is_float())
        or (
            isinstance(given, pl.Datetime)
            and isinstance(kept, pl.Datetime)
            and (given.time_zone is None) == (kept.time_zone is None)
        )
        or (kept == pl.String and given in (pl.Categorical, pl.Enum))
    )


def _newest(standing: DeltaTable) -> int:
    standing.update_incremental()
    return standing.version()


def _version_of(standing: DeltaTable, transaction_id: str) -> int:
    for commit in standing.history():
        if commit.get(_TRANSACTION) == transaction_id:
            return int(commit["version"])
    return standing.version()


def _failed(table: str, error: Exception) -> UnavailableError:
    if "No space left" in str(error):
        return StorageFullError(
            f"There is no space left for the table '{table}'.", hint="Free some space and try again."
        )
    return UnavailableError(f"The table '{table}' cannot be reached: {error}.")
