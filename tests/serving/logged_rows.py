"""The prediction log row by row, as a test wants to see it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from trimtab.serving.frames import bodies
from trimtab.serving.log_columns import PredictionColumns, Unfolding, read_logged


class PredictionRow(msgspec.Struct, frozen=True):
    """One logged prediction; None stands for what is missing."""

    id: str
    at: int
    key: str | None
    arm: int
    values: list[Any]
    scores: list[float | None]

    @property
    def answer(self) -> float | None:
        return self.scores[self.arm]


def logged_rows(segment: bytes) -> list[PredictionRow]:
    """The predictions in the bytes of a segment."""
    content = Unfolding().columns(read_logged(bodies(segment).bodies))
    return [row for part in content.predictions for row in rows_of(part)]


def rows_of(part: PredictionColumns) -> list[PredictionRow]:
    """The rows of some columns."""
    keys = part.keys or [None] * len(part)
    cells = [_plain(values, len(part)) for values in part.values]
    said = [_plain(scores, len(part)) for scores in part.scores]
    return [
        PredictionRow(
            id,
            int(part.at[row]),
            keys[row],
            int(part.arm[row]),
            [column[row] for column in cells],
            [scores[row] for scores in said],
        )
        for row, id in enumerate(part.ids())
    ]


def _plain(cells: Any, rows: int) -> list[Any]:
    if cells is None:
        return [None] * rows
    if isinstance(cells, np.ndarray):
        return [None if value != value else value for value in cells.tolist()]
    return list(cells)
