"""Metrics, as they are written: points go into packed chunks, and the latest of each key beside them.

A chunk holds what one writer logged of one key of one run in one batch. Its key is (run, key, writer,
sequence), so a batch that is sent again writes nothing twice, at a cost that does not depend on how much
was logged before; and a long history is read as a few rows of bytes, not as a Python object for each point.

Keys are interned; NaN and infinities are kept.
"""

from __future__ import annotations

import math
import operator
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, or_, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from trimtab.errors import InvalidInputError
from trimtab.store.database import Database, Transaction
from trimtab.store.types import from_microseconds, to_microseconds
from trimtab.store.upsert import upsert
from trimtab.tracking.compaction import SMALL, Compaction
from trimtab.tracking.params_and_tags import checked_key
from trimtab.tracking.runs import number_of
from trimtab.tracking.schema import latest_metrics_table as latest
from trimtab.tracking.schema import metric_chunks_table as chunks
from trimtab.tracking.schema import metric_keys_table as metric_keys
from trimtab.tracking.schema import metric_writers_table as metric_writers

PLAIN = 0
"""Encoding of a chunk: all steps, then all times (both int64), then all values (float64), little-endian."""

_NAMES_AT_ONCE = 500
_ONE = struct.Struct("<qqd").pack


class Point(msgspec.Struct, frozen=True):
    """One value of one metric. `at` is event time."""

    key: str
    value: float
    step: int
    at: datetime


class Packed(msgspec.Struct, frozen=True):
    """The points of one key in one batch: packed, and the latest of them."""

    points: int
    first_step: int
    last_step: int
    data: bytes
    latest: tuple[int, int, float]  # step, microseconds, value


Batch = Mapping[str, Packed]
"""What one writer logs at once, by key. Packing is done outside of the transaction."""


def batch_of(points: Iterable[Point]) -> dict[str, Packed]:
    """Pack points; raises InvalidInputError for what cannot be a key, a value or a step."""
    columns: dict[str, tuple[list[int], list[int], list[float]]] = {}
    for point in points:
        steps, times, values = columns.setdefault(point.key, ([], [], []))
        steps.append(whole(point.step))
        times.append(to_microseconds(point.at))
        values.append(number(point.value))
    return {checked_key(key): pack(*column) for key, column in columns.items()}


def pack(steps: Sequence[int], times: Sequence[int], values: Sequence[float]) -> Packed:
    """Pack the points of one key, given as columns of one length: steps of 64 bits, times in microseconds
    since 1970."""
    count = len(steps)
    if count == 1:
        step, at, value = steps[0], times[0], values[0]
        return Packed(1, step, step, _ONE(step, at, value), (step, at, value))
    data = struct.pack(f"<{count}q{count}q{count}d", *steps, *times, *values)
    last = max(zip(steps, times, map(_comparable, values), values, strict=True))
    return Packed(count, min(steps), max(steps), data, (last[0], last[1], last[3]))


def number(value: object) -> float:
    """`value` as a float; takes what Python, numpy and the frameworks call a number, but no text.

    Raises InvalidInputError if it is none.
    """
    try:
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        return float(value)  # type: ignore[arg-type]  # tried out
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError(
            f"{value!r:.80} is no number.", hint="Metrics are numbers; text goes into a tag."
        ) from None


def whole(step: object) -> int:
    """`step` as an int; raises InvalidInputError if it is no whole number of 64 bits."""
    try:
        found = operator.index(step)  # type: ignore[arg-type]  # tried out
    except TypeError:
        found = None
    if found is None or not -(2**63) <= found < 2**63:
        raise InvalidInputError(f"{step!r:.80} is no step.", hint="A step is a whole number of 64 bits.")
    return found


