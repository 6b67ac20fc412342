"""Datasets and their versions as they stand in the metadata store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, desc, select

from trimtab.data.schema import dataset_versions_table as versions
from trimtab.data.schema import datasets_table as datasets
from trimtab.data.spec import ColumnType, ContractSpec
from trimtab.errors import NotFoundError, unknown


class Dataset(msgspec.Struct, frozen=True):
    """A named table. `time` is the column with each row's event time, `key` the columns that say what a row
    is about."""

    name: str
    time: str | None
    key: tuple[str, ...]
    contract: ContractSpec | None
    created_at: datetime
    created_by: str


class DatasetVersion(msgspec.Struct, frozen=True):
    """An immutable version of a dataset: all rows that were appended up to it.

    `number` counts from 1; each version is one append. `digest` is of the rows and the order that they were
    appended in. `rows` is how many there are, `added` and `quarantined` how many this append kept and put
    aside. `schema` is each column's type. `profile` is the digest of the profile of all rows.
    """

    dataset: str
    number: int
    key: str
    digest: str
    rows: int
    added: int
    quarantined: int
    schema: Mapping[str, ColumnType]
    time_min: datetime | None
    time_max: datetime | None
    profile: str
    created_at: datetime
    created_by: str


def find_dataset(connection: Connection, name: str) -> Dataset:
    """The dataset; raises NotFoundError."""
    row = connection.execute(select(datasets).where(datasets.c.name == name)).one_or_none()
    if row is None:
        raise unknown("dataset", name, connection.execute(select(datasets.c.name)).scalars())
    return dataset_of(row)


def dataset_of(row: Row[Any]) -> Dataset:
    """A row of the table as a dataset."""
    contract = None if row.contract is None else msgspec.convert(row.contract, ContractSpec)
    return Dataset(row.name, row.time, tuple(row.key), contract, row.created_at, row.created_by)


def find_version(connection: Connection, dataset: str, number: int | None = None) -> DatasetVersion:
    """That version, or the newest; raises NotFoundError where there is none."""
    newest = newest_version(connection, dataset)
    if newest is None:
        find_dataset(connection, dataset)
        raise NotFoundError(
            f"The dataset '{dataset}' has no version yet.", hint="Append some rows: `trimtab data append`."
        )
    if number is None or number == newest.number:
        return newest
    row = connection.execute(
        select(versions).where(versions.c.dataset == dataset, versions.c.number == number)
    ).one_or_none()
    if row is None:
        raise NotFoundError(
            f"The dataset '{dataset}' has no version {number}.", hint=f"It has versions 1 to {newest.number}."
        )
    return version_of(row)


def column_types(connection: Connection, dataset: str) -> dict[str, ColumnType]:
    """The types that a dataset's columns have, as far as contract and rows say; raises NotFoundError."""
    found = find_dataset(connection, dataset)
    newest = newest_version(connection, dataset)
    types: dict[str, ColumnType] = {} if found.time is None else {found.time: "datetime"}
    if newest is not None:
        types |= newest.schema
    if found.contract is not None:
        types |= {column.name: column.type for column in found.contract.columns}
    return types


def newest_version(connection: Connection, dataset: str) -> DatasetVersion | None:
    """The newest version; None if there is none, or no such dataset."""
    row = connection.execute(
        select(versions).where(versions.c.dataset == dataset).order_by(desc(versions.c.number)).limit(1)
    ).one_or_none()
    return None if row is None else version_of(row)


def version_by_key(connection: Connection, dataset: str, key: str) -> tuple[DatasetVersion, int] | None:
    """The version that an append with this key made, and its batch."""
    row = connection.execute(
        select(versions).where(versions.c.dataset == dataset, versions.c.request_key == key)
    ).one_or_none()
    return None if row is None else (version_of(row), row.batch)


def version_of(row: Row[Any]) -> DatasetVersion:
    """A row of the table as a version."""
    return DatasetVersion(
        dataset=row.dataset,
        number=row.number,
        key=row.request_key,
        digest=row.digest,
        rows=row.rows,
        added=row.added,
        quarantined=row.quarantined,
        schema=row.schema,
        time_min=row.time_min,
        time_max=row.time_max,
        profile=row.profile,
        created_at=row.created_at,
        created_by=row.created_by,
    )
