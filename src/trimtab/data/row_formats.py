"""Rows as files and messages carry them: Parquet, Arrow, CSV, JSON and newline-delimited JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from trimtab.data.column_types import DTYPES
from trimtab.data.spec import ColumnType
from trimtab.errors import InvalidInputError

BY_SUFFIX = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "ndjson",
    ".ndjson": "ndjson",
}

BY_CONTENT_TYPE = {
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.file": "arrow",
    "text/csv": "csv",
    "application/json": "json",
    "application/x-ndjson": "ndjson",
}

_TIME = r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
"""RFC 3339, where seconds, the zone (UTC then) or the time of day (midnight then) may be left out."""


def read_rows(data: bytes, form: str, types: Mapping[str, ColumnType] | None = None) -> pl.DataFrame:
    """The rows of a message in one of the forms above; raises InvalidInputError if they are not that.

    CSV and JSON cannot say all types: columns in `types` are read as those (`Datasets.types` knows them), so
    that "007" stays text and "2011-01-01T00:00:00Z" becomes a time, also where Parquet holds it as a text.
    Others are what they look like.
    """
    if not data:
        raise InvalidInputError("There are no rows: the content is empty.")
    known = types or {}
    source = io.BytesIO(data)
    try:
        match form:
            case "parquet":
                rows = pl.read_parquet(source)
            case "arrow":
                rows = pl.read_ipc(source)
            case "csv":
                rows = pl.read_csv(
                    source,
                    try_parse_dates=True,
                    infer_schema_length=None,
                    schema_overrides={name: _spelled(kind) for name, kind in known.items()},
                )
            case "json":
                rows = pl.read_json(source, infer_schema_length=None)
            case _:
                rows = pl.read_ndjson(source, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError, ValueError, pl.exceptions.PanicException) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInputError(f"These rows cannot be read as {form}: {reason}.") from None
    return rows.with_columns(
        _times(rows.get_column(name), kind) for name, kind in known.items() if name in rows.columns
    )


def read_rows_file(path: Path, types: Mapping[str, ColumnType] | None = None) -> pl.DataFrame:
    """The rows of a file, by its suffix; raises InvalidInputError for an unknown one, or no such file."""
    form = BY_SUFFIX.get(path.suffix.lower())
    if form is None:
        raise InvalidInputError(
            f"{path} has no suffix that says how to read it.", hint=f"Name it {', '.join(sorted(BY_SUFFIX))}."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from None
    return read_rows(data, form, types)


def _spelled(kind: ColumnType) -> pl.DataType:
    """The type that CSV's text is read as; times are read by `_times`, which does not guess."""
    return pl.String() if kind in ("datetime", "date") else DTYPES[kind]


def _times(values: pl.Series, kind: ColumnType) -> pl.Series:
    """A column of written times or dates as what they are; any other column as it is."""
    if kind not in ("datetime", "date") or values.dtype != pl.String:
        return values
    day, clock, seconds, zone = (
        values.str.extract(_TIME, group).fill_null(default)
        for group, default in ((1, ""), (2, "00:00"), (3, ":00"), (4, "Z"))
    )
    written = day if kind == "date" else day + "T" + clock + seconds + zone
    found = (
        written.str.to_date("%Y-%m-%d", strict=False)
        if kind == "date"
        else written.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    )
    wrong = values.filter(found.is_null() & values.is_not_null())
    if len(wrong):
        raise InvalidInputError(
            f"Column '{values.name}' has {wrong[0]!r}, which is not a {kind}.",
            hint="Write times as in 2011-09-01T00:00:00Z (RFC 3339)."
            if kind == "datetime"
            else "Write dates as in 2011-09-01.",
        )
    return found.alias(values.name)
