"""Frames: what the prediction log is made of.

A frame is a 4-byte length and a 4-byte CRC-32 of the body, both little-endian, then the body: a msgpack
array whose first element tells its kind. A frame that was cut off at the end of a file was never
acknowledged, so a reader stops there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Label = float | int | str | bool

HEADER = struct.Struct("<II")
LARGEST = 2**28


ColumnKind = Literal["number", "boolean", "text", "integer"]


class EntryFrame(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A route as its predictions refer to it within one segment: by `ref`. `kinds` tells what the values of
    each column are."""

    ref: int
    endpoint: str
    generation: int
    model: str
    versions: tuple[int, ...]
    roles: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: tuple[ColumnKind, ...]


class RowFrame(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """One row's prediction. `arm`: the position of the version that answered; `values` and `scores` are in
    the order of the entry's columns and versions (a score is None where that version failed); `at` is event
    time in microseconds since 1970; `took` how long the gateway worked on it, in microseconds."""

    ref: int
    id: str
    at: int
    key: str | None
    arm: int
    values: Sequence[Any]
    scores: list[float | None]
    took: int


class RowsFrame(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Many rows of one request, column by column; `keys` is None where no row has one. A column of numbers
    may be bytes (see `packed`)."""

    ref: int
    id: str
    at: int
    keys: list[str | None] | None
    arms: list[int]
    columns: list[list[Any] | bytes | None]
    scores: list[list[float] | bytes | None]
    took: int


class MatrixFrame(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Many rows of one request that came as one matrix of numbers: `rows` by `width`, row after row, as
    little-endian floats of 32 or 64 bits, in the order of the entry's first columns; its further columns are
    missing, and so is a number that is NaN. `key` is one for all rows, or one for each, and so is `arm`;
    `scores` has the packed numbers of each version, None where it failed."""

    ref: int
    id: str
    at: int
    rows: int
    width: int
    key: str | list[str | None] | None
    arm: int | list[int]
    matrix: memoryview
    scores: list[memoryview | None]
    took: int

    def numbers(self) -> NDArray[np.floating[Any]]:
        """The matrix, shape (rows, width)."""
        size = len(self.matrix) // (self.rows * self.width)
        return np.frombuffer(self.matrix, f"<f{size}").reshape(self.rows, self.width)


class LabelFrame(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What was learned about a prediction, named by its id, or by key and event time. `received` is the
    event time at which it came in."""

    endpoint: str
    label: Label
    received: int
    id: str | None = None
    key: str | None = None
    at: int | None = None


class FailureFrame(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A request that the gateway itself failed, or a version that failed to score one (then `version`)."""

    endpoint: str
    at: int
    code: str
    version: int | None = None


Frame = EntryFrame | RowFrame | RowsFrame | MatrixFrame | LabelFrame | FailureFrame

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Frame)
_pack = HEADER.pack
_crc = zlib.crc32


def encoded(frame: Frame) -> bytes:
    """The frame's bytes, ready to be appended to a segment."""
    body = _encode(frame)
    return _pack(len(body), _crc(body)) + body


def packed(numbers: NDArray[Any]) -> bytes:
    """A column of numbers as a frame has it: float64, little-endian; NaN is a missing one."""
    return numbers.astype("<f8").tobytes()


def unpacked(column: list[Any] | bytes | memoryview) -> list[Any]:
    """The values of a column, None where one is missing."""
    if isinstance(column, list):
        return column
    numbers = np.frombuffer(column, "<f8")
    values: list[Any] = numbers.tolist()
    return [None if value != value else value for value in values] if np.isnan(numbers).any() else values


class Scan(msgspec.Struct, frozen=True):
    """What a piece of a segment holds. `end`: where the last whole frame ends; `damaged`: behind it stands
    something other than a frame that was cut off."""

    frames: list[Frame]
    end: int
    damaged: bool


def scan(data: bytes, start: int = 0) -> Scan:
    """All whole frames of `data` from `start` on."""
    found = bodies(data, start)
    return Scan([_decoder.decode(body) for body in found.bodies], found.end, found.damaged)


class Bodies(msgspec.Struct, frozen=True):
    """The same, not decoded yet."""

    bodies: list[memoryview]
    end: int
    damaged: bool


def bodies(data: bytes, start: int = 0) -> Bodies:
    """The bodies of all whole frames of `data` from `start` on."""
    found: list[memoryview] = []
    position, size = start, len(data)
    view = memoryview(data)
    while size - position >= HEADER.size:
        length, crc = HEADER.unpack_from(data, position)
        if not 0 < length <= LARGEST:
            return Bodies(found, position, True)
        stop = position + HEADER.size + length
        if stop > size:
            break
        body = view[position + HEADER.size : stop]
        if _crc(body) != crc:
            return Bodies(found, position, stop < size)
        found.append(body)
        position = stop
    return Bodies(found, position, False)