class MetricWriter:
    """Logs batches under a name of its own, so that one that is sent again is known.

    Remembers the numbers of what it has written about; safe to use from several threads if each batch has
    its own sequence.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._name = uuid.uuid4().hex
        self._id: int | None = None
        self._keys: dict[str, int] = {}
        self._compaction = Compaction(database)

    def write(
        self,
        run_id: str,
        batch: Batch,
        sequence: int,
        *,
        actor: str,
        also: Callable[[Transaction], None] | None = None,
    ) -> None:
        """Log a batch durably. The same sequence again for a run changes nothing. `also` is what else is
        done in the same transaction, before.

        Raises NotFoundError for an unknown run and ConflictError for a deleted one.
        """
        if not batch:
            if also is not None:
                self._database.write(also, actor=actor)
            return

        def work(tx: Transaction) -> tuple[int, int, dict[str, int]]:
            if also is not None:
                also(tx)
            writer = self._id or _intern(tx, metric_writers, [self._name])[self._name]
            fresh = _intern(tx, metric_keys, [key for key in batch if key not in self._keys])
            run = number_of(tx.connection, run_id)
            append(tx, run, batch, {**self._keys, **fresh} if fresh else self._keys, writer, sequence)
            return run, writer, fresh

        # What was interned is remembered only now that it is committed.
        run, self._id, fresh = self._database.write(work, actor=actor)
        self._keys.update(fresh)
        small = [self._keys[key] for key, packed in batch.items() if packed.points < SMALL]
        self._compaction.wrote(run, small, self._id, sequence, actor=actor)


def append(
    tx: Transaction, run: int, batch: Batch, keys: Mapping[str, int], writer: int, sequence: int
) -> None:
    """Log a batch of the run with number `run`; `keys` gives the number of each key, see `MetricWriter`."""
    rows = [
        {
            "run": run,
            "key": keys[key],
            "writer": writer,
            "sequence": sequence,
            "points": packed.points,
            "first_step": packed.first_step,
            "last_step": packed.last_step,
            "encoding": PLAIN,
            "data": packed.data,
        }
        for key, packed in sorted(batch.items())
    ]
    upsert(tx, chunks, rows, keys=["run", "key", "writer", "sequence"], update=[])
    _keep_latest(tx, run, batch, keys)


def latest_metrics(connection: Connection, run_id: str) -> dict[str, Point]:
    """The latest point of each key of a run: that of the highest step, then time, then value."""
    number = number_of(connection, run_id, writing=False)
    query = (
        select(metric_keys.c.name, latest.c.value, latest.c.step, latest.c.at)
        .join(metric_keys, metric_keys.c.id == latest.c.key)
        .where(latest.c.run == number)
        .order_by(metric_keys.c.name)
    )
    return {
        row.name: Point(
            row.name, math.nan if row.value is None else row.value, row.step, from_microseconds(row.at)
        )
        for row in connection.execute(query)
    }


def _keep_latest(tx: Transaction, run: int, batch: Batch, keys: Mapping[str, int]) -> None:
    rows = [
        {
            "run": run,
            "key": keys[key],
            "value": None if math.isnan(packed.latest[2]) else packed.latest[2],
            "step": packed.latest[0],
            "at": packed.latest[1],
        }
        for key, packed in sorted(batch.items())  # sorted: concurrent writers of a run lock in one order
    ]
    upsert(tx, latest, rows, keys=["run", "key"], where=_is_newer)


def _is_newer(new: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[bool]:
    now = latest.c
    same_step = new["step"] == now.step
    same_time = same_step & (new["at"] == now.at)
    return or_(
        new["step"] > now.step,
        same_step & (new["at"] > now.at),
        same_time & ((new["value"] > now.value) | now.value.is_(None)),
    )


def _intern(tx: Transaction, table: Table, names: Sequence[str]) -> dict[str, int]:
    """The numbers of these names, given to those that have none."""
    numbers = _numbers(tx.connection, table, names)
    missing = [name for name in names if name not in numbers]
    if missing:
        # Sorted, so that two transactions which add the same names wait for each other in one order.
        upsert(tx, table, [{"name": name} for name in sorted(missing)], keys=["name"], update=[])
        numbers |= _numbers(tx.connection, table, missing)
    return numbers


def _numbers(connection: Connection, table: Table, names: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(names), _NAMES_AT_ONCE):
        query = select(table.c.name, table.c.id).where(
            table.c.name.in_(names[start : start + _NAMES_AT_ONCE])
        )
        found.update({row.name: row.id for row in connection.execute(query)})
    return found


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
