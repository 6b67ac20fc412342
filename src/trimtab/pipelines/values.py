"""Values between steps: packed for a process to read or write, kept as blobs under their digests."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from trimtab.digest import digest_json
from trimtab.errors import InvalidInputError
from trimtab.pipelines import codecs
from trimtab.pipelines.graph import GroupKind, Key
from trimtab.pipelines.source import DataRows

if TYPE_CHECKING:
    from trimtab.store.blobs import Blobs

INLINE = 256 * 1024
"""Bytes up to which a value travels in the message itself, and needs no file."""

MOST_PARTS = 1000
"""Parts up to which a list, tuple or dict is kept part by part; a larger one is pickled whole."""


class Leaf(msgspec.Struct, frozen=True, tag="leaf"):
    """A kept value: `digest` is a blob's, or a tree's if `tree`; `size` is in bytes."""

    codec: str
    digest: str
    size: int
    tree: bool = False


class Branch(msgspec.Struct, frozen=True, tag="branch"):
    """A kept list, tuple or dict whose parts are kept each for itself."""

    kind: GroupKind
    items: tuple[Leaf | Branch, ...]
    keys: tuple[str, ...] = ()


Stored = Leaf | Branch


class PackedLeaf(msgspec.Struct, frozen=True, tag="leaf"):
    """A value on its way: its bytes, or the path of its file or folder.

    `select` are the keys and indices that lead to the part of it that is meant.
    """

    codec: str
    data: bytes | None = None
    path: str | None = None
    select: tuple[Key, ...] = ()


class PackedBranch(msgspec.Struct, frozen=True, tag="branch"):
    """A list, tuple or dict of values on their way."""

    kind: GroupKind
    items: tuple[PackedLeaf | PackedBranch | DataRows, ...]
    keys: tuple[str, ...] = ()


Packed = PackedLeaf | PackedBranch | DataRows


def digest_of(stored: Stored) -> str:
    """The digest that names a value to people: a leaf's own, and one over all parts of a branch."""
    if isinstance(stored, Leaf):
        return stored.digest
    return digest_json([stored.kind, stored.keys, [digest_of(item) for item in stored.items]])


def identity_of(stored: Stored) -> object:
    """What a cache key has of a value: like its digest, but bytes of two codecs are two values."""
    if isinstance(stored, Leaf):
        return [stored.codec, stored.digest]
    return [stored.kind, stored.keys, [identity_of(item) for item in stored.items]]


def leaves(stored: Stored) -> list[Leaf]:
    """The blobs that a value consists of."""
    if isinstance(stored, Leaf):
        return [stored]
    return [leaf for item in stored.items for leaf in leaves(item)]


def select(stored: Stored, path: tuple[Key, ...]) -> tuple[Stored, tuple[Key, ...]]:
    """The part of a value that `path` leads to, as far as it is kept in parts, and the rest of the path.

    Raises InvalidInputError if there is no such part.
    """
    while path and isinstance(stored, Branch):
        key, *rest = path
        try:
            if stored.kind == "dict":
                stored = stored.items[stored.keys.index(cast("str", key))]
            else:
                stored = stored.items[cast("int", key)]
        except (ValueError, IndexError, TypeError):
            raise InvalidInputError(f"What the step returned has no part {key!r}.") from None
        path = tuple(rest)
    return stored, path


def pack(value: object, folder: Path) -> Packed:
    """Encode a value; large parts are written below `folder`."""
    if not codecs.is_builtin(value):
        kind = type(value)
        if kind in (list, tuple) and len(cast("list[object]", value)) <= MOST_PARTS:
            items = tuple(pack(item, folder) for item in cast("list[object]", value))
            return PackedBranch("list" if kind is list else "tuple", items)
        if kind is dict:
            entries = cast("dict[Any, object]", value)
            if len(entries) <= MOST_PARTS and all(type(key) is str for key in entries):
                return PackedBranch(
                    "dict", tuple(pack(item, folder) for item in entries.values()), tuple(entries)
                )
    return _pack_leaf(value, folder)


def _pack_leaf(value: object, folder: Path) -> PackedLeaf:
    name = codecs.codec_name(value)
    small = codecs.small_codec(name)
    path = folder / f"value-{os.urandom(8).hex()}"
    if small is not None:
        data = small.to_bytes(value)
        if len(data) <= INLINE:
            return PackedLeaf(name, data)
        path.write_bytes(data)
    else:
        codecs.file_codec(name).encode(value, path)
        if path.is_file() and path.stat().st_size <= INLINE:
            data = path.read_bytes()
            path.unlink()
            return PackedLeaf(name, data)
    return PackedLeaf(name, path=str(path))


