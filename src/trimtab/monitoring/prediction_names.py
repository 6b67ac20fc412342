"""Names of predictions: what of an id tells it from all others, in a few bits when thousands stand together.

An id of a gateway is 28 characters for a request of one row, or 32, a dot and the row's number (see
`trimtab.serving.prediction_ids`). Its first 12 bytes, who minted it and the request's number, name the
request; the rest proves it genuine, which whoever takes an id from outside asks first. Requests of one minter
whose numbers lie near each other share a shelf. Any other text is a name by itself, and has the empty shelf.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.monitoring.number_columns import Integers, pack_integers, unpack_integers

SHELF_NUMBERS = 4096
"""Requests of one minter that share a shelf."""

MOST_ROWS = 2**24
"""More than the rows of one request."""

_HEAD = 12
_SHELVES = 2**32 // SHELF_NUMBERS
"""Shelves of one minter."""
_SINGLE = re.compile(r"[A-Za-z0-9_-]{28}")
_ROW = re.compile(r"([A-Za-z0-9_-]{32})\.(0|[1-9][0-9]{0,7})")
_FROM_URL = str.maketrans("-_", "+/")
_BYTES_FROM_URL = bytes.maketrans(b"-_", b"+/")


class Name(NamedTuple):
    """The name of one prediction: its shelf, and its place there (a number, or the text where the shelf is
    empty)."""

    shelf: bytes
    place: int | str


def name_of(id: str) -> Name:
    """The name of an id."""
    row = 0
    if _SINGLE.fullmatch(id):
        head = id[:16]
    elif (found := _ROW.fullmatch(id)) and int(found[2]) < MOST_ROWS:
        head, row = id[:16], int(found[2])
    else:
        return Name(b"", id)
    whole = binascii.a2b_base64(head.translate(_FROM_URL))
    return _named(whole, row)


def _named(head: bytes, row: int) -> Name:
    number = int.from_bytes(head[8:], "big")
    first = number - number % SHELF_NUMBERS
    return Name(head[:8] + first.to_bytes(4, "big"), number * MOST_ROWS + row)


class Names:
    """The names of predictions on one shelf, in their order: `places` are numbers, or texts where the shelf
    is empty."""

    def __init__(self, shelf: bytes, places: NDArray[np.int64] | list[str]) -> None:
        self.shelf = shelf
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @property
    def bounds(self) -> tuple[bytes, bytes]:
        """The first and the last of them, as `bound` has it."""
        if isinstance(self.places, list):
            return bound(min(self.places)), bound(max(self.places))
        return bound(int(self.places.min())), bound(int(self.places.max()))

    def take(self, rows: NDArray[np.int64] | slice) -> Names:
        """Some of them."""
        if isinstance(self.places, list):
            chosen = self.places[rows] if isinstance(rows, slice) else [self.places[row] for row in rows]
            return Names(self.shelf, chosen)
        return Names(self.shelf, self.places[rows])

    def joined(self, other: Names) -> Names:
        """These, and then others of the same shelf."""
        if isinstance(self.places, list) or isinstance(other.places, list):
            return Names(self.shelf, [*map(str, self.places), *map(str, other.places)])
        return Names(self.shelf, np.concatenate([self.places, other.places]))

    def rows_of(self, wanted: Sequence[int | str]) -> list[int]:
        """The row of each of these places, -1 where it is not here."""
        if isinstance(self.places, list):
            rows = {text: row for row, text in reversed(list(enumerate(self.places)))}
            return [rows.get(str(place), -1) for place in wanted]
        order = np.argsort(self.places, kind="stable")
        asked = np.array(wanted, dtype=np.int64)
        found = np.searchsorted(self.places, asked, sorter=order)
        inside = np.minimum(found, len(order) - 1)
        rows_found = np.where(self.places[order[inside]] == asked, order[inside], -1)
        return [int(row) for row in rows_found]

    def packed(self) -> list[str] | bytes:
        """As `unpacked` takes it."""
        return self.places if isinstance(self.places, list) else pack_integers(self.places)

    @classmethod
    def unpacked(cls, shelf: bytes, packed: list[str] | Integers) -> Names:
        """What `packed` made."""
        if isinstance(packed, list):
            return cls(shelf, list(map(str, packed)))
        return cls(shelf, unpack_integers(packed))


def bound(place: int | str) -> bytes:
    """A place on a shelf as bytes of the same order."""
    return place.encode(errors="surrogatepass") if isinstance(place, str) else place.to_bytes(7, "big")


def row_ids(heads: Sequence[str], counts: NDArray[np.int64]) -> list[str]:
    """The id of each row of some requests, `counts` of each: the request's, and behind it a dot and the row's
    number where it had not one row."""
    found: list[str] = []
    for head, count in zip(heads, counts.tolist(), strict=True):
        found += [head] if count == 1 else [f"{head}.{row}" for row in range(count)]
    return found


def shelved(ids: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], Names]]:
    """Any ids by shelf: the positions of those on it, and their names."""
    positions: dict[bytes, list[int]] = {}
    places: dict[bytes, list[Any]] = {}
    for position, id in enumerate(ids):
        name = name_of(id)
        positions.setdefault(name.shelf, []).append(position)
        places.setdefault(name.shelf, []).append(name.place)
    for shelf, found in places.items():
        names = Names(shelf, np.array(found, dtype=np.int64) if shelf else found)
        yield np.array(positions[shelf], dtype=np.int64), names


def shelved_heads(
    heads: Sequence[str], rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Names]] | None:
    """The same for requests by their ids without a row's number, `rows` of each: all at once, since there may
    be many thousands. None if one of them is not of a gateway's form."""
    text = "".join([head[:16] for head in heads]).encode("ascii", "replace")
    if len(text) != 16 * len(heads) or {*map(len, heads)} - {28, 32}:
        return None
    try:
        whole = binascii.a2b_base64(text.translate(_BYTES_FROM_URL), strict_mode=True)
    except binascii.Error:
        return None
    parts = np.frombuffer(whole, np.dtype([("minter", "S8"), ("number", ">u4")]))
    return _shelved_parts(whole, parts["number"].astype(np.int64), rows)


def _shelved_parts(
    whole: bytes, numbers: NDArray[np.int64], rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Names]]:
    minters = np.frombuffer(whole, np.uint8).reshape(-1, _HEAD)[:, :8].copy().view(">u8").ravel()
    several, of_minters = np.unique(minters, return_inverse=True)
    shelves, which = np.unique(of_minters * _SHELVES + numbers // SHELF_NUMBERS, return_inverse=True)
    ends = np.cumsum(rows)
    total = int(ends[-1])
    starts = np.repeat(ends - rows, rows)
    places = np.repeat(numbers * MOST_ROWS, rows) + (np.arange(total) - starts)
    of_rows = np.repeat(which, rows)
    for index, each in enumerate(shelves.tolist()):
        minter, number = divmod(each, _SHELVES)
        shelf = int(several[minter]).to_bytes(8, "big") + (number * SHELF_NUMBERS).to_bytes(4, "big")
        mine = np.flatnonzero(of_rows == index) if len(shelves) > 1 else np.arange(total)
        yield mine, Names(shelf, places[mine])
