"""How far a conversion lies from its original."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError
from trimtab.models.runtimes.runtime import Runtime

Numbers = NDArray[np.float64]

_ALONE = 20
"""Rows that are asked alone as well."""


class Differs(msgspec.Struct, frozen=True):
    """Where a conversion and its original differ most: relative to the larger of 1 and the original."""

    difference: float
    row: int = 0
    converted: float = math.nan
    original: float = math.nan


def furthest(made: Numbers, said: Numbers) -> Differs:
    """Where what was made is furthest from what the original said; NaN goes with NaN only."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(made - said) / np.maximum(1.0, np.abs(said))
    apart = np.where((made == said) | (np.isnan(made) & np.isnan(said)), 0.0, apart)
    apart = np.where(np.isnan(apart), np.inf, apart)
    row = int(np.argmax(apart))
    return Differs(float(apart[row]), row, float(made[row]), float(said[row]))


def check_singles(runtime: Runtime, matrix: Numbers, made: Numbers, tolerance: float) -> None:
    """Raise InvalidInputError for a runtime that answers rows alone otherwise than `made`, which it said to
    all of `matrix`."""
    singles = np.array([runtime.row(values) for values in matrix[:_ALONE].tolist()])
    if not np.allclose(singles, made[:_ALONE], rtol=tolerance, atol=tolerance, equal_nan=True):
        raise InvalidInputError("It answers a row alone otherwise than among others.")
