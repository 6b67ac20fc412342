"""Tables written as files: whole and durable under their final name, or not there at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.errors import StorageFullError

Form = Literal["parquet", "arrow", "csv", "ndjson"]

FORMS: dict[str, Form] = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}

GROUP_ROWS = 131_072
"""Rows of a row group or record batch: few enough to hold, enough to read them well."""

DRAFT = ".draft"


class Table:
    """A file that rows are written to. CSV has no header here: `joined` gives one to the whole."""

    def __init__(self, path: Path, form: Form, schema: dict[str, pl.DataType]) -> None:
        self._form = form
        self._file: BinaryIO = path.open("wb")
        self._arrow: pq.ParquetWriter | pa.RecordBatchFileWriter | None = None
        self._waiting: list[pl.DataFrame] = []
        self._rows = 0
        if form in ("parquet", "arrow"):
            self._arrow = _writer(self._file, form, _to_arrow(pl.DataFrame(schema=schema)).schema)

    def write(self, rows: pl.DataFrame) -> None:
        """Add rows."""
        if self._form == "csv":
            rows.write_csv(self._file, include_header=False)
        elif self._form == "ndjson":
            rows.write_ndjson(self._file)
        else:
            self._waiting.append(rows)
            self._rows += rows.height
            if self._rows >= GROUP_ROWS:
                self._write_group()

    def finish(self) -> None:
        """Bring everything to the disk."""
        if self._arrow is not None:
            if self._waiting:
                self._write_group()
            self._arrow.close()
            self._arrow = None
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write_group(self) -> None:
        assert self._arrow is not None
        self._arrow.write_table(_to_arrow(pl.concat(self._waiting)))
        self._waiting, self._rows = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._arrow is not None:
                self._arrow.close()
        finally:
            self._file.close()


def joined(parts: Sequence[Path], path: Path, form: Form, names: Sequence[str]) -> None:
    """Write tables behind one another as one, durably, with a few row groups in memory at most."""
    with path.open("wb") as file:
        if form in ("csv", "ndjson"):
            if form == "csv":
                pl.DataFrame(schema=dict.fromkeys(names, pl.String)).write_csv(file)
            for part in parts:
                with part.open("rb") as written:
                    shutil.copyfileobj(written, file, 1 << 20)
        else:
            _join_arrow(parts, file, form)
        file.flush()
        os.fsync(file.fileno())


def _join_arrow(parts: Sequence[Path], file: BinaryIO, form: Form) -> None:
    writer: pq.ParquetWriter | pa.RecordBatchFileWriter | None = None
    try:
        for part in parts:
            with _batches(part, form) as (schema, count, batch):
                writer = writer or _writer(file, form, schema)
                for number in range(count):
                    writer.write_table(batch(number))
    finally:
        if writer is not None:
            writer.close()


def _batches(
    part: Path, form: Form
) -> AbstractContextManager[tuple[pa.Schema, int, Callable[[int], pa.Table]]]:
    if form == "parquet":
        found = pq.ParquetFile(part, memory_map=True)
        return nullcontext((found.schema_arrow, found.num_row_groups, found.read_row_group))
    opened = pa.ipc.open_file(pa.memory_map(str(part)))
    return nullcontext(
        (
            opened.schema,
            opened.num_record_batches,
            lambda number: pa.Table.from_batches([opened.get_batch(number)]),
        )
    )


def _writer(file: BinaryIO, form: Form, schema: pa.Schema) -> pq.ParquetWriter | pa.RecordBatchFileWriter:
    if form == "parquet":
        texts = [field.name for field in schema if not pa.types.is_floating(field.type)]
        return pq.ParquetWriter(file, schema, compression="zstd", compression_level=1, use_dictionary=texts)
    return pa.ipc.new_file(file, schema)


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def write_durably(path: Path, data: bytes) -> None:
    """A small file, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}{DRAFT}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def told(error: OSError, place: object) -> Exception:
    """A full disk in words that say what to do; any other error as it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT) and "No space left" not in str(error):
        return error
    return StorageFullError(
        f"There is no space left at {place}.",
        hint="The parts that are finished are kept: free some space, and run the same command again.",
    )
