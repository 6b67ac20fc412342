"""Artifacts of runs: files by path, their content in the blob store."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, select

from trimtab.errors import ConflictError, InvalidInputError, NotFoundError
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.tracking.runs import number_of
from trimtab.tracking.schema import artifacts_table as artifacts

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


def record(tx: Transaction, run_id: str, files: dict[str, tuple[str, int]]) -> None:
    """Enter files whose content is in the blob store: path to (digest, size). A path that stands gets the
    new content. Raises ConflictError where a path would be a file and a folder at once."""
    number = number_of(tx.connection, run_id)
    rows = [
        {"run": number, "path": confined(path), "digest": digest, "size": size, "created_at": tx.at}
        for path, (digest, size) in files.items()
    ]
    upsert(tx, artifacts, rows, keys=["run", "path"])
    for path in files:
        _check_place(tx.connection, number, path)


def list_artifacts(connection: Connection, run_id: str, folder: str = "") -> list[Artifact]:
    """The files of a run by path: all of them, or those below `folder`."""
    number = number_of(connection, run_id, writing=False)
    query = select(artifacts).where(artifacts.c.run == number).order_by(artifacts.c.path)
    if folder:
        query = query.where(_below(confined(folder.removesuffix("/"))))
    return [_artifact(row) for row in connection.execute(query)]


def get(connection: Connection, run_id: str, path: str) -> Artifact:
    """One file of a run; raises NotFoundError."""
    number = number_of(connection, run_id, writing=False)
    query = select(artifacts).where(artifacts.c.run == number, artifacts.c.path == confined(path))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"The run {run_id} has no artifact '{path}'.")
    return _artifact(row)


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


def _check_place(connection: Connection, number: int, path: str) -> None:
    parents = [path[:at] for at, sign in enumerate(path) if sign == "/"]
    here = artifacts.c.run == number
    clash = connection.execute(
        select(artifacts.c.path).where(here, artifacts.c.path.in_(parents) | _below(path)).limit(1)
    ).scalar_one_or_none()
    if clash is not None:
        raise ConflictError(
            f"'{path}' cannot stand beside '{clash}': one of them would be a file and a folder at once.",
            hint="Use another path.",
        )


def _below(folder: str) -> ColumnElement[bool]:
    # '0' follows '/', so this is the range of all that begins with "folder/".
    return (artifacts.c.path > folder + "/") & (artifacts.c.path < folder + "0")


def _artifact(row: Row[tuple[object, ...]]) -> Artifact:
    return Artifact(row.path, row.digest, row.size, row.created_at)
