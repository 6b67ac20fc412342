"""The prediction log as columns: what shippers make of a segment's frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.monitoring.prediction_names import row_ids
from trimtab.serving.frames import (
    ColumnKind,
    EntryFrame,
    FailureFrame,
    LabelFrame,
    MatrixFrame,
)

Cells = NDArray[np.float64] | list[Any] | None
"""A column's values: numbers as an array in which NaN is a missing one, others as a list; None where there
are none at all."""

_FLOAT = 0xCB
"""The byte that msgpack has before a float of 64 bits."""


class LoggedRow(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A `RowFrame` with its values unread, since thousands are read at once. It is part of no cycle, so the
    collector need not look at it."""

    ref: int
    id: str
    at: int
    key: str | None
    arm: int
    values: msgspec.Raw
    scores: list[float | None]
    took: int


class LoggedRows(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A `RowsFrame` whose packed columns are not copied."""

    ref: int
    id: str
    at: int
    keys: list[str | None] | None
    arms: list[int]
    columns: list[list[Any] | memoryview | None]
    scores: list[list[float | None] | memoryview | None]
    took: int


Logged = EntryFrame | LoggedRow | LoggedRows | MatrixFrame | LabelFrame | FailureFrame

_ENTRY = b"\0"
"""The tag of an `EntryFrame`, which stands behind one byte for the length of the array."""

_UNREADABLE = (msgspec.MsgspecError, LookupError, ValueError, TypeError, ArithmeticError)

_logged = msgspec.msgpack.Decoder(list[Logged]).decode
_cells = msgspec.msgpack.Decoder(list[Any]).decode


def read_logged(bodies: Sequence[memoryview]) -> list[Logged]:
    """The frames with these bodies, read as one msgpack array, which takes half as long as one by one."""
    return _logged(b"".join([b"\xdd", len(bodies).to_bytes(4, "big"), *bodies]))


@dataclass(frozen=True)
class PredictionColumns:
    """Predictions that came over one route, as columns of one length.

    `heads` and `counts`: the ids of requests, and how many rows each had. `at` is event time and `took` a
    duration, in microseconds; `arm` the position in `entry.versions` of the version that answered; `scores`
    has what each version said, NaN where it failed; `values` is in the order of the entry's columns.
    """

    entry: EntryFrame
    heads: list[str]
    counts: NDArray[np.int64]
    at: NDArray[np.int64]
    took: NDArray[np.int64]
    arm: NDArray[np.int64]
    keys: list[str | None] | None
    scores: list[NDArray[np.float64]]
    values: list[Cells]

    def __len__(self) -> int:
        return int(self.at.size)

    @property
    def answer(self) -> NDArray[np.float64]:
        """What callers were told."""
        if len(self.scores) == 1:
            return self.scores[0]
        said: NDArray[np.float64] = np.stack(self.scores)[self.arm, np.arange(len(self))]
        return said

    @property
    def version(self) -> NDArray[np.int64]:
        """Which version answered."""
        versions = np.array(self.entry.versions, dtype=np.int64)
        answering: NDArray[np.int64] = versions[self.arm]
        return answering

    def requests(self) -> NDArray[np.int64]:
        """The event time of each request."""
        firsts: NDArray[np.int64] = np.cumsum(self.counts) - self.counts
        return np.take(self.at, firsts)

    def ids(self) -> list[str]:
        """The id of each row."""
        return row_ids(self.heads, self.counts)


@dataclass
class LogContent:
    """What some frames hold; `unreadable`: how many of them are whole, and yet nobody can tell what they say
    (as a row without the entry that it refers to)."""

    predictions: list[PredictionColumns] = field(default_factory=list)
    labels: list[LabelFrame] = field(default_factory=list)
    failures: list[FailureFrame] = field(default_factory=list)
    unreadable: int = 0

    @property
    def rows(self) -> int:
        """How many predictions."""
        return sum(map(len, self.predictions))


class Unfolding:
    """Turns one segment's frames into columns; remembers its entries, which later frames refer to."""

    def __init__(self) -> None:
        self._entries: dict[int, EntryFrame] = {}

    def learn(self, bodies: Sequence[memoryview]) -> None:
        """Take up the entries among frames whose rows are not wanted."""
        self.content([body for body in bodies if body[1:2] == _ENTRY])

    def content(self, bodies: Sequence[memoryview]) -> LogContent:
        """What frames with these bodies hold that follow those seen so far; without unreadable ones, which
        must not keep the others from their tables."""
        try:
            return self.columns(read_logged(bodies))
        except _UNREADABLE:
            readable = list(filter(self._readable, bodies))
            found = self.columns(read_logged(readable))
            found.unreadable = len(bodies) - len(readable)
            return found

    def _readable(self, body: memoryview) -> bool:
        try:
            self.columns(read_logged([body]))
        except _UNREADABLE:
            return False
        return True

    def columns(self, frames: Iterable[Logged]) -> LogContent:
        """What the frames hold that follow those seen so far: of each route first the rows that were asked
        alone, then those of larger requests."""
        found = LogContent()
        alone: dict[int, list[LoggedRow]] = {}
        many: dict[int, list[LoggedRows]] = {}
        matrices: dict[int, list[MatrixFrame]] = {}
        for frame in frames:
            if type(frame) is LoggedRow:  # nearly all of them, by their number
                if (some := alone.get(frame.ref)) is None:
                    some = alone[frame.ref] = []
                some.append(frame)
                continue
            match frame:
                case LoggedRows():
                    many.setdefault(frame.ref, []).append(frame)
                case MatrixFrame():
                    matrices.setdefault(frame.ref, []).append(frame)
                case EntryFrame():
                    self._entries[frame.ref] = frame
                case LabelFrame():
                    found.labels.append(frame)
                case FailureFrame():
                    found.failures.append(frame)
        found.predictions += [_of_single(self._entries[ref], rows) for ref, rows in alone.items()]
        found.predictions += [_of_many(self._entries[ref], rows) for ref, rows in many.items()]
        found.predictions += [_of_matrices(self._entries[ref], parts) for ref, parts in matrices.items()]
        return found


def _of_single(entry: EntryFrame, frames: Sequence[LoggedRow]) -> PredictionColumns:
    keys = [frame.key for frame in frames]
    scores = np.array([frame.scores for frame in frames], dtype=np.float64)
    return PredictionColumns(
        entry,
        [frame.id for frame in frames],
        np.ones(len(frames), dtype=np.int64),
        np.array([frame.at for frame in frames], dtype=np.int64),
        np.array([frame.took for frame in frames], dtype=np.int64),
        np.array([frame.arm for frame in frames], dtype=np.int64),
        None if not any(keys) and keys.count(None) == len(keys) else keys,
        list(np.ascontiguousarray(scores.T)),
        _single_values(entry, [bytes(frame.values) for frame in frames]),
    )


def _single_values(entry: EntryFrame, raw: Sequence[bytes]) -> list[Cells]:
    """The columns of rows of values as msgpack has them. Where all are floats, each stands at the same place
    in its row, and no value need become an object of its own."""
    width = len(entry.columns)
    header = len(raw[0]) - 9 * width
    data = b"".join(raw)
    if header in (1, 3, 5) and set(map(len, raw)) == {len(raw[0])} and set(entry.kinds) <= {"number"}:
        kind = np.dtype([("tag", "u1"), ("number", ">f8")])
        cells = np.frombuffer(data, np.dtype([("header", f"V{header}"), ("cells", kind, (width,))]))["cells"]
        if (cells["tag"] == _FLOAT).all():
            return list(np.ascontiguousarray(cells["number"].T, dtype=np.float64))
    columns = zip(*map(_cells, raw), strict=True)
    return [cells_of(kind, list(column)) for kind, column in zip(entry.kinds, columns, strict=True)]


def _of_many(entry: EntryFrame, frames: Sequence[LoggedRows]) -> PredictionColumns:
    counts = [len(frame.arms) for frame in frames]
    return PredictionColumns(
        entry,
        [frame.id for frame in frames],
        np.array(counts, dtype=np.int64),
        np.repeat(np.array([frame.at for frame in frames], dtype=np.int64), counts),
        np.repeat(np.array([frame.took for frame in frames], dtype=np.int64), counts),
        np.concatenate([np.array(frame.arms, dtype=np.int64) for frame in frames]),
        _joined_keys([frame.keys for frame in frames], counts),
        [
            _joined_numbers([cells_of("number", frame.scores[place]) for frame in frames], counts)
            for place in range(len(entry.versions))
        ],
        [
            joined_cells(kind, [cells_of(kind, frame.columns[place]) for frame in frames], counts)
            for place, kind in enumerate(entry.kinds)
        ],
    )


def _of_matrices(entry: EntryFrame, frames: Sequence[MatrixFrame]) -> PredictionColumns:
    counts = [frame.rows for frame in frames]
    keys = [[frame.key] * frame.rows if isinstance(frame.key, str) else frame.key for frame in frames]
    arms = [np.broadcast_to(np.array(frame.arm, dtype=np.int64), frame.rows) for frame in frames]
    return PredictionColumns(
        entry,
        [frame.id for frame in frames],
        np.array(counts, dtype=np.int64),
        np.repeat(np.array([frame.at for frame in frames], dtype=np.int64), counts),
        np.repeat(np.array([frame.took for frame in frames], dtype=np.int64), counts),
        np.concatenate(arms),
        _joined_keys(keys, counts),
        [
            _joined_numbers([cells_of("number", frame.scores[place]) for frame in frames], counts)
            for place in range(len(entry.versions))
        ],
        list(_matrix_values(entry, frames, sum(counts))),
    )


def _matrix_values(entry: EntryFrame, frames: Sequence[MatrixFrame], rows: int) -> Iterator[Cells]:
    width = max(frame.width for frame in frames)
    columns = np.full((width, rows), np.nan)
    start = 0
    for frame in frames:
        columns[: frame.width, start : start + frame.rows] = frame.numbers().T
        start += frame.rows
    for place, kind in enumerate(entry.kinds):
        if place >= width:
            yield None
        else:
            yield columns[place] if kind == "number" else cells_of(kind, columns[place])


def cells_of(kind: ColumnKind, values: Sequence[Any] | memoryview | NDArray[np.float64] | None) -> Cells:
    """The values of a column; one that is not of its kind (only versions on trial may get one) is missing."""
    if values is None:
        return None
    if isinstance(values, memoryview):
        values = np.frombuffer(values, "<f8")
    if kind == "number":
        return _numbers(values)
    if isinstance(values, np.ndarray):
        values = values.tolist()
    match kind:
        case "integer":
            return [_integer(value) for value in values]
        case "boolean":
            return [value if type(value) is bool else None for value in values]
        case "text":
            return [value if type(value) is str else None for value in values]


def _numbers(values: Sequence[Any] | NDArray[np.float64]) -> NDArray[np.float64]:
    if not isinstance(values, np.ndarray) and not set(map(type, values)) <= {float, int, type(None)}:
        values = [value if type(value) in (int, float) else None for value in values]
    return np.asarray(values, dtype=np.float64)


def _integer(value: Any) -> int | None:
    """A whole number that fits the 64 bits of a table's column."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def joined_cells(kind: ColumnKind, parts: Sequence[Cells], counts: Sequence[int]) -> Cells:
    """The values of some columns of one kind, one after the other, of which each has so many rows."""
    if all(part is None for part in parts):
        return None
    if kind == "number":
        return _joined_numbers(parts, counts)
    whole: list[Any] = []
    for part, count in zip(parts, counts, strict=True):
        whole += [None] * count if part is None else part
    return whole


def _joined_numbers(parts: Sequence[Cells], counts: Sequence[int]) -> NDArray[np.float64]:
    whole = [
        np.full(count, np.nan) if part is None else np.asarray(part)
        for part, count in zip(parts, counts, strict=True)
    ]
    return np.concatenate(whole) if len(whole) > 1 else whole[0]


def _joined_keys(
    parts: Sequence[Sequence[str | None] | None], counts: Sequence[int]
) -> list[str | None] | None:
    if all(part is None for part in parts):
        return None
    found: list[str | None] = []
    for part, count in zip(parts, counts, strict=True):
        found += [None] * count if part is None else part
    return found


def feature_plan(
    entries: Iterable[EntryFrame], reserved: Iterable[str] = ()
) -> tuple[dict[str, ColumnKind], list[list[str]]]:
    """The features of rows that may have come over several routes: the kind of each, and what the columns of
    each entry are called. What a version takes as another kind of value than an earlier one stands in a
    column of its own, named with the kind behind it; one in `reserved` (in lower case, and whatever case the
    feature has) has "feature_" before its name. No two columns of an entry are called the same."""
    kinds: dict[str, ColumnKind] = {}
    taken = set(reserved)
    plans: list[list[str]] = []
    for entry in entries:
        plan: dict[str, None] = {}
        for name, kind in zip(entry.columns, entry.kinds, strict=True):
            name = f"feature_{name}" if name in taken or name.lower() in taken else name
            free = next(
                each for each in _names(name, kind) if each not in plan and kinds.get(each, kind) == kind
            )
            plan[free], kinds[free] = None, kind
        plans.append(list(plan))
    return kinds, plans


def _names(name: str, kind: ColumnKind) -> Iterator[str]:
    yield name
    yield f"{name}__{kind}"
    yield from (f"{name}__{kind}_{number}" for number in itertools.count(2))
