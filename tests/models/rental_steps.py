"""Steps around a model of rentals, as a user writes them: good ones, and such as must not be packed."""

from __future__ import annotations

import os
import random
import re
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tests.models.rental_places import PLACES, place_code

import trimtab as tt
from trimtab.errors import InvalidInputError

FAHRENHEIT = 1.8
OFFSETS = dict.fromkeys(["clear", "mist"], 0.5)
OFFSETS["rain"] = -1.0
BUSY = re.compile("clear|mist")
SEEN: list[Any] = [BUSY]
SEEN.append(re.compile("rain"))
STATE = [0.0]
TABLE = pl.DataFrame({"weather": ["clear"], "bonus": [1.0]})

print("rental_steps is imported")


def warmth(celsius: pl.Expr) -> pl.Expr:
    return celsius * FAHRENHEIT + 32


@tt.step(retries=2)
def prepare(frame: pl.DataFrame, *, mean: float = 0.0) -> pl.DataFrame:
    """What the model takes."""
    if (frame["temperature"] < -273).any():
        raise ValueError("colder than cold")
    if (frame["temperature"] > 1000).any():
        raise InvalidInputError("No place is that hot.")
    return frame.select(
        (warmth(pl.col("temperature")) - mean).fill_null(0.0).alias("warmth"),
        pl.col("at").dt.hour().alias("hour"),
        pl.col("weather").cast(pl.String).replace_strict(OFFSETS, default=0.0).alias("offset"),
        pl.Series("place", [place_code(place) for place in frame["place"]]),
        pl.Series("busy", [any(each.match(str(text)) for each in SEEN[:1]) for text in frame["weather"]]),
    )


def double(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * scores


def none_on_holidays(scores: NDArray[np.float64], rows: pl.DataFrame) -> pl.Series:
    return pl.Series(np.where(rows["holiday"].to_numpy(), 0.0, scores))


def centred(frame: pl.DataFrame) -> pl.DataFrame:
    return prepare(frame.with_columns(pl.col("temperature") - pl.col("temperature").mean()))


def following(frame: pl.DataFrame) -> pl.DataFrame:
    return prepare(frame.with_columns(pl.col("temperature").shift(1)))


def by_chance(frame: pl.DataFrame) -> pl.DataFrame:
    return prepare(frame).with_columns(warmth=pl.lit(random.random()))


def by_surroundings(frame: pl.DataFrame) -> pl.DataFrame:
    return prepare(frame).with_columns(warmth=pl.lit(float(os.environ.get("RENTAL_WARMTH", "0"))))


def filtered(frame: pl.DataFrame) -> pl.DataFrame:
    return prepare(frame.filter(pl.col("temperature") > 10))


def joined(frame: pl.DataFrame) -> pl.DataFrame:
    return prepare(frame.join(TABLE, "weather"))


def dynamic(frame: pl.DataFrame) -> pl.DataFrame:
    exec("frame = frame.head()")
    return frame


def to_pandas(frame: pl.DataFrame) -> Any:
    return prepare(frame).to_dict()


def outer() -> Any:
    def inner(frame: pl.DataFrame) -> pl.DataFrame:
        return frame

    return inner


def training() -> float:
    """Stands beside, and is not packed."""
    return len(PLACES) + STATE[0]