def unpack(packed: Packed, folder: Path, rows: Callable[[DataRows], object]) -> object:
    """Decode a value; `rows` reads the rows of a dataset, `folder` takes files that a codec needs."""
    if isinstance(packed, DataRows):
        return rows(packed)
    if isinstance(packed, PackedBranch):
        items = [unpack(item, folder, rows) for item in packed.items]
        if packed.kind == "dict":
            return dict(zip(packed.keys, items, strict=True))
        return items if packed.kind == "list" else tuple(items)
    value = _unpack_leaf(packed, folder)
    for key in packed.select:
        try:
            value = cast("Any", value)[key]
        except (LookupError, TypeError):
            raise InvalidInputError(f"What the step returned has no part {key!r}.") from None
    return value


def _unpack_leaf(packed: PackedLeaf, folder: Path) -> object:
    small = codecs.small_codec(packed.codec)
    if small is not None:
        data = packed.data if packed.data is not None else Path(cast("str", packed.path)).read_bytes()
        return small.from_bytes(data)
    if packed.data is None:
        return codecs.file_codec(packed.codec).decode(Path(cast("str", packed.path)))
    path = folder / f"value-{os.urandom(8).hex()}"
    path.write_bytes(packed.data)
    return codecs.file_codec(packed.codec).decode(path)


class ValueStore:
    """Keeps packed values as blobs and packs kept ones again. `folder` holds files for one run."""

    def __init__(self, blobs: Blobs, folder: Path) -> None:
        self._blobs = blobs
        self._folder = folder
        self._inline: dict[str, bytes] = {}

    def keep(self, packed: Packed) -> Stored:
        """Keep a value and answer under which digests."""
        if isinstance(packed, DataRows):
            raise TypeError("rows of a dataset are kept already")
        if isinstance(packed, PackedBranch):
            return Branch(packed.kind, tuple(self.keep(item) for item in packed.items), packed.keys)
        if packed.data is not None:
            digest = self._blobs.put(packed.data)
            self._inline[digest] = packed.data
            return Leaf(packed.codec, digest, len(packed.data))
        path = Path(cast("str", packed.path))
        tree = path.is_dir()
        digest = self._blobs.put_tree(path) if tree else self._blobs.put_file(path)
        size = sum(file.stat().st_size for file in path.rglob("*")) if tree else path.stat().st_size
        place = self._place(digest)
        with contextlib.suppress(OSError):  # a folder of the same content stands there already
            path.rename(place)
        return Leaf(packed.codec, digest, size, tree)

    def supply(self, stored: Stored, rest: tuple[Key, ...] = ()) -> Packed:
        """Pack a kept value for a process on this machine to read."""
        if isinstance(stored, Branch):
            return PackedBranch(
                stored.kind,
                tuple(cast("Any", self.supply(item)) for item in stored.items),
                stored.keys,
            )
        if not stored.tree and stored.size <= INLINE:
            data = self._inline.get(stored.digest)
            if data is None:
                data = self._inline[stored.digest] = self._blobs.get(stored.digest)
            return PackedLeaf(stored.codec, data=data, select=rest)
        place = self._place(stored.digest)
        if not place.exists():
            if stored.tree:
                self._blobs.fetch_tree(stored.digest, place)
            else:
                self._blobs.fetch_file(stored.digest, place)
        return PackedLeaf(stored.codec, path=str(place), select=rest)

    def has(self, stored: Stored) -> bool:
        """Whether all of a value is still kept; from now on it counts as just written, so that it stays until
        somebody points at it."""
        return all(leaf.digest in self._inline or self._refresh(leaf) for leaf in leaves(stored))

    def _refresh(self, leaf: Leaf) -> bool:
        if not self._blobs.refresh(leaf.digest):
            return False
        files = self._blobs.manifest(leaf.digest).files.values() if leaf.tree else ()
        return all(self._blobs.refresh(file.digest) for file in files)

    def close(self) -> None:
        """Remove the files of this run."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("b3:")


def load(blobs: Blobs, stored: Stored, folder: Path, *, trusted_only: bool = True) -> object:
    """Read a kept value into this process; large parts are fetched below `folder`.

    With `trusted_only`, a value whose bytes decide what code runs is refused with RefusedError.
    """
    if trusted_only:
        for leaf in leaves(stored):
            codecs.check_trusted(leaf.codec)
    packed = ValueStore(blobs, folder).supply(stored)

    def no_rows(_rows: DataRows) -> object:
        raise TypeError("a kept value holds no rows of a dataset")

    return unpack(packed, folder, no_rows)
