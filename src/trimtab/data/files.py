"""Rows from files: Parquet, and CSV, whose text is read as the dataset's types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from trimtab.data.column_types import DTYPES
from trimtab.data.spec import ColumnType
from trimtab.errors import InvalidInputError

SUFFIXES = (".parquet", ".csv")


def read_file(path: Path, types: Mapping[str, ColumnType] | None = None) -> pl.DataFrame:
    """The rows of a Parquet or CSV file.

    A CSV file has text only: columns in `types` are read as those, all others as what their values look
    like; times are written as in RFC 3339. Raises InvalidInputError if the file cannot be read so, and
    OSError if it cannot be opened.
    """
    with path.open("rb"):  # a file that is missing or forbidden is not a file with bad content
        pass
    try:
        match path.suffix.lower():
            case ".parquet":
                return pl.read_parquet(path, hive_partitioning=False)
            case ".csv":
                return pl.read_csv(
                    path,
                    try_parse_dates=True,
                    infer_schema_length=None,
                    schema_overrides={name: DTYPES[kind] for name, kind in (types or {}).items()},
                )
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInputError(
            f"The file {path.name} cannot be read: {reason}.", hint="Check that it is whole."
        ) from error
    raise InvalidInputError(
        f"The file {path.name} is of no known kind.", hint=f"Give one that ends in {' or '.join(SUFFIXES)}."
    )
