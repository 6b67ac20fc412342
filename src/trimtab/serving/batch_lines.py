"""CSV and NDJSON files as sources of batch inference: a share is a range of bytes that begins and ends with a
record, so that files of any size are read by several processes.

The model's columns are read as what its signature says; others are copied as they are written (CSV), or are
what the first records make of them (NDJSON).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models.signature import Column, Signature
from trimtab.serving.batch_files import Rows, Span, file_identity

ASSUMED_VALUE = 10
"""Bytes: how long a value is taken to be where shares are made; it need not be true."""

LARGEST_SHARE = 32 << 20
"""Bytes: a share is read into memory as a whole."""

FIRST_RECORDS = 4 << 20
"""Bytes of an NDJSON file from which the types of its columns are taken."""

_CHUNK = 4 << 20
_WANTED = {pl.Float64: "a number", pl.Int64: "a whole number", pl.Boolean: "true or false"}


class CsvSource:
    """A CSV file with a header, comma-separated and quoted as RFC 4180 has it."""

    def __init__(self, path: Path, signature: Signature) -> None:
        self.title = str(path)
        self._path = path
        self._names, self._start = _header(path)
        self.schema = {name: _type_of(signature.get(name)) for name in self._names}

    def spans(self, rows: int) -> list[Span]:
        """See `Source.spans`."""
        return _spans(self._path, self._start, _size(rows, self._names), quoted=True)

    def read(self, span: Span, columns: Sequence[str], rows: int) -> Iterator[Rows]:
        """See `Source.read`. Raises InvalidInputError where the bytes are not UTF-8."""
        data = _bytes(self._path, span)
        try:
            places = [self._names.index(name) for name in columns]
            frame = pl.read_csv(data, has_header=False, schema=self.schema, columns=places).select(columns)
            unreadable: dict[int, str] = {}
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            frame, unreadable = self._carefully(data, columns)
        return _pieces(frame, unreadable, span.first_row, rows)

    def _carefully(self, data: bytes, columns: Sequence[str]) -> tuple[pl.DataFrame, dict[int, str]]:
        """Record by record, which says what is wrong with which."""
        try:
            records = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InvalidInputError(f"{self.title} cannot be read as CSV: {error}.") from None
        unreadable: dict[int, str] = {}
        empty = [None] * len(self._names)
        for row, record in enumerate(records):
            if record and len(record) != len(empty):
                unreadable[row] = f"It has {len(record)} values, and the header has {len(empty)}."
                records[row] = []
        places = [self._names.index(name) for name in columns]
        made = []
        for name, place in zip(columns, places, strict=True):
            texts = pl.Series(name, [(record or empty)[place] or None for record in records], dtype=pl.String)
            made.append(_cast(texts, self.schema[name], unreadable))
        return pl.DataFrame(made), unreadable

    def identity(self) -> str:
        """See `Source.identity`."""
        return file_identity(self._path)


class NdjsonSource:
    """A file with one JSON object a line."""

    def __init__(self, path: Path, signature: Signature) -> None:
        self.title = str(path)
        self._path = path
        with _open(path) as file:
            head = file.read(FIRST_RECORDS)
        whole = head if len(head) < FIRST_RECORDS else head[: head.rfind(b"\n") + 1]
        try:
            found = (
                pl.read_ndjson(io.BytesIO(whole), infer_schema_length=None).schema if whole.strip() else {}
            )
        except pl.exceptions.PolarsError as error:
            raise _no_ndjson(self.title, error) from None
        self.schema: dict[str, pl.DataType] = {
            name: dtype if (column := signature.get(name)) is None else _type_of(column)
            for name, dtype in found.items()
        }

    def spans(self, rows: int) -> list[Span]:
        """See `Source.spans`."""
        return _spans(self._path, 0, _size(rows, self.schema), quoted=False)

    def read(self, span: Span, columns: Sequence[str], rows: int) -> Iterator[Rows]:
        """See `Source.read`. Raises InvalidInputError for a line that is no object of these types."""
        try:
            frame = pl.read_ndjson(io.BytesIO(_bytes(self._path, span)), schema=self.schema)
        except pl.exceptions.PolarsError as error:
            raise _no_ndjson(f"{self.title}, from row {span.first_row} on,", error) from None
        return _pieces(frame.select(columns), {}, span.first_row, rows)

    def identity(self) -> str:
        """See `Source.identity`."""
        return file_identity(self._path)


def _type_of(column: Column | None) -> pl.DataType:
    if column is None or column.kind == "text":
        return pl.String()
    if column.kind == "category":
        return pl.String() if isinstance(column.categories[0], str) else pl.Int64()
    return pl.Boolean() if column.kind == "boolean" else pl.Float64()


def _cast(texts: pl.Series, dtype: pl.DataType, unreadable: dict[int, str]) -> pl.Series:
    if dtype == pl.String:
        return texts
    if dtype == pl.Boolean:
        made = texts.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    else:
        made = texts.cast(dtype, strict=False)
    for row in (made.is_null() & texts.is_not_null()).arg_true():
        said = f"The column '{texts.name}' has {texts[row]!r:.80}, which is not {_WANTED[type(dtype)]}."
        unreadable.setdefault(row, said)
    return made


def _pieces(frame: pl.DataFrame, unreadable: Mapping[int, str], first_row: int, rows: int) -> Iterator[Rows]:
    for start in range(0, frame.height, rows):
        within = {row - start: why for row, why in unreadable.items() if start <= row < start + rows}
        yield Rows(frame.slice(start, rows), first_row + start, within)


def _size(rows: int, columns: Collection[str]) -> int:
    return min(rows * ASSUMED_VALUE * max(len(columns), 1), LARGEST_SHARE)


def _open(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"There is no file '{path}'.") from None


def _bytes(path: Path, span: Span) -> bytes:
    with _open(path) as file:
        file.seek(span.start)
        return file.read(span.stop - span.start)


def _header(path: Path) -> tuple[list[str], int]:
    """The names of the columns, and where the first record begins."""
    with _open(path) as file:
        line = b""
        while more := file.readline():
            line += more
            if line.count(b'"') % 2 == 0:
                break
        end = file.tell()
    try:
        names = next(csv.reader(io.StringIO(line.decode("utf-8-sig"), newline="")), [])
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not UTF-8.") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise InvalidInputError(
            f"{path} has the column '{twice[0]}' twice." if twice else f"{path} has no header.",
            hint="Its first line names the columns.",
        )
    return names, end


def _spans(path: Path, start: int, size: int, *, quoted: bool) -> list[Span]:
    """Shares of at least `size` bytes that end behind a line's end; in CSV behind one that is not quoted."""
    found: list[Span] = []
    begins, row, rows = start, 0, 0
    inside = False
    with _open(path) as file:
        file.seek(start)
        place = start
        while chunk := file.read(_CHUNK):
            ends, inside = _line_ends(chunk, inside=inside, quoted=quoted)
            while ends.size:
                taken = int(np.searchsorted(ends, begins + size - place - 1))
                if taken >= ends.size:
                    break
                stop = place + int(ends[taken]) + 1
                found.append(Span(begins, stop, row, stop - begins))
                row, rows = row + rows + taken + 1, 0
                begins, ends = stop, ends[taken + 1 :]
            rows += ends.size
            place += len(chunk)
        end = _without_blank_end(file, begins, place)
    if end > begins:
        found.append(Span(begins, end, row, end - begins))
    return found


def _line_ends(chunk: bytes, *, inside: bool, quoted: bool) -> tuple[NDArray[np.int64], bool]:
    """Where records end in a chunk that begins `inside` quotes or not, and whether the next one does."""
    values = np.frombuffer(chunk, dtype=np.uint8)
    ends = np.flatnonzero(values == 10)
    if not quoted or (not inside and b'"' not in chunk):
        return ends, inside
    quotes = np.flatnonzero(values == 34)
    before = np.searchsorted(quotes, ends) + inside
    return ends[before % 2 == 0], bool((quotes.size + inside) % 2)


def _without_blank_end(file: io.BufferedReader, start: int, end: int) -> int:
    """Where the last record ends: blank lines at a file's end are no records."""
    while end > start:
        size = min(end - start, 4096)
        file.seek(end - size)
        kept = len(file.read(size).rstrip(b"\r\n"))
        end = end - size + kept
        if kept:
            break
    return end


def _no_ndjson(title: str, error: Exception) -> InvalidInputError:
    reason = str(error).strip().splitlines()[0]
    return InvalidInputError(
        f"{title} cannot be read as NDJSON: {reason}.", hint="Write one JSON object of the same types a line."
    )
