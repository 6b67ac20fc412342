"""The step cache: what a step returned for given code, inputs, parameters and environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
from sqlalchemy import Connection, delete, select

from trimtab.digest import digest_json
from trimtab.pipelines.closure import Closure, ClosureFinder, module_digest
from trimtab.pipelines.environment import Environment
from trimtab.pipelines.modules import ModuleIndex, SourceModule, is_first_party
from trimtab.pipelines.project import source_files
from trimtab.pipelines.schema import step_cache_table as step_cache
from trimtab.pipelines.step import Step
from trimtab.pipelines.values import Stored, leaves
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert

FORMAT = 1
"""Counted up when keys, or the bytes that codecs write, come to mean something else."""


class CodeKeys:
    """The part of cache keys that comes from code and environment, over one state of the source.

    `root` is the project's folder if it is known; otherwise, where all source counts, it is the folder
    that the module was found in.
    """

    def __init__(self, root: Path | None, environment: Environment) -> None:
        self._root = root
        self._environment = environment
        self._index = ModuleIndex()
        self._finder = ClosureFinder(self._index, self._project_digest)
        self._closures: dict[tuple[str, str], Closure] = {}
        self._projects: dict[Path, str] = {}

    def add_script(self, name: str, path: Path) -> None:
        """Let `name` be the script at `path`."""
        self._index.add_script(name, path)

    def closure(self, module: str, qualname: str) -> Closure:
        """What a function or class reaches."""
        found = self._closures.get((module, qualname))
        if found is None:
            found = self._closures[module, qualname] = self._finder.closure(module, qualname)
        return found

    def code_key(self, closure: Closure) -> list[object]:
        """What a cache key has of the code and of the environment that it runs in."""
        return [FORMAT, closure.digest, self._environment.versions(closure.packages)]

    def _project_digest(self, module: SourceModule) -> str:
        root = self._root
        if root is None:
            assert module.path is not None
            root = module.path.parent
            while (root / "__init__.py").exists():
                root = root.parent
        if root not in self._projects:
            digests = {
                path.relative_to(root).as_posix(): module_digest(path)
                for path in source_files(root)
                if is_first_party(path)
            }
            self._projects[root] = digest_json(digests)
        return self._projects[root]


def cache_key(code: list[object], place: str, inputs: Mapping[str, object]) -> str:
    """The key of one call: its code, the function's place ("module:name"), and its inputs' identities."""
    return digest_json([code, place, dict(inputs)])


def lookup(connection: Connection, key: str) -> Stored | None:
    """What is cached under a key."""
    found = connection.execute(
        select(step_cache.c.output).where(step_cache.c.cache_key == key)
    ).scalar_one_or_none()
    return None if found is None else cast("Stored", msgspec.convert(found, Stored))


def remember(
    tx: Transaction, key: str, step: Step[..., object], output: Stored, seconds: float, run: str
) -> None:
    """Cache what a step returned; what another process cached first stays."""
    row = {
        "cache_key": key,
        "step": step.name,
        "output": output,
        "seconds": seconds,
        "run_id": run,
        "created_at": tx.at,
    }
    upsert(tx, step_cache, [row], keys=["cache_key"], update=[])


def forget(tx: Transaction, key: str) -> None:
    """Drop an entry whose value is no longer kept."""
    tx.execute(delete(step_cache).where(step_cache.c.cache_key == key))


def cached_digests(connection: Connection) -> frozenset[str]:
    """The digests of the blobs and trees that the cache refers to."""
    outputs = connection.execute(select(step_cache.c.output)).scalars()
    return frozenset(
        leaf.digest for output in outputs for leaf in leaves(cast("Stored", msgspec.convert(output, Stored)))
    )
