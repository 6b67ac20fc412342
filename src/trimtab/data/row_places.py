"""Each row's place in [0, 1): pseudo-random, evenly spread, and the same for ever.

It is made of the number of the append that brought the row and the row's number in it, by SplitMix64 (Steele,
Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 17): integer arithmetic that no
library's next version changes.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.data.window import Part

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def in_part(batch: pl.Series, row: pl.Series, part: Part) -> pl.Series:
    """Which of these rows, given by append and number, have their place in `part`."""
    low, high = part
    places = row_places(batch.to_numpy().astype(np.uint64), row.to_numpy().astype(np.uint64))
    return pl.Series((places >= low) & (places < high), dtype=pl.Boolean)


def row_places(batch: NDArray[np.uint64], row: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The places of rows, in [0, 1)."""
    bits = _mixed(_mixed(batch + _STEP) + (row + np.uint64(1)) * _STEP)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
