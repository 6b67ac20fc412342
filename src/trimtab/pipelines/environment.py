"""The environment that a step's code runs in, as far as it belongs to the cache key."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from trimtab.digest import digest_json


class Environment:
    """Which distributions are installed on this process's search path.

    `cache` is a file that keeps what costs long to find out: which distribution an import name belongs to
    where the two are not called alike.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache
        self._installed = _installed()
        self._owners: dict[str, list[str]] | None = None

    def versions(self, modules: Iterable[str]) -> dict[str, str]:
        """The versions of Python and of the distributions that these top-level modules belong to."""
        found = {"python": platform.python_version()}
        for module in set(modules) - sys.stdlib_module_names:
            name = _normalised(module)
            if name in self._installed:
                found[name] = self._installed[name]
                continue
            for owner in self._owners_of(module):
                found[_normalised(owner)] = self._installed.get(_normalised(owner), "")
        return dict(sorted(found.items()))

    def _owners_of(self, module: str) -> list[str]:
        if self._owners is None:
            self._owners = self._read_owners()
        return self._owners.get(module, [])

    def _read_owners(self) -> dict[str, list[str]]:
        state = digest_json(self._installed)
        if self._cache is not None and self._cache.exists():
            try:
                kept = msgspec.json.decode(self._cache.read_bytes(), type=_Owners)
            except msgspec.DecodeError:  # a write that was cut short; it is written anew below
                kept = None
            if kept is not None and kept.state == state:
                return kept.owners
        found = {
            name: sorted(set(owners)) for name, owners in importlib.metadata.packages_distributions().items()
        }
        if self._cache is not None:
            self._cache.write_bytes(msgspec.json.encode(_Owners(state, found)))
        return found


class _Owners(msgspec.Struct, frozen=True):
    state: str
    owners: dict[str, list[str]]


def _installed() -> dict[str, str]:
    """Versions by normalised name, told from the names of the metadata folders alone."""
    found: dict[str, str] = {}
    for entry in sys.path:
        folder = Path(entry)
        if not folder.is_dir():
            continue
        for path in sorted(folder.glob("*.dist-info")):
            name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
            found.setdefault(_normalised(name), version)
    return found


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
