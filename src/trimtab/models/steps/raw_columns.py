"""The columns that a model's first step takes: as training had them, and as a request carries them.

A request carries numbers, truth values and texts; times are texts in ISO 8601. Before the step sees them they
get back the types that they had in training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, unknown
from trimtab.models.signature import Column, Kind, Signature

_INTEGERS = frozenset({"Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"})
_NUMBERS = _INTEGERS | {"Float32", "Float64"}
_OTHERS = frozenset({"String", "Categorical", "Boolean", "Date"})
_PLAIN: dict[str, type[pl.DataType]] = {name: getattr(pl, name) for name in (*_NUMBERS, *_OTHERS)}
_START = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_TIME = re.compile(r"Datetime\[(ms|us|ns)(?:,(.+))?\]")


class RawColumn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column with its Polars type: "Int64", "Float32", "Boolean", "String", "Categorical", "Enum" with its
    `values`, "Date", "Datetime[us]" or "Datetime[us,Europe/Berlin]"."""

    name: str
    dtype: str
    nullable: bool = False
    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: pl.Series, *, nullable: bool) -> RawColumn:
        """The column of these values. Raises InvalidInputError for a type that no request can carry."""
        dtype = values.dtype
        holes = values.null_count() > 0 or (dtype.is_float() and bool(values.is_nan().any()))
        may_miss = nullable or holes
        if isinstance(dtype, pl.Enum):
            return cls(values.name, "Enum", may_miss, tuple(dtype.categories))
        if isinstance(dtype, pl.Categorical):
            return cls(values.name, "Categorical", may_miss)
        if isinstance(dtype, pl.Datetime):
            zone = f",{dtype.time_zone}" if dtype.time_zone else ""
            return cls(values.name, f"Datetime[{dtype.time_unit}{zone}]", may_miss)
        if str(dtype) not in _PLAIN:
            raise InvalidInputError(
                f"The column '{values.name}' is of type {dtype}, which no request can carry.",
                hint="Numbers, truth values, texts, dates and times can be; leave others out with "
                "exclude=[...], or cast them first.",
            )
        return cls(values.name, str(dtype), may_miss)

    @property
    def kind(self) -> Kind:
        """As a signature has it."""
        if self.dtype in _NUMBERS:
            return "number"
        return "boolean" if self.dtype == "Boolean" else "text"

    @property
    def whole(self) -> bool:
        """Whether it takes whole numbers only."""
        return self.dtype in _INTEGERS

    @property
    def type(self) -> pl.DataType:
        """Its Polars type."""
        if self.dtype == "Enum":
            return pl.Enum(self.values)
        if (time := _TIME.fullmatch(self.dtype)) is not None:
            unit: Any = time[1]
            return pl.Datetime(unit, time[2])
        return _PLAIN[self.dtype]()


class RawColumns:
    """Turns what a request carries into the frame that the first step takes."""

    def __init__(self, columns: Sequence[RawColumn]) -> None:
        self._columns = [(column, column.type) for column in columns]

    def frame(
        self, rows: int, numbers: NDArray[np.float64], texts: Sequence[Sequence[str | None]]
    ) -> pl.DataFrame:
        """The frame of so many rows: `numbers` has the columns of numbers and truth values in order (NaN:
        missing), `texts` the others. Raises InvalidInputError for a value that its type cannot hold."""
        places, others = iter(range(numbers.shape[1])), iter(texts)
        return pl.DataFrame(
            [
                _text(column, dtype, next(others))
                if column.kind == "text"
                else _number(column, dtype, numbers[:, next(places)])
                for column, dtype in self._columns
            ],
            height=rows,
        )


def raw_columns(
    rows: pl.DataFrame,
    columns: Sequence[str] | None,
    exclude: Collection[str],
    nullable: bool | Collection[str],
) -> tuple[RawColumn, ...]:
    """The columns of a frame: `columns` in that order, or all but `exclude`. Raises InvalidInputError."""
    chosen = [name for name in (rows.columns if columns is None else columns) if name not in exclude]
    for name in [*chosen, *(() if isinstance(nullable, bool) else nullable)]:
        if name not in rows.columns:
            raise InvalidInputError(
                f"The rows have no column '{name}'.", hint=unknown("column", name, rows.columns).hint
            )
    every = nullable if isinstance(nullable, bool) else False
    named: Collection[str] = () if isinstance(nullable, bool) else nullable
    return tuple(RawColumn.of(rows[name], nullable=every or name in named) for name in chosen)


def raw_signature(columns: Sequence[RawColumn]) -> Signature:
    """What a request has to have."""
    return Signature(tuple(Column(column.name, column.kind, column.nullable) for column in columns))


def _number(column: RawColumn, dtype: pl.DataType, values: NDArray[np.float64]) -> pl.Series:
    # By way of NumPy where there is one: a query of Polars costs as much as all of a request's columns.
    made = pl.Series(column.name, values, nan_to_null=column.nullable)
    return made if dtype == pl.Float64 else _cast(column, made, dtype)


def _text(column: RawColumn, dtype: pl.DataType, values: Sequence[str | None]) -> pl.Series:
    if column.dtype == "Date":
        return pl.Series(column.name, _times(column, values, date.fromisoformat), dtype)
    if isinstance(dtype, pl.Datetime):
        aware = dtype.time_zone is not None

        def read(text: str) -> datetime:
            time = datetime.fromisoformat(text)
            if (time.tzinfo is not None) != aware:
                raise ValueError("no offset from UTC" if aware else "an offset from UTC")
            return time.astimezone(UTC) if aware else time  # which has to lie in the years 1 to 9999 too

        start = _START if aware else _START.replace(tzinfo=None)
        times = [None if time is None else (time - start) // _TICK for time in _times(column, values, read)]
        ticks = pl.Series(column.name, times, pl.Int64)
        return _cast(column, ticks.cast(pl.Datetime("us", dtype.time_zone)), dtype, values)
    made = pl.Series(column.name, values, pl.String)
    return made if dtype == pl.String else _cast(column, made, dtype)


def _cast(
    column: RawColumn, values: pl.Series, dtype: pl.DataType, given: Sequence[Any] | pl.Series | None = None
) -> pl.Series:
    """The values as that type; `given` is what the request has in their place."""
    try:
        return values.cast(dtype)
    except pl.exceptions.PolarsError:
        lost = values.cast(dtype, strict=False).is_null() & values.is_not_null()
        # A value of Polars need not be one of Python: its times go beyond the years that Python has.
        odd = (values if given is None else given)[lost.arg_max() or 0]
        raise InvalidInputError(
            f"The column '{column.name}' has {odd!r:.60}, which its type {column.dtype} does not hold.",
            hint=f"It is one of: {', '.join(column.values)}." if column.values else "",
        ) from None


def _times(column: RawColumn, values: Sequence[str | None], read: Callable[[str], Any]) -> list[Any]:
    made = []
    for row, value in enumerate(values):
        try:
            made.append(None if value is None else read(value))
        except (ValueError, OverflowError) as error:
            raise InvalidInputError(
                f"The column '{column.name}' has {value!r:.60} in row {row}, which is no time of type "
                f"{column.dtype}: {error}.",
                hint="Write times as 2026-01-31T12:00:00, with +00:00 behind if the type has a time zone.",
            ) from None
    return made
