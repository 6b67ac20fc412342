"""Files by the place that an address names, and the content of a model version from its source."""

from __future__ import annotations

from sqlalchemy import Connection

from trimtab.errors import NotFoundError
from trimtab.models.addresses import Place
from trimtab.models.versions import is_registered
from trimtab.store.blobs import TreeFile
from trimtab.tracking import artifacts, logged_models
from trimtab.workspace import Workspace

ADDRESS_FILE = "SOURCE"
"""The one file of the tree of a version whose content is elsewhere: it holds the address."""


def shelf_at(connection: Connection, place: Place, *, writing: bool = False) -> artifacts.Shelf:
    """The shelf of a run or a logged model; raises NotFoundError."""
    if place.kind == "runs":
        return artifacts.shelf_of_run(connection, place.owner, writing=writing)
    return logged_models.shelf(connection, place.owner)


def files_at(workspace: Workspace, place: Place) -> dict[str, TreeFile]:
    """The file at a place or the files below it, by path from the owner's root, in order."""
    path = place.path and artifacts.confined(place.path)
    if place.kind == "trees":
        tree = workspace.blobs.manifest(place.owner).files
        return {name: file for name, file in sorted(tree.items()) if _is_within(name, path)}
    with workspace.read() as connection:
        shelf = shelf_at(connection, place)
        listed = artifacts.list_on(connection, shelf, path)
        if path and not listed:
            try:
                listed = [artifacts.get_on(connection, shelf, path)]
            except NotFoundError:  # nothing is here, which is no error in MLflow
                listed = []
    return {file.path: TreeFile(file.digest, file.size) for file in listed}


def tree_at(workspace: Workspace, place: Place) -> str | None:
    """The digest of the folder at a place, as a tree of its own; None if there are no files there. No content
    is copied: it is in the blob store already."""
    if place.kind == "trees" and not place.path:
        with workspace.read() as connection:
            return place.owner if is_registered(connection, place.owner) else None
    start = f"{place.path}/" if place.path else ""
    files = {
        name.removeprefix(start): TreeFile(file.digest, file.size)
        for name, file in sorted(files_at(workspace, place).items())
        if name.startswith(start)
    }
    return workspace.blobs.put_manifest(files) if files else None


def tree_of_address(workspace: Workspace, source: str) -> str:
    """The digest of the tree of a version whose content is elsewhere: it holds the address alone."""
    content = source.encode()
    file = TreeFile(workspace.blobs.put(content), len(content))
    return workspace.blobs.put_manifest({ADDRESS_FILE: file})


def address_of(workspace: Workspace, digest: str) -> str:
    """The address that the tree of a version holds whose content is elsewhere."""
    return workspace.blobs.get(workspace.blobs.manifest(digest).files[ADDRESS_FILE].digest).decode()


def is_address(workspace: Workspace, digest: str) -> bool:
    """Whether a tree is that of a version whose content is elsewhere."""
    return set(workspace.blobs.manifest(digest).files) == {ADDRESS_FILE}


def _is_within(name: str, path: str) -> bool:
    return not path or name == path or name.startswith(f"{path}/")
