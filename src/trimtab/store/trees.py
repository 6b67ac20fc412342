"""Trees: folders kept as manifests."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from trimtab.errors import InvalidInputError

OPENING = b'{"type":"tree"'
"""How the bytes of every manifest begin."""


class TreeFile(msgspec.Struct, frozen=True):
    """One file of a tree: its digest and its size in bytes."""

    digest: str
    size: int


class Manifest(msgspec.Struct, frozen=True, tag="tree"):
    """The files of a tree by their relative paths, written with '/'."""

    files: dict[str, TreeFile]


def manifest_bytes(files: dict[str, TreeFile]) -> bytes:
    """A manifest as it is kept: the same files give the same bytes, whichever way they came."""
    ordered = {name: files[name] for name in sorted(files)}
    return msgspec.json.encode(Manifest(ordered), order="deterministic")


def confined(name: str) -> PurePosixPath:
    """The relative path of a tree's file; raises InvalidInputError for one that leads elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or "\0" in name:
        raise InvalidInputError(f"The path '{name}' leads out of its tree.")
    return path
