"""Files of rows as sources of batch inference: divided into parts that may be read in any order, by anyone.

What a part is depends on the file alone, so that a job which was cut off finds the same parts again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.digest import digest_bytes
from trimtab.errors import InvalidInputError, NotFoundError

ENDS = 1 << 20
"""How many bytes of either end of a file enter its identity, beside its path, size and time of change."""

_BUFFER = 1 << 16


class Span(NamedTuple):
    """A share of a source: from `start` to `stop` in the source's own unit. `first_row` counts from 0 over
    the source; `weight` says how much work it is, in rows or, where those are not known, in bytes."""

    start: int
    stop: int
    first_row: int
    weight: int


class Rows(NamedTuple):
    """Rows that were read, the place of the first in its source, and why those at some places of the frame
    cannot be read."""

    frame: pl.DataFrame
    first_row: int
    unreadable: dict[int, str]


class Source(Protocol):
    """A file or table of rows. Travels to worker processes, so it holds nothing open."""

    title: str
    schema: dict[str, pl.DataType]

    def spans(self, rows: int) -> list[Span]:
        """Its shares of about so many rows, in order."""
        ...

    def read(self, span: Span, columns: Sequence[str], rows: int) -> Iterator[Rows]:
        """A share's rows, at most so many at once, with these of its columns."""
        ...

    def identity(self) -> str:
        """Tells this content from any other, without reading all of it."""
        ...


class ParquetSource:
    """A Parquet file; a share is a range of its row groups."""

    def __init__(self, path: Path) -> None:
        self.title = str(path)
        self._path = path
        with _opened(path) as file:
            self.schema = _schema(file.schema_arrow)
            self._groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]

    def spans(self, rows: int) -> list[Span]:
        """See `Source.spans`. A row group is never divided."""
        return _spans(self._groups, rows)

    def read(self, span: Span, columns: Sequence[str], rows: int) -> Iterator[Rows]:
        """See `Source.read`. Columns are read as streams, so that a large row group takes no more memory."""
        row = span.first_row
        with _opened(self._path) as file:
            try:
                for batch in file.iter_batches(
                    rows, row_groups=range(span.start, span.stop), columns=list(columns), use_threads=False
                ):
                    yield Rows(_frame(batch), row, {})
                    row += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(self.title, error) from error

    def identity(self) -> str:
        """See `Source.identity`. A Parquet file's end is its footer, with the statistics of all columns."""
        return file_identity(self._path)


class ArrowSource:
    """An Arrow (Feather) file, which is mapped into memory; a share is a range of its record batches."""

    def __init__(self, path: Path) -> None:
        self.title = str(path)
        self._path = path
        try:
            with pa.memory_map(self.title) as mapped, pa.ipc.open_file(mapped) as file:
                self.schema = _schema(file.schema)
                self._groups = [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.title, error) from error

    def spans(self, rows: int) -> list[Span]:
        """See `Source.spans`. A record batch is never divided."""
        return _spans(self._groups, rows)

    def read(self, span: Span, columns: Sequence[str], rows: int) -> Iterator[Rows]:
        """See `Source.read`."""
        row = span.first_row
        with pa.memory_map(self.title) as mapped, pa.ipc.open_file(mapped) as file:
            for number in range(span.start, span.stop):
                batch = file.get_batch(number).select(list(columns))
                for start in range(0, batch.num_rows, rows):
                    piece = batch.slice(start, rows)
                    yield Rows(_frame(piece), row, {})
                    row += piece.num_rows

    def identity(self) -> str:
        """See `Source.identity`."""
        return file_identity(self._path)


def file_identity(path: Path) -> str:
    """Path, size, time of change, and the digest of both ends."""
    try:
        found = path.stat()
        with path.open("rb") as file:
            ends = file.read(ENDS)
            file.seek(max(found.st_size - ENDS, 0), os.SEEK_SET)
            ends += file.read(ENDS)
    except OSError as error:
        raise _unreadable(str(path), error) from error
    return f"{path.resolve()} {found.st_size} {found.st_mtime_ns} {digest_bytes(ends)}"


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except FileNotFoundError:
        raise NotFoundError(f"There is no file '{path}'.") from None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(str(path), error) from error


def _schema(schema: pa.Schema) -> dict[str, pl.DataType]:
    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return dict(frame.schema)


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    # A batch of no columns has rows, which a frame cannot have; the caller always asks for one at least.
    frame = pl.from_arrow(pa.Table.from_batches([batch]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _spans(groups: Sequence[int], rows: int) -> list[Span]:
    """Neighbouring groups together while they have no more than so many rows."""
    found: list[Span] = []
    start = row = held = 0
    for number, size in enumerate(groups):
        if held and held + size > rows:
            found.append(Span(start, number, row, held))
            start, row, held = number, row + held, 0
        held += size
    if held:
        found.append(Span(start, len(groups), row, held))
    return found


def _unreadable(title: str, error: Exception) -> InvalidInputError:
    reason = str(error).strip().splitlines()
    return InvalidInputError(f"{title} cannot be read: {reason[0] if reason else type(error).__name__}.")
