"""From log rows to the columns of the Delta tables `predictions/ENDPOINT` and `feedback/ENDPOINT`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import polars as pl

from trimtab.serving.frames import ColumnKind, LabelFrame
from trimtab.serving.log_rows import PredictionRow

PREDICTION_SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "at": pl.Datetime("us", "UTC"),
    "version": pl.Int64(),
    "generation": pl.Int64(),
    "role": pl.String(),
    "key": pl.String(),
    "prediction": pl.Float64(),
    "scores": pl.String(),
    "took_us": pl.Int64(),
}
"""The columns that every table of predictions has; `scores` is JSON: what each version said. The features
follow under their own names; one that is named like a column here has "feature_" before its name."""

FEEDBACK_SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "key": pl.String(),
    "at": pl.Datetime("us", "UTC"),
    "received_at": pl.Datetime("us", "UTC"),
    "label": pl.Float64(),
    "label_text": pl.String(),
}
"""The columns of a table of feedback. `id`, or `key` and `at`, name the prediction; numbers and truth values
stand in `label`, texts in `label_text`."""

_TYPES: dict[ColumnKind, pl.DataType] = {
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "text": pl.String(),
    "integer": pl.Int64(),
}
_SUFFIXES = {"Float64": "number", "Boolean": "boolean", "String": "text", "Int64": "integer"}


def prediction_table(endpoint: str) -> str:
    """The name of the table of an endpoint's predictions."""
    return f"predictions/{endpoint}"


def feedback_table(endpoint: str) -> str:
    """The name of the table of an endpoint's feedback."""
    return f"feedback/{endpoint}"


def prediction_columns(rows: Sequence[PredictionRow]) -> pl.DataFrame:
    """The rows of one endpoint, in their order."""
    encode = msgspec.json.Encoder().encode
    frame = pl.DataFrame(
        {
            "id": [row.id for row in rows],
            "at": [row.at for row in rows],
            "version": [row.entry.versions[row.arm] for row in rows],
            "generation": [row.entry.generation for row in rows],
            "role": [row.entry.roles[row.arm] for row in rows],
            "key": [row.key for row in rows],
            "prediction": [row.answer for row in rows],
            "scores": [
                encode(dict(zip(map(str, row.entry.versions), row.scores, strict=True))).decode()
                for row in rows
            ],
            "took_us": [row.took for row in rows],
        },
        schema_overrides={**PREDICTION_SCHEMA, "at": pl.Int64()},
    ).with_columns(pl.from_epoch("at", time_unit="us").dt.replace_time_zone("UTC"))
    return frame.hstack(list(feature_columns(rows, reserved=PREDICTION_SCHEMA)))


def feature_columns(rows: Sequence[PredictionRow], *, reserved: Collection[str] = ()) -> pl.DataFrame:
    """The features of rows that may have come over several routes. What a version takes as another kind of
    value than an earlier one stands in a column of its own, named with the kind behind it."""
    kinds: dict[str, ColumnKind] = {}
    plans: dict[int, list[tuple[str, int]]] = {}
    for entry in {id(row.entry): row.entry for row in rows}.values():
        plans[id(entry)] = [
            (_named(name, kind, kinds, reserved), place)
            for place, (name, kind) in enumerate(zip(entry.columns, entry.kinds, strict=True))
        ]
    cells: dict[str, list[Any]] = {name: [None] * len(rows) for name in kinds}
    for number, row in enumerate(rows):
        for name, place in plans[id(row.entry)]:
            cells[name][number] = row.values[place]
    return pl.DataFrame([_series(name, kind, cells[name]) for name, kind in kinds.items()])


def feedback_columns(labels: Sequence[LabelFrame]) -> pl.DataFrame:
    """The labels of one endpoint, in their order."""
    frame = pl.DataFrame(
        {
            "id": [label.id for label in labels],
            "key": [label.key for label in labels],
            "at": [label.at for label in labels],
            "received_at": [label.received for label in labels],
            "label": [None if isinstance(label.label, str) else float(label.label) for label in labels],
            "label_text": [label.label if isinstance(label.label, str) else None for label in labels],
        },
        schema_overrides={**FEEDBACK_SCHEMA, "at": pl.Int64(), "received_at": pl.Int64()},
    )
    times = [
        pl.from_epoch(name, time_unit="us").dt.replace_time_zone("UTC") for name in ("at", "received_at")
    ]
    return frame.with_columns(times)


def fitted(rows: pl.DataFrame, standing: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The rows with columns renamed where a standing table has another type under their name."""
    return rows.rename(
        {
            name: f"{name}__{_SUFFIXES.get(str(dtype), str(dtype).lower())}"
            for name, dtype in rows.schema.items()
            if name in standing and standing[name] != dtype
        }
    )


def _named(name: str, kind: ColumnKind, kinds: dict[str, ColumnKind], reserved: Collection[str]) -> str:
    if name in reserved:
        name = f"feature_{name}"
    if kinds.setdefault(name, kind) != kind:
        name = f"{name}__{kind}"
        kinds[name] = kind
    return name


def _series(name: str, kind: ColumnKind, values: list[Any]) -> pl.Series:
    """A column of one type; a value that is not of the kind (only versions on trial may get one) is null."""
    match kind:
        case "number":
            values = [float(v) if type(v) in (int, float) else None for v in values]
        case "integer":
            values = [
                int(v) if type(v) is int or (type(v) is float and v.is_integer()) else None for v in values
            ]
        case "boolean":
            values = [v if type(v) is bool else None for v in values]
        case "text":
            values = [v if type(v) is str else None for v in values]
    return pl.Series(name, values, dtype=_TYPES[kind])
