"""The few types that columns of table datasets have, and which other types may safely become them."""

from __future__ import annotations

import polars as pl

from trimtab.data.spec import ColumnType
from trimtab.errors import InvalidInputError

DTYPES: dict[ColumnType, pl.DataType] = {
    "float": pl.Float64(),
    "int": pl.Int64(),
    "str": pl.String(),
    "bool": pl.Boolean(),
    "datetime": pl.Datetime("us", "UTC"),
    "date": pl.Date(),
}


def column_type(values: pl.Series) -> ColumnType:
    """The type that a column is kept in where no contract says one; raises InvalidInputError if none fits."""
    dtype = values.dtype
    if dtype.is_integer():
        return "int"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    if isinstance(dtype, pl.Datetime):
        return "datetime"
    if isinstance(dtype, pl.Categorical | pl.Enum | pl.String):
        return "str"
    if dtype == pl.Null:
        raise InvalidInputError(
            f"Column '{values.name}' has no value, so that its type cannot be told.",
            hint="Cast it to a type, or give the dataset a contract.",
        )
    for kind, kept in DTYPES.items():
        if dtype == kept:
            return kind
    raise InvalidInputError(
        f"Column '{values.name}' is {dtype}, which a dataset cannot hold.",
        hint="Datasets hold numbers, text, booleans, dates and times: leave the column out or convert it.",
    )


def is_safe(values: pl.Series, kind: ColumnType) -> bool:
    """Whether `values` become this type without a guess or a loss.

    Integers may become floats, dates times (at midnight UTC), categories text; a time without a zone is
    taken as UTC. Text never becomes a number or a time, and a float never an integer.
    """
    dtype = values.dtype
    if dtype == pl.Null or dtype == DTYPES[kind]:
        return True
    match kind:
        case "float":
            return dtype.is_numeric()
        case "int":
            return dtype.is_integer() and _fits(values)
        case "str":
            return isinstance(dtype, pl.Categorical | pl.Enum)
        case "datetime":
            return isinstance(dtype, pl.Datetime | pl.Date)
        case _:
            return False


def in_type(name: str, kind: ColumnType) -> pl.Expr:
    """The column `name`, which `is_safe`, in this type."""
    return pl.col(name).cast(DTYPES[kind])


def _fits(values: pl.Series) -> bool:
    """Whether wider or unsigned integers are all within 64 bits."""
    if values.dtype not in (pl.UInt64, pl.Int128, pl.UInt128):
        return True
    return values.cast(pl.Int64, strict=False).null_count() == values.null_count()
