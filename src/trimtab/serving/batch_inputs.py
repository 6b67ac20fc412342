"""What batch inference reads: `dataset:NAME`, `dataset:NAME@VERSION`, files, folders and patterns."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
from sqlalchemy import select

from trimtab.data.appends import BATCH, table_of
from trimtab.data.column_types import DTYPES
from trimtab.data.schema import dataset_versions_table as versions
from trimtab.data.versions import find_version
from trimtab.data.violations import ROW
from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models.encoding import Encoder
from trimtab.models.signature import Signature
from trimtab.serving.batch_files import ArrowSource, ParquetSource, Rows, Source, Span
from trimtab.serving.batch_lines import CsvSource, NdjsonSource
from trimtab.workspace import Workspace

DATASET = "dataset:"

_DATASET = re.compile(r"dataset:(?P<name>[^@]+)(?:@(?P<version>\d{1,9}))?")
_SUFFIXES = (".parquet", ".arrow", ".feather", ".csv", ".ndjson", ".jsonl")


class DatasetSource:
    """One append of a dataset; a share is a range of its rows, as appended."""

    def __init__(
        self, project: Path, dataset: str, version: int, batch: int, rows: int, schema: pl.Schema
    ) -> None:
        self.title = f"dataset {dataset} version {version}"
        self.schema = dict(schema)
        self._project, self._dataset, self._batch, self._rows = project, dataset, batch, rows

    def spans(self, rows: int) -> list[Span]:
        """See `Source.spans`."""
        return [
            Span(start, min(start + rows, self._rows), start, min(rows, self._rows - start))
            for start in range(0, self._rows, rows)
        ]

    def read(self, span: Span, columns: Sequence[str], rows: int) -> Iterator[Rows]:
        """See `Source.read`. Rows that were put aside when they were appended are left out."""
        with Workspace.open(self._project) as workspace:
            found = workspace.tables.scan(table_of(self._dataset))
        known = found.collect_schema()
        frame = (
            found.filter(pl.col(BATCH) == self._batch, pl.col(ROW) >= span.start, pl.col(ROW) < span.stop)
            .sort(ROW)
            .select(
                (pl.col(name) if name in known else pl.lit(None).alias(name)).cast(self.schema[name])
                for name in columns
            )
            .collect()
        )
        for start in range(0, frame.height, rows):
            yield Rows(frame.slice(start, rows), span.first_row + start, {})

    def identity(self) -> str:
        """See `Source.identity`. An append never changes, and its number is made from its rows."""
        return f"{self._dataset} {self._batch}"


def find_sources(given: str, signature: Signature, workspace: Workspace | None) -> list[Source]:
    """What an input names, in order. Raises NotFoundError where nothing is, InvalidInputError for files that
    hold no rows or lack a column that the model needs."""
    found: Sequence[Source]
    if given.startswith(DATASET):
        if workspace is None:
            raise NotFoundError(
                f"There is no project to find '{given}' in.", hint="Name its folder with --dir."
            )
        found = _of_dataset(workspace, given)
    else:
        found = [_of_file(path, signature) for path in _files(given)]
    for source in found:
        _check_columns(source, signature)
    return list(found)


def dataset_of(given: str) -> str | None:
    """The dataset that an input or output names, or None for files."""
    match = _DATASET.fullmatch(given)
    return None if match is None else match["name"]


def _of_dataset(workspace: Workspace, given: str) -> list[DatasetSource]:
    match = _DATASET.fullmatch(given)
    if match is None:
        raise InvalidInputError(
            f"'{given}' names no dataset.", hint="Write dataset:NAME or dataset:NAME@VERSION."
        )
    number = None if match["version"] is None else int(match["version"])
    with workspace.read() as connection:
        found = find_version(connection, match["name"], number)
        columns = versions.c
        query = select(columns.number, columns.batch, columns.added, columns.quarantined).where(
            columns.dataset == found.dataset, columns.number <= found.number
        )
        appends = connection.execute(query.order_by(columns.number)).all()
    schema = pl.Schema({name: DTYPES[kind] for name, kind in found.schema.items()})
    return [
        DatasetSource(
            workspace.project.resolve(),
            found.dataset,
            row.number,
            row.batch,
            row.added + row.quarantined,
            schema,
        )
        for row in appends
        if row.added
    ]


def _files(given: str) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        if (path / "_delta_log").is_dir():  # whose old files no longer belong to it
            from deltalake import DeltaTable  # noqa: PLC0415  (60 MB that only a Delta table needs)

            return [Path(name) for name in sorted(DeltaTable(str(path)).file_uris())]
        found = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and _shown(file, path)
        )
    elif path.exists():
        return [path]
    else:
        named = glob.glob(given, recursive=True)  # noqa: PTH207  (a pattern may be absolute)
        found = sorted(Path(name) for name in named if Path(name).is_file())
    if not found:
        what = "file in the folder" if path.is_dir() else "file"
        raise NotFoundError(
            f"There is no {what} '{given}'.", hint="Give a file, a folder, a pattern or dataset:NAME."
        )
    return found


def _shown(file: Path, folder: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _of_file(path: Path, signature: Signature) -> Source:
    match path.suffix.lower():
        case ".parquet":
            return ParquetSource(path)
        case ".arrow" | ".feather":
            return ArrowSource(path)
        case ".csv":
            return CsvSource(path, signature)
        case ".ndjson" | ".jsonl":
            return NdjsonSource(path, signature)
    raise InvalidInputError(
        f"{path} has no suffix that says how to read it.", hint=f"Name it {', '.join(_SUFFIXES)}."
    )


def _check_columns(source: Source, signature: Signature) -> None:
    """By the words of the encoder itself, on no rows."""
    try:
        Encoder(signature).rows({name: [] for name in source.schema}, ignore_unknown=True)
    except InvalidInputError as error:
        raise InvalidInputError(f"{source.title}: {error.message}", hint=error.hint) from None
