"""What a profile takes of a column of a Polars frame. Apart from `profiles`, for who has no such frame."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Numbers(NamedTuple):
    """Numbers, or times in seconds since 1970; NaN is a missing one."""

    values: NDArray[np.float64]
    kind: Literal["number", "time"] = "number"


class Truths(NamedTuple):
    """So many truth values."""

    true: int
    false: int
    missing: int


class Words(NamedTuple):
    """Texts, by how often each was seen."""

    found: dict[str, int]
    missing: int


class Others(NamedTuple):
    """Values that are only counted."""

    present: int
    missing: int


def column_values(values: pl.Series) -> Numbers | Truths | Words | Others:
    """The values of a column of any type."""
    dtype = values.dtype
    missing = values.null_count()
    if dtype.is_numeric():
        return Numbers(_floats(values))
    if dtype == pl.Boolean:
        true = int(values.sum())
        return Truths(true, len(values) - missing - true, missing)
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return Words(_words(values.cast(pl.String).drop_nulls()), missing)
    if dtype == pl.Duration:
        return Numbers(_floats(values.dt.total_microseconds()) / 1e6)
    if dtype == pl.Date or dtype == pl.Datetime:
        return Numbers(_floats(values.cast(pl.Datetime("us")).dt.timestamp("us")) / 1e6, "time")
    return Others(len(values) - missing, missing)


def _floats(values: pl.Series) -> NDArray[np.float64]:
    """`values` as floats, nulls as NaN."""
    return values.cast(pl.Float64).to_numpy()


def _words(present: pl.Series) -> dict[str, int]:
    if len(present) < 1000:
        return dict(Counter(present.to_list()))
    counted = present.rename("word").value_counts(name="count")
    return dict(zip(counted["word"].to_list(), counted["count"].to_list(), strict=True))
