"""The paths below `mlflow-artifacts/artifacts/`, and what is there.

<experiment>/<run>/artifacts/...             the files of a run
<experiment>/models/<model>/artifacts/...    the files of a logged model
trees/<digest>/...                           the content of a model version, which never changes
"""
# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models.addresses import Place, place_on_a_server
from trimtab.models.versions import is_registered
from trimtab.server.mlflow.wire import experiment_number
from trimtab.store.blobs import TreeFile
from trimtab.store.database import Transaction
from trimtab.tracking import artifacts, logged_models
from trimtab.tracking.artifacts import Shelf, confined
from trimtab.tracking.run_details import run_row
from trimtab.workspace import Workspace


class File(msgspec.Struct, omit_defaults=True):
    path: str
    is_dir: bool
    file_size: int | None = None


class Spot(msgspec.Struct, frozen=True):
    """A path below a shelf, or below the tree of a model version, which has none."""

    path: str
    shelf: Shelf | None = None
    tree: str = ""


def spot_at(connection: Connection, path: str, *, writing: bool = False) -> Spot:
    """Where a path leads; raises NotFoundError for what is not there, InvalidInputError for a path that
    leads anywhere else, ConflictError if `writing` to a deleted run."""
    confined(path)
    place = place_on_a_server(f"mlflow-artifacts:/{path}")
    if place is None:
        raise _nothing(path)
    if place.kind == "trees":
        if not is_registered(connection, place.owner):
            raise NotFoundError(f"There is no model version with the content {place.owner:.80}.")
        return Spot(place.path, tree=place.owner)
    owner, shelf = _shelf(connection, place, writing=writing)
    if experiment_number(path.partition("/")[0]) != owner:
        raise _nothing(path)
    return Spot(place.path, shelf=shelf)


def writable_shelf(connection: Connection, path: str) -> tuple[Shelf, str]:
    """The shelf that takes a file, and its path there; raises as `spot_at` does."""
    spot = spot_at(connection, path, writing=True)
    if spot.shelf is None or not spot.path:
        raise InvalidInputError("A file goes below a run or a logged model; nothing else takes any.")
    return spot.shelf, spot.path


def enter(workspace: Workspace, path: str, digest: str, size: int) -> None:
    """Let a path have this content."""

    def work(tx: Transaction) -> None:
        shelf, name = writable_shelf(tx.connection, path)
        artifacts.record_on(tx, shelf, {name: (digest, size)})

    workspace.write(work)


def file_at(workspace: Workspace, path: str) -> tuple[str, TreeFile]:
    """The name and the content of the file at a path; raises NotFoundError."""
    with workspace.read() as connection:
        spot = spot_at(connection, path)
        name = spot.path.rsplit("/", 1)[-1]
        if spot.shelf is not None:
            found = artifacts.get_on(connection, spot.shelf, spot.path)
            return name, TreeFile(found.digest, found.size)
    file = workspace.blobs.manifest(spot.tree).files.get(spot.path)
    if file is None:
        raise NotFoundError(f"The model version has no file '{spot.path:.300}'.")
    return name, file


def files_below(workspace: Workspace, path: str) -> list[File]:
    """The files and folders in one folder, named without it."""
    with workspace.read() as connection:
        try:
            spot = spot_at(connection, path)
        except NotFoundError:
            return []
        if spot.shelf is not None:
            listed = artifacts.list_on(connection, spot.shelf, spot.path)
            return children(((file.path, file.size) for file in listed), spot.path)
    files = workspace.blobs.manifest(spot.tree).files
    return children(((name, file.size) for name, file in files.items()), spot.path)


def children(files: Iterable[tuple[str, int]], folder: str) -> list[File]:
    """What is directly in a folder, of files by path and size."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, File] = {}
    for path, size in files:
        if path.startswith(prefix):
            name, slash, _ = path[len(prefix) :].partition("/")
            found.setdefault(name, File(name, True) if slash else File(name, False, size))
    return [found[name] for name in sorted(found)]


def _shelf(connection: Connection, place: Place, *, writing: bool) -> tuple[int, Shelf]:
    """The experiment and the shelf of a run or a logged model."""
    if place.kind == "logged-models":
        row = logged_models.find(connection, place.owner, deleted=True)
        return row.experiment_id, artifacts.shelf_of_model(row.number, place.owner)
    found = run_row(connection, place.owner)
    if found is None:
        raise NotFoundError(f"Run with id={place.owner:.300} not found")
    return found.experiment_id, artifacts.shelf_of_run(connection, place.owner, writing=writing)


def _nothing(path: str) -> NotFoundError:
    return NotFoundError(f"No run and no logged model has its artifacts at '{path:.300}'.")
