"""Predictions and labels as they come in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.monitoring.prediction_names import Names, row_ids, shelved, shelved_heads

DAY = timedelta(days=1) // timedelta(microseconds=1)
"""A day in microseconds, which divides event times since 1970 into days of UTC."""


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction: which version answered what, and what each version on the route said (None where it
    failed). `at` is event time in microseconds since 1970."""

    id: str
    endpoint: str
    at: int
    key: str | None
    version: int
    answer: float | None
    scores: dict[int, float | None]


class LabelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned about a prediction, named by its `id`, or by `key` and event time `at`.

    `at` is the very event time that the prediction was asked for; without it the label belongs to the key's
    newest prediction by then. `labelled_at` is the event time at which it was known. In microseconds.
    """

    endpoint: str
    label: float
    labelled_at: int
    id: str | None = None
    key: str | None = None
    at: int | None = None


class LabelCounts(msgspec.Struct):
    """What became of labels: joined to their prediction, kept until it comes, the same as before, or put in
    the place of another."""

    joined: int = 0
    pending: int = 0
    repeated: int = 0
    revised: int = 0


@dataclass(frozen=True)
class Answered:
    """Predictions of one endpoint as arrays of one length, as in `outcome_blocks.Answers`.

    `heads` are the ids of requests, and `counts` how many rows each had; a row's id is its request's, and a
    dot and its number where `counts` is not 1. Plain ids are requests of one row each.
    """

    endpoint: str
    heads: Sequence[str]
    counts: NDArray[np.int64]
    at: NDArray[np.int64]
    version: NDArray[np.int64]
    answer: NDArray[np.float64]
    scores: dict[int, NDArray[np.float64]]
    keys: Sequence[str | None] | None

    def __len__(self) -> int:
        return int(self.at.size)

    def ids(self) -> list[str]:
        """The id of each row."""
        return row_ids(self.heads, self.counts)

    def shelved(self) -> Iterator[tuple[NDArray[np.int64], Names]]:
        """The rows by shelf, and their names."""
        return shelved_heads(self.heads, self.counts) or shelved(self.ids())


def answered(rows: Sequence[PredictionRecord]) -> Iterator[Answered]:
    """Single predictions in columns, by endpoint."""
    grouped: dict[str, list[PredictionRecord]] = defaultdict(list)
    for row in rows:
        grouped[row.endpoint].append(row)
    for endpoint, some in grouped.items():
        keys = [row.key for row in some]
        several = [row for row in some if list(row.scores) != [row.version]]
        versions = dict.fromkeys(version for row in several for version in row.scores)
        yield Answered(
            endpoint,
            [row.id for row in some],
            np.ones(len(some), dtype=np.int64),
            np.array([row.at for row in some], dtype=np.int64),
            np.array([row.version for row in some], dtype=np.int64),
            np.array([row.answer for row in some], dtype=np.float64),
            {
                version: np.array([_said(row, version) for row in some], dtype=np.float64)
                for version in versions
            },
            None if all(key is None for key in keys) else keys,
        )


def _said(row: PredictionRecord, version: int) -> float | None:
    return row.scores.get(version, row.answer if version == row.version else None)


def reference_of(row: LabelRecord) -> str:
    """What a label names: a prediction's id, or a key at a time, or a key."""
    return row.id if row.id is not None else by_key(row.endpoint, row.key, row.at)


def by_key(endpoint: str, key: str | None, at: int | None) -> str:
    """What a label by key names."""
    return f"{endpoint}\x1f{key}\x1f{'' if at is None else at}"
