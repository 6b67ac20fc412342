"""Columns of numbers in few bytes, for blocks in the metadata store.

Integers are kept by their differences, which for times and numbers that count up are small; floats in single
precision where that loses nothing; and either once where all are the same.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Integers = bytes | list[int]
Floats = bytes | list[float | None]

_HEADER = struct.Struct("<cBqI")
_KINDS = {b"1": "<i1", b"2": "<i2", b"4": "<i4", b"8": "<i8"}
_SAME = b"="
_FLOATS = {b"f": "<f4", b"d": "<f8"}
_DEFLATED = 1
_DEFLATE_ABOVE = 64


def pack_integers(values: NDArray[np.int64]) -> bytes:
    """As `unpack_integers` takes it."""
    if not values.size:
        return _HEADER.pack(_SAME, 0, 0, 0)
    first = int(values[0])
    steps = np.diff(values)
    low, high = (int(steps.min()), int(steps.max())) if steps.size else (0, 0)
    if low == high == 0:
        return _HEADER.pack(_SAME, 0, first, values.size)
    kind = next(
        kind for kind, dtype in _KINDS.items() if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max
    )
    return _packed(kind, first, values.size, steps.astype(_KINDS[kind]).tobytes())


def unpack_integers(packed: Integers) -> NDArray[np.int64]:
    """What `pack_integers` made; a plain list too."""
    if isinstance(packed, list):
        return np.array(packed, dtype=np.int64)
    kind, first, count, data = _unpacked(packed)
    if kind == _SAME:
        return np.full(count, first, dtype=np.int64)
    values = np.empty(count, dtype=np.int64)
    values[0] = first
    np.cumsum(np.frombuffer(data, _KINDS[kind]), out=values[1:])
    values[1:] += first
    return values


def pack_floats(values: NDArray[np.float64]) -> bytes:
    """As `unpack_floats` takes it."""
    bits = values.view(np.int64)
    if values.size and (bits == bits[0]).all():
        return _HEADER.pack(_SAME, 0, int(bits[0]), values.size)
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
    kind = b"f" if np.array_equal(single.astype(np.float64), values, equal_nan=True) else b"d"
    data = single.tobytes() if kind == b"f" else values.tobytes()
    return _HEADER.pack(kind, 0, 0, values.size) + data


def unpack_floats(packed: Floats) -> NDArray[np.float64]:
    """What `pack_floats` made; a plain list, in which None is NaN, too."""
    if isinstance(packed, list):
        return np.array(packed, dtype=np.float64)
    kind, first, count, data = _unpacked(packed)
    if kind == _SAME:
        return np.full(count, first, dtype=np.int64).view(np.float64)
    return np.frombuffer(data, _FLOATS[kind]).astype(np.float64)


def _packed(kind: bytes, first: int, count: int, data: bytes) -> bytes:
    flags = 0
    if len(data) > _DEFLATE_ABOVE:
        smaller = zlib.compress(data, 1)
        if len(smaller) < len(data):
            flags, data = _DEFLATED, smaller
    return _HEADER.pack(kind, flags, first, count) + data


def _unpacked(packed: bytes) -> tuple[bytes, int, int, bytes]:
    kind, flags, first, count = _HEADER.unpack_from(packed)
    data = packed[_HEADER.size :]
    return kind, first, count, zlib.decompress(data) if flags & _DEFLATED else data
