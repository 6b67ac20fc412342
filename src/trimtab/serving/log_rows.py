"""The prediction log as rows: what shippers make of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from trimtab.serving.frames import (
    EntryFrame,
    FailureFrame,
    Frame,
    LabelFrame,
    MatrixFrame,
    RowFrame,
    RowsFrame,
    unpacked,
)
from trimtab.serving.prediction_ids import row_ids


class PredictionRow(msgspec.Struct, frozen=True):
    """One prediction. `arm`: the position in `entry.versions` of the version that answered; `scores` has what
    each version said, None where it failed; `at` is event time and `took` a duration, in microseconds."""

    entry: EntryFrame
    id: str
    at: int
    key: str | None
    arm: int
    values: Sequence[Any]
    scores: list[float | None]
    took: int

    @property
    def answer(self) -> float | None:
        """What the caller was told."""
        return self.scores[self.arm]


class LogRows(msgspec.Struct):
    """What some frames hold."""

    predictions: list[PredictionRow] = []
    labels: list[LabelFrame] = []
    failures: list[FailureFrame] = []

    def __bool__(self) -> bool:
        return bool(self.predictions or self.labels or self.failures)


class Unfolding:
    """Turns one segment's frames into rows; remembers its entries, which later frames refer to."""

    def __init__(self) -> None:
        self._entries: dict[int, EntryFrame] = {}

    def learn(self, frames: Iterable[Frame]) -> None:
        """Take up the entries of frames whose rows are not wanted."""
        for frame in frames:
            if isinstance(frame, EntryFrame):
                self._entries[frame.ref] = frame

    def rows(self, frames: Iterable[Frame]) -> LogRows:
        """The rows of the frames that follow those seen so far."""
        found = LogRows()
        for frame in frames:
            match frame:
                case EntryFrame():
                    self._entries[frame.ref] = frame
                case RowFrame():
                    entry = self._entries[frame.ref]
                    found.predictions.append(
                        PredictionRow(
                            entry,
                            frame.id,
                            frame.at,
                            frame.key,
                            frame.arm,
                            frame.values,
                            frame.scores,
                            frame.took,
                        )
                    )
                case RowsFrame():
                    found.predictions.extend(_split(self._entries[frame.ref], frame))
                case MatrixFrame():
                    found.predictions.extend(_rows(self._entries[frame.ref], frame))
                case LabelFrame():
                    found.labels.append(frame)
                case FailureFrame():
                    found.failures.append(frame)
        return found


def _split(entry: EntryFrame, frame: RowsFrame) -> Iterator[PredictionRow]:
    rows = len(frame.arms)
    nothing = [None] * rows
    values = zip(*(nothing if column is None else unpacked(column) for column in frame.columns), strict=True)
    scores = zip(*(nothing if score is None else unpacked(score) for score in frame.scores), strict=True)
    keys = nothing if frame.keys is None else frame.keys
    ids = row_ids(frame.id, rows)
    for id, key, arm, cells, said in zip(ids, keys, frame.arms, values, scores, strict=True):
        yield PredictionRow(entry, id, frame.at, key, arm, list(cells), list(said), frame.took)


def _rows(entry: EntryFrame, frame: MatrixFrame) -> Iterator[PredictionRow]:
    numbers = frame.numbers()
    rows, missing = frame.rows, np.isnan(numbers).any()
    nothing = [None] * rows
    scores = zip(*(nothing if score is None else unpacked(score) for score in frame.scores), strict=True)
    keys = frame.key if isinstance(frame.key, list) else [frame.key] * rows
    arms = frame.arm if isinstance(frame.arm, list) else [frame.arm] * rows
    beyond = [None] * (len(entry.columns) - frame.width)
    ids = row_ids(frame.id, rows)
    for id, key, arm, cells, said in zip(ids, keys, arms, numbers.tolist(), scores, strict=True):
        values = [None if cell != cell else cell for cell in cells] if missing else cells
        yield PredictionRow(entry, id, frame.at, key, arm, values + beyond, list(said), frame.took)
