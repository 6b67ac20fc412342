"""Blocks of outcomes: what up to some thousand predictions answered, and their labels, as a few columns.

About ten bytes a prediction, of which the answer is most.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.monitoring.number_columns import (
    Floats,
    Integers,
    pack_floats,
    pack_integers,
    unpack_floats,
    unpack_integers,
)
from trimtab.monitoring.prediction_names import Names

BLOCK_ROWS = 2048
"""Predictions after which another block begins: a label that comes alone rewrites its block's labels and
reads its answers."""


class _StoredAnswers(msgspec.Struct, frozen=True, array_like=True):
    names: bytes | list[int | str]
    at: Integers
    version: Integers
    answer: Floats
    scores: dict[int, Floats]
    keys: bytes | None


class _StoredLabels(msgspec.Struct, frozen=True, array_like=True):
    rows: Integers
    label: Floats
    labelled_at: Integers
    revisions: Integers


_encode = msgspec.msgpack.Encoder().encode
_answers_decoder = msgspec.msgpack.Decoder(_StoredAnswers)
_labels_decoder = msgspec.msgpack.Decoder(_StoredLabels)
_keys_decoder = msgspec.msgpack.Decoder(list[str | None])


@dataclass(frozen=True)
class Answers:
    """Predictions in a row, as arrays of one length. `at`: event time in microseconds since 1970; `version`
    answered, with `answer` (NaN where it failed). `scores`: for each version on a route with others what it
    said, NaN where it did not. `keys` is None where no prediction has one."""

    names: Names
    at: NDArray[np.int64]
    version: NDArray[np.int64]
    answer: NDArray[np.float64]
    scores: dict[int, NDArray[np.float64]]
    keys: Sequence[str | None] | None

    def __len__(self) -> int:
        return int(self.at.size)

    def take(self, rows: NDArray[np.int64] | slice) -> Answers:
        """Some of them."""
        keys = self.keys
        if keys is not None:
            keys = keys[rows] if isinstance(rows, slice) else [keys[int(row)] for row in rows]
            keys = keys if any(key is not None for key in keys) else None
        return Answers(
            self.names.take(rows),
            self.at[rows],
            self.version[rows],
            self.answer[rows],
            {version: said[rows] for version, said in self.scores.items()},
            keys,
        )

    def joined(self, other: Answers) -> Answers:
        """These, and then others of the same shelf."""
        versions = dict.fromkeys((*self.scores, *other.scores))
        keys = None
        if self.keys is not None or other.keys is not None:
            keys = [*(self.keys or [None] * len(self)), *(other.keys or [None] * len(other))]
        return Answers(
            self.names.joined(other.names),
            np.concatenate([self.at, other.at]),
            np.concatenate([self.version, other.version]),
            np.concatenate([self.answer, other.answer]),
            {version: np.concatenate([self.said(version), other.said(version)]) for version in versions},
            keys,
        )

    def said(self, version: int) -> NDArray[np.float64]:
        """What a version said, NaN where it did not."""
        scores = self.scores.get(version)
        return np.where(self.version == version, self.answer, np.nan) if scores is None else scores

    def packed(self) -> bytes:
        """As `unpacked` takes it."""
        keys = None if self.keys is None else zlib.compress(_encode(list(self.keys)), 1)
        return _encode(
            _StoredAnswers(
                [*names] if isinstance(names := self.names.packed(), list) else names,
                pack_integers(self.at),
                pack_integers(self.version),
                pack_floats(self.answer),
                {version: pack_floats(said) for version, said in self.scores.items()},
                keys,
            )
        )


def unpacked(shelf: bytes, data: bytes) -> Answers:
    """What `Answers.packed` made."""
    stored = _answers_decoder.decode(data)
    keys = None if stored.keys is None else _keys_decoder.decode(zlib.decompress(stored.keys))
    names = stored.names
    return Answers(
        Names.unpacked(shelf, names if isinstance(names, bytes) else list(map(str, names))),
        unpack_integers(stored.at),
        unpack_integers(stored.version),
        unpack_floats(stored.answer),
        {version: unpack_floats(said) for version, said in stored.scores.items()},
        keys,
    )


@dataclass
class Labels:
    """The labels of a block: by row what was learned, when (microseconds of event time), and how often it
    replaced another."""

    label: dict[int, float] = field(default_factory=dict)
    labelled_at: dict[int, int] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label)

    def column(self, rows: int) -> NDArray[np.float64]:
        """The labels of so many rows, NaN where there is none."""
        found = np.full(rows, np.nan)
        found[list(self.label)] = list(self.label.values())
        return found

    def set(self, row: int, label: float, labelled_at: int) -> None:
        """Give a row a label, in the place of what it had."""
        self.revisions[row] = self.revisions.get(row, -1) + 1
        self.label[row], self.labelled_at[row] = label, labelled_at

    def take(self, rows: NDArray[np.int64]) -> Labels:
        """Those of some rows, renumbered."""
        kept = Labels()
        for place, row in enumerate(rows.tolist()):
            if row in self.label:
                kept.label[place] = self.label[row]
                kept.labelled_at[place] = self.labelled_at[row]
                kept.revisions[place] = self.revisions[row]
        return kept

    def packed(self) -> bytes | None:
        """As `labels_of` takes it; None for none."""
        if not self.label:
            return None
        rows = sorted(self.label)
        stored = _StoredLabels(
            pack_integers(np.array(rows, dtype=np.int64)),
            pack_floats(np.array([self.label[row] for row in rows], dtype=np.float64)),
            pack_integers(np.array([self.labelled_at[row] for row in rows], dtype=np.int64)),
            pack_integers(np.array([self.revisions[row] for row in rows], dtype=np.int64)),
        )
        return _encode(stored)


def labels_of(data: bytes | None) -> Labels:
    """What `Labels.packed` made."""
    if data is None:
        return Labels()
    stored = _labels_decoder.decode(data)
    rows = unpack_integers(stored.rows).tolist()
    return Labels(
        dict(zip(rows, unpack_floats(stored.label).tolist(), strict=True)),
        dict(zip(rows, unpack_integers(stored.labelled_at).tolist(), strict=True)),
        dict(zip(rows, unpack_integers(stored.revisions).tolist(), strict=True)),
    )


def label_column(data: bytes | None, rows: int) -> NDArray[np.float64]:
    """The labels of so many rows, NaN where there is none."""
    found = np.full(rows, np.nan)
    if data is not None:
        stored = _labels_decoder.decode(data)
        found[unpack_integers(stored.rows)] = unpack_floats(stored.label)
    return found
