"""How an append is made whole or not at all.

It writes its rows to the table store and then, in one transaction, the version to the metadata store. What
was written but never became a version (its process was killed in between) stays invisible: each row carries
the number of its batch, and only batches that versions name are read. The same append asked for again finds
its rows by the batch, writes no others, and makes the version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec
import polars as pl
from sqlalchemy import Connection, insert, select

from trimtab.data.column_types import column_type
from trimtab.data.contracts import contract_of
from trimtab.data.frame_digest import frame_digest
from trimtab.data.profiles import Profile
from trimtab.data.schema import dataset_versions_table as versions
from trimtab.data.schema import datasets_table as datasets
from trimtab.data.spec import RESERVED, ColumnSpec, ColumnType, ContractSpec
from trimtab.data.versions import Dataset, DatasetVersion, find_dataset, newest_version, version_by_key
from trimtab.data.violations import REASON, ROW, Judgement, RowCheck, judge, violated
from trimtab.digest import digest_json
from trimtab.errors import ConflictError, InvalidInputError, unknown
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

if TYPE_CHECKING:
    from trimtab.data.contracts import AnyContract

OnViolation = Literal["refuse", "quarantine"]

COMPACT_EVERY = 64
"""Appends after which a dataset's small files are joined into large ones."""

BATCH = RESERVED + "batch"
NUMBER = RESERVED + "number"
_ATTEMPTS = 100


def append_rows(
    ws: Workspace,
    name: str,
    rows: pl.DataFrame,
    *,
    key: str,
    on_violation: OnViolation,
    contract: AnyContract | None,
) -> DatasetVersion:
    """See `trimtab.data.datasets.Datasets.append`."""
    if not key:
        raise InvalidInputError("An append needs a key, so that it can be repeated without harm.")
    if not rows.height:
        raise InvalidInputError(f"There are no rows to append to '{name}': the frame is empty.")
    for _ in range(_ATTEMPTS):
        with ws.read() as connection:
            dataset = find_dataset(connection, name)
            newest = newest_version(connection, name)
            checks = _checks_of(dataset, contract)
            batch = _batch(dataset, newest, key, rows, checks, on_violation)
            version = _same_append(connection, batch)
        if version is None:
            version = _append(ws, batch, newest)
        if version is not None:
            return version
    raise ConflictError(
        f"Others append to '{name}' faster than this append could find a gap.", hint="Try it again."
    )


def table_of(dataset: str) -> str:
    """The table that holds a dataset's rows."""
    return f"datasets/{dataset}"


def quarantine_of(dataset: str) -> str:
    """The table that holds the rows that were put aside."""
    return f"quarantine/{dataset}"


