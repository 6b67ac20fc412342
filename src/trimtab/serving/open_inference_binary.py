"""Tensors as bytes: the little-endian form that the binary extension of REST and gRPC's raw contents share.

Numbers are read as views of the bytes that came, with no Python object for each. BYTES elements are texts
here, each with its length in four bytes before it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError

Buffer = bytes | memoryview

_LENGTH = struct.Struct("<I")

_ARRAYS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("u1"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}

DATATYPES = frozenset({*_ARRAYS, "BYTES"})
"""The datatypes that a tensor may have. BF16 is Triton's addition and has no JSON form."""


def unpacked(name: str, datatype: str, count: int, raw: Buffer) -> NDArray[Any] | list[str]:
    """The `count` elements of the tensor `name`: an array that views `raw` where it can, texts for BYTES.

    Raises InvalidInputError if `raw` is not exactly so many elements.
    """
    if datatype == "BYTES":
        return _texts(name, count, raw)
    dtype = _ARRAYS[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InvalidInputError(
            f"The tensor '{name}' has {len(raw)} bytes where {count} elements of {datatype} have "
            f"{count * dtype.itemsize}."
        )
    values = np.frombuffer(raw, dtype)
    if datatype == "BOOL":
        if count and values.max() > 1:
            raise InvalidInputError(f"The tensor '{name}' of BOOL has a byte that is neither 0 nor 1.")
        return values.view(np.bool_)
    if datatype == "BF16":  # the upper half of a float of 32 bits
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def packed_numbers(values: Sequence[float]) -> bytes:
    """The numbers as FP64."""
    return struct.pack(f"<{len(values)}d", *values)


def _texts(name: str, count: int, raw: Buffer) -> list[str]:
    size, place = len(raw), 0
    texts: list[str] = []
    # A count that the shape claims is not believed: each element takes four bytes at least.
    if count > size // _LENGTH.size:
        raise _uneven(name, count, size)
    for _ in range(count):
        start = place + _LENGTH.size
        if start > size:
            raise _uneven(name, count, size)
        place = start + _LENGTH.unpack_from(raw, place)[0]
        if place > size:
            raise _uneven(name, count, size)
        try:
            texts.append(str(raw[start:place], "utf-8"))
        except UnicodeDecodeError:
            raise InvalidInputError(
                f"Element {len(texts)} of the tensor '{name}' is not UTF-8, so it is no text."
            ) from None
    if place != size:
        raise _uneven(name, count, size)
    return texts


def _uneven(name: str, count: int, size: int) -> InvalidInputError:
    return InvalidInputError(
        f"The {size} bytes of the tensor '{name}' are not {count} elements of BYTES.",
        hint="Each has its length in four bytes (little-endian) before it.",
    )
