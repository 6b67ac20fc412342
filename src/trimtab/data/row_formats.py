"""Rows as files and messages carry them: Parquet, Arrow, CSV, JSON and newline-delimited JSON."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

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


def read_rows(data: bytes, form: str) -> pl.DataFrame:
    """The rows of a message in one of the forms above; raises InvalidInputError if they are not that."""
    if not data:
        raise InvalidInputError("There are no rows: the content is empty.")
    source = io.BytesIO(data)
    try:
        match form:
            case "parquet":
                return pl.read_parquet(source)
            case "arrow":
                return pl.read_ipc(source)
            case "csv":
                return pl.read_csv(source, try_parse_dates=True, infer_schema_length=10_000)
            case "json":
                return pl.read_json(source)
            case _:
                return pl.read_ndjson(source)
    except (pl.exceptions.PolarsError, OSError, ValueError, pl.exceptions.PanicException) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInputError(f"These rows cannot be read as {form}: {reason}.") from None


def read_rows_file(path: Path) -> pl.DataFrame:
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
    return read_rows(data, form)
