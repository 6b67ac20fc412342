"""Artifacts of runs and of logged models: files by path, their content in the blob store."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Table, delete, select

from trimtab.errors import ConflictError, InvalidInputError, NotFoundError
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.tracking.runs import number_of
from trimtab.tracking.schema import artifacts_table, logged_model_artifacts_table

LONGEST_PATH = 1000
"""Bytes of a path in UTF-8."""


class Artifact(msgspec.Struct, frozen=True):
    """One file of a run; `size` in bytes."""

    path: str
    digest: str
    size: int
    created_at: datetime


def confined(path: str) -> str:
    """`path`, if it names a file within its run; raises InvalidInputError otherwise.

    Any Unicode may stand between the slashes. Refused are: an absolute path, '.' and '..', an empty
    part, a backslash, NUL, half a character (a lone surrogate) and more than `LONGEST_PATH` bytes. The
    path is taken as it is: whoever reads it from a URL decodes it once, before.
    """
    parts = path.split("/")
    if "\\" in path or "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise InvalidInputError(
            f"{path!r:.200} is not a path within a run.",
            hint="Use a relative path with '/' between its parts, without '.', '..' and backslashes.",
        )
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(f"{path!r:.200} is not a path: it has half a character in it.") from None
    if length > LONGEST_PATH:
        raise InvalidInputError(f"The path {path!r:.80}... has {length} bytes; {LONGEST_PATH} are allowed.")
    return path


class Shelf(msgspec.Struct, frozen=True):
    """Where the files of one run or one logged model are entered. `name` says whose, in words."""

    table: Table
    owner: ColumnElement[int]
    number: int
    name: str

    @property
    def here(self) -> ColumnElement[bool]:
        """What is on this shelf."""
        return self.owner == self.number


def shelf_of_run(connection: Connection, run_id: str, *, writing: bool = False) -> Shelf:
    """The shelf of a run; raises NotFoundError, and ConflictError if `writing` to a deleted one."""
    number = number_of(connection, run_id, writing=writing)
    return Shelf(artifacts_table, artifacts_table.c.run, number, f"The run {run_id}")


def shelf_of_model(number: int, model_id: str) -> Shelf:
    """The shelf of a logged model."""
    table = logged_model_artifacts_table
    return Shelf(table, table.c.model, number, f"The logged model {model_id}")


def record(tx: Transaction, run_id: str, files: dict[str, tuple[str, int]]) -> None:
    """Enter files whose content is in the blob store: path to (digest, size). A path that stands gets the
    new content. Raises ConflictError where a path would be a file and a folder at once."""
    record_on(tx, shelf_of_run(tx.connection, run_id, writing=True), files)


def record_on(tx: Transaction, shelf: Shelf, files: dict[str, tuple[str, int]]) -> None:
    """See `record`."""
    owner = shelf.owner.key
    assert owner is not None
    rows = [
        {owner: shelf.number, "path": confined(path), "digest": digest, "size": size, "created_at": tx.at}
        for path, (digest, size) in files.items()
    ]
    upsert(tx, shelf.table, rows, keys=[owner, "path"])
    for path in files:
        _check_place(tx.connection, shelf, path)


def list_artifacts(connection: Connection, run_id: str, folder: str = "") -> list[Artifact]:
    """The files of a run by path: all of them, or those below `folder`."""
    return list_on(connection, shelf_of_run(connection, run_id), folder)


def list_on(connection: Connection, shelf: Shelf, folder: str = "") -> list[Artifact]:
    """See `list_artifacts`."""
    query = select(shelf.table).where(shelf.here).order_by(shelf.table.c.path)
    if folder:
        query = query.where(_below(shelf, confined(folder.removesuffix("/"))))
    return [_artifact(row) for row in connection.execute(query)]


def get(connection: Connection, run_id: str, path: str) -> Artifact:
    """One file of a run; raises NotFoundError."""
    return get_on(connection, shelf_of_run(connection, run_id), path)


def get_on(connection: Connection, shelf: Shelf, path: str) -> Artifact:
    """See `get`."""
    query = select(shelf.table).where(shelf.here, shelf.table.c.path == confined(path))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"{shelf.name} has no artifact '{path}'.")
    return _artifact(row)


def delete_on(tx: Transaction, shelf: Shelf, path: str = "") -> int:
    """Take a file, all files below a folder, or (with no path) all files off a shelf; answers how many. Their
    content stays until it is collected."""
    statement = delete(shelf.table).where(shelf.here)
    if path:
        this = shelf.table.c.path == confined(path)
        statement = statement.where(this | _below(shelf, path))
    return tx.execute(statement).rowcount


def files_below(folder: Path) -> dict[str, Path]:
    """The regular files below a folder by their relative path; raises InvalidInputError for a link to
    a folder, or out of this one."""
    root = folder.resolve()
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(root):
        for name in sorted(folders + names):
            file = Path(place) / name
            if file.is_symlink() and (file.is_dir() or not file.resolve().is_relative_to(root)):
                raise InvalidInputError(f"{file} is a link to a folder or out of {folder}.")
            if file.is_file():
                found[file.relative_to(root).as_posix()] = file
    return found


def _check_place(connection: Connection, shelf: Shelf, path: str) -> None:
    parents = [path[:at] for at, sign in enumerate(path) if sign == "/"]
    column = shelf.table.c.path
    clash = connection.execute(
        select(column).where(shelf.here, column.in_(parents) | _below(shelf, path)).limit(1)
    ).scalar_one_or_none()
    if clash is not None:
        raise ConflictError(
            f"'{path}' cannot stand beside '{clash}': one of them would be a file and a folder at once.",
            hint="Use another path.",
        )


def _below(shelf: Shelf, folder: str) -> ColumnElement[bool]:
    # '0' follows '/', so this is the range of all that begins with "folder/".
    column = shelf.table.c.path
    return (column > folder + "/") & (column < folder + "0")


def _artifact(row: Row[tuple[object, ...]]) -> Artifact:
    return Artifact(row.path, row.digest, row.size, row.created_at)
