"""Quantile sketches of many values at once: sorted by NumPy, and handed over in the sketches' serial form.

A KLL sketch (Karnin, Lang and Liberty 2016) is a set of values that each stand for a power of two of values.
Sorted values can be thinned to such a set directly, by the middle of each run of 2^h: no rank is off by more
than half a run, a fifth of a percent, which is less than when they come one by one, and takes a tenth of the
time. The serial form is that of Apache DataSketches, the same in C++, Java and Python.
"""

from __future__ import annotations

import struct

import datasketches
import numpy as np
from numpy.typing import NDArray

QUANTILE_K = 512
_M = 8
_PREAMBLE = struct.Struct("<BBBBHBBQHBB")
_LONG, _SERIAL_VERSION, _FAMILY, _LOWEST_SORTED = 5, 1, 15, 2


def sketch_of_sorted(values: NDArray[np.float64]) -> datasketches.kll_doubles_sketch:
    """The sketch of finite values in ascending order; of up to 512 it has all."""
    count = values.size
    if count <= QUANTILE_K:
        sketch = datasketches.kll_doubles_sketch(QUANTILE_K)
        if count:
            sketch.update(values)
        return sketch
    top = 0
    while count >> top > QUANTILE_K:
        top += 1
    run = 1 << top
    whole = (count - 1) >> top << top  # some are left over, since the lowest level must not be empty
    thinned, rest = values[run // 2 : whole : run], values[whole:]
    levels = top + 1
    capacity = sum(_level_capacity(depth) for depth in range(levels))
    start = capacity - thinned.size - rest.size
    offsets = [start, *[start + rest.size] * (levels - 1)]
    data = b"".join(
        [
            _PREAMBLE.pack(
                *(_LONG, _SERIAL_VERSION, _FAMILY, _LOWEST_SORTED),
                *(QUANTILE_K, _M, 0, count, QUANTILE_K, levels, 0),
            ),
            struct.pack(f"<{levels}I", *offsets),
            np.array([values[0], values[-1]], dtype="<f8").tobytes(),
            rest.astype("<f8").tobytes(),
            thinned.astype("<f8").tobytes(),
        ]
    )
    return datasketches.kll_doubles_sketch.deserialize(data)


def _level_capacity(depth: int) -> int:
    """How much the level so far below the top may hold: two thirds of the one above it, rounded as the
    library does, which computes the size of a sketch from this."""
    scaled: int = (QUANTILE_K << (depth + 1)) // 3**depth
    return max(_M, (scaled + 1) >> 1)
