"""What a source has to offer: files in a folder, or commits of a Delta table that others write."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Container, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl

from trimtab.data.column_types import DTYPES
from trimtab.data.row_formats import BY_SUFFIX, read_rows
from trimtab.data.spec import ColumnType
from trimtab.digest import digest_file
from trimtab.errors import InvalidInputError, UnavailableError

_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")
_LOG = "_delta_log"


class Offer(msgspec.Struct, frozen=True):
    """Rows to append once: a file, or the rows that one commit added to a Delta table.

    `path` is the file itself, or the commit's own file in the table's log.
    """

    name: str
    path: Path
    size: int
    modified_ns: int
    commit: bool = False

    def digest(self) -> str:
        """The digest of the file."""
        return digest_file(self.path)

    def read(self, types: Mapping[str, ColumnType]) -> pl.DataFrame | None:
        """The rows, or None if a commit changed no rows. Raises InvalidInputError and OSError."""
        return _added_rows(self.path, types) if self.commit else _file_rows(self.path, types)


def missing_commits(offer: Offer, seen: Container[str]) -> str:
    """What stands in the way if the log of a Delta table begins with this commit; empty if nothing does.

    Delta tables drop old commits from their logs, and with them the way to tell which rows came when.
    """
    number = int(offer.path.stem)
    if not number or f"{_LOG}/{number - 1:020}.json" in seen:
        return ""
    return f"the table's log begins at version {number}, so earlier rows are not read: append them by hand"


def offers(folder: Path, settle: timedelta) -> Iterator[Offer]:
    """All that `folder` offers, in order of name. Raises UnavailableError if it is not there.

    Files whose name, or whose folder's name, begins with '.' or '_' or that end as unfinished downloads do
    are left alone, and so is a file that was changed less than `settle` ago: it may still be written.
    Whoever writes slower than that writes under such a name and renames.
    """
    if not folder.is_dir():
        raise UnavailableError(f"The folder {folder} is not there.", hint="Mount it, or remove the source.")
    log = folder / _LOG
    commits = log.is_dir()
    found = sorted(log.glob("*.json")) if commits else sorted(folder.rglob("*"))
    settled_before = time.time_ns() - settle // timedelta(microseconds=1) * 1000
    for path in found:
        name = path.relative_to(folder).as_posix()
        if not commits and not _finished(name):
            continue
        try:
            state = path.stat()
        except FileNotFoundError:
            continue  # it went away while we looked
        settled = state.st_mtime_ns <= settled_before or state.st_mtime_ns > time.time_ns() + 10**9
        if path.is_file() and (commits or settled):
            yield Offer(name, path, state.st_size, state.st_mtime_ns, commits)


def _finished(name: str) -> bool:
    parts = name.split("/")
    return name.lower().endswith(tuple(BY_SUFFIX)) and not any(
        part.startswith((".", "_")) or part.lower().endswith(_UNFINISHED) for part in parts
    )


def _file_rows(path: Path, types: Mapping[str, ColumnType]) -> pl.DataFrame:
    return read_rows(path.read_bytes(), BY_SUFFIX[path.suffix.lower()], types)


class _Add(msgspec.Struct, rename="camel"):
    path: str
    partition_values: dict[str, str | None] = msgspec.field(default_factory=dict)
    data_change: bool = True
    deletion_vector: msgspec.Raw | None = None


class _Remove(msgspec.Struct, rename="camel"):
    path: str
    data_change: bool = True


class _Action(msgspec.Struct):
    add: _Add | None = None
    remove: _Remove | None = None


def _added_rows(commit: Path, types: Mapping[str, ColumnType]) -> pl.DataFrame | None:
    """The rows that a commit added; see the Delta transaction log protocol for what is in its file."""
    try:
        actions = msgspec.json.Decoder(_Action).decode_lines(commit.read_bytes())
    except msgspec.DecodeError as error:
        raise InvalidInputError(f"The commit {commit.name} cannot be read: {error}.") from error
    if any(action.remove is not None and action.remove.data_change for action in actions):
        raise InvalidInputError(
            f"The commit {commit.stem} removes or changes rows; a dataset only grows.",
            hint="Feed it from a table that is appended to.",
        )
    frames = []
    for action in actions:
        if action.add is not None and action.add.data_change:
            if action.add.deletion_vector is not None:
                raise InvalidInputError(
                    f"The commit {commit.stem} uses deletion vectors, which are not read."
                )
            rows = _file_rows(commit.parents[1] / urllib.parse.unquote(action.add.path), types)
            frames.append(rows.with_columns(_partition(action.add, types)))
    return pl.concat(frames, how="diagonal_relaxed") if frames else None


def _partition(add: _Add, types: Mapping[str, ColumnType]) -> list[pl.Expr]:
    """The columns that a table keeps in its paths, as its log spells them."""
    found = []
    for name, value in add.partition_values.items():
        column, kind = pl.lit(value, pl.String), types.get(name, "str")
        if kind == "datetime":
            column = column.str.to_datetime(time_zone="UTC")
        elif kind == "bool":
            column = column == "true"
        elif kind != "str":
            column = column.str.to_date() if kind == "date" else column.cast(DTYPES[kind])
        found.append(column.alias(name))
    return found
