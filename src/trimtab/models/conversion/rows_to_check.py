"""The rows on which a conversion is compared with its original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from trimtab.models.inputs import Inputs, frame_columns
from trimtab.models.signature import Column, Signature

PERTURBED = 256
MOST_HELD_OUT = 20_000
_SEED = 20_111
UNSEEN = "a value that training did not see"

Rows = dict[str, list[Any]]


def given_rows(inputs: Inputs, held_out: pl.DataFrame | None) -> Rows:
    """The example rows, and the held-out ones, of many evenly spread ones."""
    rows: Rows = {name: list(values) for name, values in inputs.example.items()}
    if held_out is None:
        return rows
    if held_out.height > MOST_HELD_OUT:
        held_out = held_out.gather_every(-(-held_out.height // MOST_HELD_OUT))
    inputs.matrix(held_out)  # says what is wrong with them
    for name, values in frame_columns(held_out, inputs.signature).items():
        rows[name] += [
            _plain(value) for value in (values.tolist() if isinstance(values, np.ndarray) else values)
        ]
    return rows


def perturbed_rows(inputs: Inputs, rows: Rows) -> Rows:
    """Rows like the given ones, with numbers moved a little or far away, and other known categories."""
    random = np.random.default_rng(_SEED)
    count = len(next(iter(rows.values())))
    picked = random.integers(0, count, PERTURBED)
    return {
        column.name: _perturbed(column, rows[column.name], picked, random)
        for column in inputs.signature.columns
    }


def with_missing(inputs: Inputs, rows: Rows) -> list[tuple[str, Rows]]:
    """For each column that may be missing: its name, and rows without it."""
    few = {name: values[:5] for name, values in rows.items()}
    return [
        (column.name, {**few, column.name: [None] * len(few[column.name])})
        for column in inputs.signature.columns
        if column.nullable
    ]


def with_unknown(inputs: Inputs, rows: Rows) -> list[tuple[str, Rows]]:
    """For each category column: its name, and rows with a value that is not among its categories."""
    few = {name: values[:5] for name, values in rows.items()}
    made = []
    for column in inputs.signature.columns:
        if column.categories:
            first = column.categories[0]
            other: Any = UNSEEN if isinstance(first, str) else max(map(int, column.categories)) + 1
            made.append((column.name, {**few, column.name: [other] * len(few[column.name])}))
    return made


def with_closed(inputs: Inputs, names: set[str]) -> Inputs:
    """The inputs, with these category columns refusing what is not among their categories."""
    columns = tuple(
        msgspec.structs.replace(column, closed=True) if column.name in names else column
        for column in inputs.signature.columns
    )
    return Inputs(Signature(columns, inputs.signature.missing), inputs.example)


def opened(signature: Signature) -> Signature:
    """The signature without what it refuses, to encode rows that are compared."""
    columns = tuple(msgspec.structs.replace(c, closed=False, nullable=True) for c in signature.columns)
    return Signature(columns, signature.missing)


def _perturbed(column: Column, values: Sequence[Any], picked: Any, random: np.random.Generator) -> list[Any]:
    if column.kind == "boolean":
        return [bool(value) for value in random.integers(0, 2, len(picked))]
    if column.categories:
        return [column.categories[place] for place in random.integers(0, len(column.categories), len(picked))]
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if not known.size:
        known = np.zeros(1)
    spread = float(np.std(known)) or float(np.abs(known).max()) or 1.0
    moved = known[picked % known.size] + spread * random.normal(size=len(picked)) * random.choice(
        [0.01, 0.5, 5.0], len(picked)
    )
    if all(type(value) is int for value in values):
        return [round(value) for value in moved.tolist()]
    return list(moved.tolist())


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value
