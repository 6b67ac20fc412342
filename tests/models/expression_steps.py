"""Steps that are expressions alone, and some that are nearly so."""

from __future__ import annotations

import math

import polars as pl

import trimtab as tt

PLACES = {"harbour": 1.0, "station": 2.0}
TEMPERATURES = ["low", "high"]
TURN = 2 * math.pi / 24


def warmth(name: str, mean: float) -> pl.Expr:
    return (pl.col(name).fill_null(mean) - mean).alias(f"{name}_warmth")


@tt.step
def prepare(frame: pl.DataFrame, *, mean: float = 0.0) -> pl.DataFrame:
    """What the model takes."""
    hour = pl.col("at").dt.hour()
    return frame.with_columns(
        *[warmth(name, mean) for name in TEMPERATURES],
        (hour * TURN).sin().alias("turn"),
        weekend=pl.col("at").dt.weekday() > 5,
        place_code=pl.col("place").replace_strict(PLACES, default=0.0),
        crowd=pl.when(pl.col("riders") > 5).then(pl.lit(2)).otherwise(pl.lit(1)).cast(pl.Int8),
        few=pl.col("riders").replace_strict(FEW),
    )


FEW = {0: 0, 1: 1, 2: 2, 3: 0, 4: 1, 5: 2, 6: 0, 7: 1, 8: 2}


def lengths(values: pl.Series) -> pl.Series:
    return pl.Series([len(value) for value in values])


def by_python(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(length=lengths(frame["place"]))


def by_branches(frame: pl.DataFrame) -> pl.DataFrame:
    if "at" in frame.columns:
        frame = frame.with_columns(hour=pl.col("at").dt.hour())
    return frame


def by_series(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(frame["low"].fill_null(0.0).alias("least"))