def batches(connection: Connection, version: DatasetVersion) -> pl.DataFrame:
    """The batches that a version consists of, and the version that each made."""
    found = connection.execute(
        select(versions.c.batch, versions.c.number).where(
            versions.c.dataset == version.dataset, versions.c.number <= version.number
        )
    ).all()
    return pl.DataFrame(
        {BATCH: [row.batch for row in found], NUMBER: [row.number for row in found]},
        schema={BATCH: pl.Int64, NUMBER: pl.Int64},
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one append brings. `number` is made from what it is, so that it is the same when repeated."""

    dataset: Dataset
    key: str
    judgement: Judgement
    schema: dict[str, ColumnType]
    digest: str
    number: int


def _batch(
    dataset: Dataset,
    newest: DatasetVersion | None,
    key: str,
    rows: pl.DataFrame,
    checks: Sequence[RowCheck],
    on_violation: OnViolation,
) -> _Batch:
    """The rows as the contract has them; raises what `Datasets.append` says."""
    spec = _effective(dataset, newest, rows)
    judgement = judge(spec, rows, checks)
    if judgement.violations and (judgement.structural or on_violation == "refuse"):
        raise violated(spec, dataset.name, judgement)
    good, bad = judgement.good.drop(ROW), judgement.bad.drop(ROW, REASON)
    schema = {name: column_type(good.get_column(name)) for name in good.columns}
    digest = frame_digest(good)
    aside = frame_digest(bad) if bad.height else ""
    number = int(digest_json([dataset.name, key, digest, aside])[3:18], 16)
    return _Batch(dataset, key, judgement, schema, digest, number)


def _effective(dataset: Dataset, newest: DatasetVersion | None, rows: pl.DataFrame) -> ContractSpec:
    """The contract that holds for these rows: the dataset's, and the columns that it has kept so far."""
    if dataset.contract is None:
        if newest is None:
            for role in (dataset.time, *dataset.key):
                if role is not None and role not in rows.columns:
                    raise unknown("column", role, rows.columns)
            schema = {name: column_type(rows.get_column(name)) for name in rows.columns}
            if dataset.time is not None:
                schema[dataset.time] = "datetime"
        else:
            schema = dict(newest.schema)
        roles = [role for role in (dataset.time, *dataset.key) if role is not None]
        return ContractSpec.of_schema(f"columns of {dataset.name}", schema, required=roles)
    kept = {} if newest is None else newest.schema
    known = {column.name for column in dataset.contract.columns}
    more = tuple(
        ColumnSpec(name, kind, nullable=True, required=False, finite=False)
        for name, kind in kept.items()
        if name not in known
    )
    return msgspec.structs.replace(dataset.contract, columns=dataset.contract.columns + more)


def _record(
    tx: Transaction, batch: _Batch, newest: DatasetVersion | None, profile: str
) -> DatasetVersion | None:
    """The version that follows `newest`; None if another already does."""
    name = batch.dataset.name
    # The lock lets appends to one dataset through one by one; SQLite has no other writer anyway.
    tx.execute(select(datasets.c.name).where(datasets.c.name == name).with_for_update())
    if (standing := _same_append(tx.connection, batch)) is not None:
        return standing
    if newest_version(tx.connection, name) != newest:
        return None
    good, quarantined = batch.judgement.good, batch.judgement.bad.height
    earlier = [] if newest is None else [newest.time_min, newest.time_max]
    times = [time for time in (*earlier, *_times(batch)) if time is not None]
    version = DatasetVersion(
        dataset=name,
        number=1 if newest is None else newest.number + 1,
        key=batch.key,
        digest=digest_json([newest.digest if newest else "", batch.digest]),
        rows=(newest.rows if newest else 0) + good.height,
        added=good.height,
        quarantined=quarantined,
        schema=batch.schema,
        time_min=min(times, default=None),
        time_max=max(times, default=None),
        profile=profile,
        created_at=tx.at,
        created_by=tx.actor,
    )
    row = {field: getattr(version, field) for field in version.__struct_fields__ if field != "key"}
    tx.execute(insert(versions).values(**row, request_key=batch.key, batch=batch.number))
    details = {
        "version": version.number,
        "digest": version.digest,
        "added": version.added,
        "quarantined": quarantined,
        "rows": version.rows,
        "key": batch.key,
        "violations": [
            {"column": found.column, "rule": found.rule, "count": found.count}
            for found in batch.judgement.violations
        ],
    }
    tx.journal("dataset.appended", "dataset", name, details=details)
    return version


def _same_append(connection: Connection, batch: _Batch) -> DatasetVersion | None:
    """The version that this append made already; raises ConflictError if its key was used for other rows."""
    standing = version_by_key(connection, batch.dataset.name, batch.key)
    if standing is None:
        return None
    version, number = standing
    if number != batch.number:
        raise ConflictError(
            f"The key '{batch.key}' was used for other rows: they are version {version.number} of "
            f"'{batch.dataset.name}'.",
            hint="Give each append a key of its own.",
        )
    return version


def _times(batch: _Batch) -> Iterator[datetime | None]:
    if batch.dataset.time is not None:
        values = batch.judgement.good.get_column(batch.dataset.time)
        for bound in (values.min(), values.max()):
            assert bound is None or isinstance(bound, datetime)
            yield bound


def _append(ws: Workspace, batch: _Batch, newest: DatasetVersion | None) -> DatasetVersion | None:
    """Write rows, then the version after `newest`; None if another version came in between."""
    name, judgement = batch.dataset.name, batch.judgement
    for table, rows in ((table_of(name), judgement.good), (quarantine_of(name), judgement.bad)):
        if rows.height:
            numbered = rows.with_columns(pl.lit(batch.number).alias(BATCH))
            ws.tables.append(table, numbered, transaction_id=f"append:{batch.number}")
    profile = Profile.of(judgement.good.drop(ROW))
    if newest is not None:
        profile = Profile.from_bytes(ws.blobs.get(newest.profile)).merge(profile)
    stored = ws.blobs.put(profile.to_bytes())
    version = ws.write(lambda tx: _record(tx, batch, newest, stored))
    if version is not None and version.number % COMPACT_EVERY == 0:
        ws.tables.compact(table_of(name))
    return version


def _checks_of(dataset: Dataset, contract: AnyContract | None) -> tuple[RowCheck, ...]:
    if contract is None:
        return ()
    spec, checks = contract_of(contract)
    if spec != dataset.contract:
        raise ConflictError(
            f"The contract '{spec.name}' is not the one that dataset '{dataset.name}' has.",
            hint="Change it with Datasets.set_contract, or leave it out.",
        )
    return checks
