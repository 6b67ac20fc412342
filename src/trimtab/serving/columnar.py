"""From the log to the columns of the Delta tables `predictions/ENDPOINT` and `feedback/ENDPOINT`."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.serving.frames import ColumnKind, LabelFrame
from trimtab.serving.log_columns import Cells, PredictionColumns, feature_plan, joined_cells

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


def prediction_columns(parts: Sequence[PredictionColumns]) -> pl.DataFrame:
    """The rows of one endpoint, in their order."""
    counts = [len(part) for part in parts]
    answers = np.concatenate([part.answer for part in parts])
    columns = [
        pl.Series("id", [id for part in parts for id in part.ids()], dtype=pl.String),
        _times("at", np.concatenate([part.at for part in parts])),
        pl.Series("version", np.concatenate([part.version for part in parts])),
        pl.Series("generation", np.repeat([part.entry.generation for part in parts], counts)),
        pl.Series("role", [role for part in parts for role in _roles(part)], dtype=pl.String),
        pl.Series("key", [key for part in parts for key in part.keys or [None] * len(part)], dtype=pl.String),
        pl.Series("prediction", answers, nan_to_null=True),
        pl.Series("scores", [said for part in parts for said in _scores(part)], dtype=pl.String),
        pl.Series("took_us", np.concatenate([part.took for part in parts])),
    ]
    kinds, plans = feature_plan([part.entry for part in parts], PREDICTION_SCHEMA)
    for name, kind in kinds.items():
        cells = [
            part.values[plan.index(name)] if name in plan else None
            for part, plan in zip(parts, plans, strict=True)
        ]
        columns.append(_series(name, kind, joined_cells(kind, cells, counts), sum(counts)))
    return pl.DataFrame(columns)


def _roles(part: PredictionColumns) -> list[str]:
    roles = part.entry.roles
    return [*roles] * len(part) if len(roles) == 1 else [roles[arm] for arm in part.arm.tolist()]


def _scores(part: PredictionColumns) -> list[str]:
    """As JSON what each version said, in the form of msgspec, for all rows of a version at once."""
    said = []
    for version, scores in zip(part.entry.versions, part.scores, strict=True):
        numbers = msgspec.json.encode(scores.tolist()).decode()[1:-1]
        said.append(f'"{version}":' + numbers.replace(",", f'\n"{version}":'))
    if len(said) == 1:
        return ("{" + said[0].replace("\n", "}\n{") + "}").split("\n")
    rows = zip(*(each.split("\n") for each in said), strict=True)
    return [f"{{{','.join(row)}}}" for row in rows]


def _series(name: str, kind: ColumnKind, cells: Cells, rows: int) -> pl.Series:
    if cells is None:
        return pl.Series(name, [None] * rows, dtype=_TYPES[kind])
    if isinstance(cells, np.ndarray):
        return pl.Series(name, cells, nan_to_null=True)
    return pl.Series(name, cells, dtype=_TYPES[kind])


def _times(name: str, microseconds: Sequence[int | None] | NDArray[np.int64]) -> pl.Series:
    return pl.Series(name, microseconds, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))


def feedback_columns(labels: Sequence[LabelFrame]) -> pl.DataFrame:
    """The labels of one endpoint, in their order."""
    values = [label.label for label in labels]
    numbers = [None if isinstance(value, str) else float(value) for value in values]
    texts = [value if isinstance(value, str) else None for value in values]
    return pl.DataFrame(
        [
            pl.Series("id", [label.id for label in labels], dtype=pl.String),
            pl.Series("key", [label.key for label in labels], dtype=pl.String),
            _times("at", [label.at for label in labels]),
            _times("received_at", [label.received for label in labels]),
            pl.Series("label", numbers, dtype=pl.Float64),
            pl.Series("label_text", texts, dtype=pl.String),
        ]
    )


def fitted(rows: pl.DataFrame, standing: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The rows with columns renamed where a standing table has another type under their name, or another name
    that is told from theirs by case alone, which Delta Lake takes for the same."""
    taken = {name.lower() for name in standing}
    used: set[str] = set()
    renamed: dict[str, str] = {}
    for name, dtype in sorted(rows.schema.items(), key=lambda column: standing.get(column[0]) != column[1]):
        renamed[name] = next(
            each
            for each in _names(name, dtype)
            if each.lower() not in used and (each.lower() not in taken or standing.get(each) == dtype)
        )
        used.add(renamed[name].lower())
    return rows.rename(renamed)


def _names(name: str, dtype: pl.DataType) -> Iterator[str]:
    """What a column may be called, in an order of its own, so that it is called the same the next time."""
    yield name
    kind = _SUFFIXES.get(str(dtype), str(dtype).lower())
    yield f"{name}__{kind}"
    known = f"{name}__{zlib.crc32(name.encode()):08x}"
    yield known
    yield f"{known}_{kind}"
    yield from (f"{known}_{kind}_{number}" for number in itertools.count(2))
