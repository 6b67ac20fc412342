"""Table datasets: rows are appended, and every append makes a version that never changes.

`trimtab.data.appends` says how an append is made whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import polars as pl
from sqlalchemy import insert, select, update

from trimtab.clock import as_utc
from trimtab.data.appends import BATCH, NUMBER, OnViolation, append_rows, batches, quarantine_of, table_of
from trimtab.data.column_types import DTYPES
from trimtab.data.contracts import contract_of
from trimtab.data.profiles import Profile
from trimtab.data.row_places import in_part
from trimtab.data.schema import dataset_versions_table as versions
from trimtab.data.schema import datasets_table as datasets
from trimtab.data.spec import ColumnType, ContractSpec
from trimtab.data.versions import (
    Dataset,
    DatasetVersion,
    column_types,
    dataset_of,
    find_dataset,
    find_version,
    newest_version,
    version_of,
)
from trimtab.data.violations import REASON, ROW
from trimtab.data.window import Part, Window
from trimtab.errors import ConflictError, InvalidInputError, unknown
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

if TYPE_CHECKING:
    from trimtab.data.contracts import AnyContract

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Datasets:
    """The datasets of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._ws = workspace

    def create(
        self,
        name: str,
        *,
        contract: AnyContract | None = None,
        time: str | None = None,
        key: Sequence[str] = (),
    ) -> Dataset:
        """Make a dataset, or answer the one that stands if it is the same; ConflictError if it is not.

        Without a contract it keeps the columns and types of its first append.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"A dataset cannot be called '{name}'.", hint="Use letters, digits and . _ - (at most 128)."
            )
        spec = None if contract is None else contract_of(contract)[0]
        if spec is not None:
            _check_roles(spec, time, key)

        def work(tx: Transaction) -> Dataset:
            row = tx.execute(select(datasets).where(datasets.c.name == name)).one_or_none()
            if row is not None:
                standing = dataset_of(row)
                _check_same(standing, spec, time, tuple(key))
                return standing
            made = Dataset(name, time, tuple(key), spec, tx.at, tx.actor)
            tx.execute(
                insert(datasets).values(
                    name=name,
                    time=time,
                    key=list(key),
                    contract=spec,
                    created_at=tx.at,
                    created_by=tx.actor,
                )
            )
            tx.journal(
                "dataset.created", "dataset", name, details={"time": time, "key": key, "contract": spec}
            )
            return made

        return self._ws.write(work)

    def set_contract(self, name: str, contract: AnyContract, *, reason: str = "") -> Dataset:
        """Give a dataset another contract, which holds for what is appended from now on.

        Raises ConflictError where it would change the type of a column that has rows.
        """
        spec = contract_of(contract)[0]

        def work(tx: Transaction) -> Dataset:
            standing = find_dataset(tx.connection, name)
            if standing.contract == spec:
                return standing
            _check_roles(spec, standing.time, standing.key)
            newest = newest_version(tx.connection, name)
            for column, kind in (newest.schema if newest else {}).items():
                wanted = spec.column(column)
                if wanted is not None and wanted.type != kind:
                    raise ConflictError(
                        f"Column '{column}' of dataset '{name}' is {kind}, the contract has {wanted.type}.",
                        hint="Keep its type, or append to a new dataset.",
                    )
            tx.execute(update(datasets).where(datasets.c.name == name).values(contract=spec))
            details = {"contract": spec}
            tx.journal("dataset.contract_set", "dataset", name, reason=reason, details=details)
            return msgspec.structs.replace(standing, contract=spec)

        return self._ws.write(work)

    def get(self, name: str) -> Dataset:
        """The dataset; raises NotFoundError."""
        with self._ws.read() as connection:
            return find_dataset(connection, name)

    def list(self) -> Sequence[Dataset]:
        """All datasets, by name."""
        with self._ws.read() as connection:
            return [dataset_of(row) for row in connection.execute(select(datasets).order_by(datasets.c.name))]

    def types(self, name: str) -> dict[str, ColumnType]:
        """The types that a dataset's columns have, as far as they are known: rows that arrive as text are
        read by them."""
        with self._ws.read() as connection:
            return column_types(connection, name)

    def version(self, name: str, number: int | None = None) -> DatasetVersion:
        """That version, or the newest; raises NotFoundError."""
        with self._ws.read() as connection:
            return find_version(connection, name, number)

    def versions(self, name: str) -> Sequence[DatasetVersion]:
        """All versions, oldest first."""
        with self._ws.read() as connection:
            find_dataset(connection, name)
            rows = connection.execute(
                select(versions).where(versions.c.dataset == name).order_by(versions.c.number)
            )
            return [version_of(row) for row in rows]

    def append(
        self,
        name: str,
        rows: pl.DataFrame,
        *,
        key: str,
        on_violation: OnViolation = "refuse",
        contract: AnyContract | None = None,
    ) -> DatasetVersion:
        """Append rows as a new version.

        `key` names this append: the same key and rows again answer the version of then, other rows raise
        ConflictError. `contract`, if given, must be the dataset's, and then its checks over whole rows are
        made too. Rows that break the contract refuse the whole append (ContractViolationError), or go into
        quarantine while the others are appended; wrong columns always refuse it. A refused append changes
        nothing. Rows may be older than those that are there.
        """
        return append_rows(self._ws, name, rows, key=key, on_violation=on_violation, contract=contract)

    def read(
        self,
        name: str,
        version: int | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        part: Part | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """The rows of a version (the newest, if None), ordered by event time and, within that, as appended.

        Only those from `start` (included) to `end` (excluded), only the share `part` of them, and only
        `columns`, if given.
        """
        with self._ws.read() as connection:
            dataset = find_dataset(connection, name)
            found = find_version(connection, name, version)
            parts = batches(connection, found)
        wanted = list(found.schema) if columns is None else list(columns)
        for column in wanted:
            if column not in found.schema:
                raise unknown("column", column, found.schema)
        if not found.rows:
            return pl.DataFrame(schema={column: DTYPES[found.schema[column]] for column in wanted})
        rows = self._ws.tables.scan(table_of(name))
        for bound, within in ((start, pl.Expr.ge), (end, pl.Expr.lt)):
            if bound is not None:
                rows = rows.filter(within(pl.col(_time_of(dataset)), pl.lit(as_utc(bound))))
        order = [*([dataset.time] if dataset.time else []), NUMBER, ROW]
        numbers = [BATCH, ROW] if part is not None else []
        found_rows = rows.join(parts.lazy(), on=BATCH).sort(order).select(*wanted, *numbers).collect()
        if part is not None:
            found_rows = found_rows.filter(in_part(found_rows[BATCH], found_rows[ROW], part)).drop(numbers)
        return found_rows.cast({column: DTYPES[found.schema[column]] for column in wanted})

    def read_window(
        self, name: str, window: Window, as_of: datetime, version: int | None = None
    ) -> pl.DataFrame:
        """The rows of a version that lie in a window as asked at `as_of`."""
        start, end = window.bounds(as_of)
        return self.read(name, version, start=start, end=end, part=window.part)

    def quarantined(self, name: str) -> pl.DataFrame:
        """All rows that were put aside, with the version and the row of their append and the reason, in
        columns `quarantine_version`, `quarantine_row` and `quarantine_reason`. May be empty."""
        with self._ws.read() as connection:
            find_dataset(connection, name)
            newest = newest_version(connection, name)
            if newest is None or self._ws.tables.version(quarantine_of(name)) is None:
                return pl.DataFrame()
            parts = batches(connection, newest)
        return (
            self._ws.tables.scan(quarantine_of(name))
            .join(parts.lazy(), on=BATCH)
            .sort(NUMBER, ROW)
            .select(
                pl.col(NUMBER).alias("quarantine_version"),
                pl.col(ROW).alias("quarantine_row"),
                pl.col(REASON).alias("quarantine_reason"),
                pl.exclude(NUMBER, ROW, REASON, BATCH),
            )
            .collect()
        )

    def profile(self, name: str, version: int | None = None) -> Profile:
        """The profile of all rows of a version (the newest, if None)."""
        return Profile.from_bytes(self._ws.blobs.get(self.version(name, version).profile))


def _check_roles(spec: ContractSpec, time: str | None, key: Sequence[str]) -> None:
    """Raises InvalidInputError unless the contract has the columns that the dataset lives by."""
    for role in (*([time] if time is not None else []), *key):
        column = spec.column(role)
        if column is None:
            missing = unknown("column", role, (column.name for column in spec.columns))
            raise InvalidInputError(f"The contract '{spec.name}' lacks '{role}'.", hint=missing.hint)
        if column.nullable or not column.required:
            raise InvalidInputError(
                f"Column '{role}' says when or what a row is, but may be missing by '{spec.name}'.",
                hint="Require it.",
            )
        if role == time and column.type != "datetime":
            raise InvalidInputError(
                f"The time column '{role}' is {column.type} in the contract '{spec.name}'.",
                hint="Annotate it as a datetime.",
            )


def _check_same(standing: Dataset, spec: ContractSpec | None, time: str | None, key: tuple[str, ...]) -> None:
    """Raises ConflictError unless the dataset that stands is the one that was asked for."""
    for what, there, asked in (
        ("time column", standing.time, time),
        ("key", standing.key, key),
        ("contract", standing.contract, spec),
    ):
        if there != asked:
            told = "" if what == "contract" else f" ({there!r}, not {asked!r})"
            raise ConflictError(
                f"The dataset '{standing.name}' exists with another {what}{told}.",
                hint="Change it with Datasets.set_contract."
                if what == "contract"
                else "Choose another name.",
            )


def _time_of(dataset: Dataset) -> str:
    if dataset.time is None:
        raise InvalidInputError(
            f"The dataset '{dataset.name}' has no time column, so it has no windows.",
            hint="Create it with time='...'.",
        )
    return dataset.time
