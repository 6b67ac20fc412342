"""The code that a step can reach, and its digest.

Starting from the step's function, every first-party function, class and constant that it names is
followed, through modules and imports, without running anything. What counts is the syntax tree without
docstrings; comments and layout are not in it. Beyond what is reached by name, statements with effects at
the top level of the modules concerned count, since importing them runs them. Where code chooses what it
uses in ways that cannot be followed (`exec`, computed imports, `getattr` on a module with a computed name,
first-party star imports, `globals()`), the whole project's source counts.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Callable
from pathlib import Path

import msgspec

from trimtab.digest import digest_bytes, digest_json
from trimtab.pipelines.modules import Definition, ModuleIndex, SourceModule, without_docstrings
from trimtab.pipelines.names import Chain, Imported, Uses, chain_of

_BUILTINS = frozenset(dir(builtins))
_MODULE_NAMES = frozenset(
    {"__name__", "__file__", "__doc__", "__package__", "__spec__", "__path__", "__all__"}
)

DYNAMIC_BUILTINS = frozenset({"exec", "eval", "__import__", "globals", "__builtins__"})
"""Functions that reach code by names that cannot be followed."""

_DYNAMIC = (
    "builtins",
    "importlib.__import__",
    "importlib.import_module",
    "importlib.machinery",
    "importlib.reload",
    "importlib.util.module_from_spec",
    "importlib.util.spec_from_file_location",
    "pkgutil",
    "pydoc.locate",
    "runpy",
    "sys.modules",
)
_STEP = frozenset({"trimtab.step", "trimtab.pipelines.step", "trimtab.pipelines.step.step"})


class Closure(msgspec.Struct, frozen=True, kw_only=True):
    """What a step reaches.

    `external` are the names that it uses of modules that are not first-party, in full
    ("polars.read_csv"), `imports` the modules that are imported along with the code; `whole_project` says
    why all source counts, or is empty.
    """

    digest: str
    reached: tuple[str, ...]
    external: tuple[str, ...]
    imports: tuple[str, ...]
    whole_project: str = ""

    @property
    def packages(self) -> frozenset[str]:
        """The top-level modules that are not first-party."""
        return frozenset(name.split(".")[0] for name in self.external)


class ClosureFinder:
    """Finds closures over one state of the source; make a new one when files may have changed.

    `project_digest` gives the digest of all source, asked for only where it counts.
    """

    def __init__(self, index: ModuleIndex, project_digest: Callable[[SourceModule], str]) -> None:
        self._index = index
        self._project_digest = project_digest
        self._dumps: dict[int, str] = {}
        self._uses: dict[int, Uses] = {}

    def closure(self, module: str, qualname: str) -> Closure:
        """The closure of the function `qualname` of a module."""
        return _Walk(self, module, qualname).closure()

    def project_digest(self, module: SourceModule) -> str:
        """The digest of the whole source of the project that the module belongs to."""
        return self._project_digest(module)

    def module(self, name: str) -> SourceModule | None:
        """A first-party module, or None."""
        return self._index.module(name)

    def dump(self, statement: ast.stmt) -> str:
        """The digest of a statement's syntax tree."""
        found = self._dumps.get(id(statement))
        if found is None:
            found = self._dumps[id(statement)] = digest_bytes(ast.dump(statement).encode())
        return found

    def uses(self, statement: ast.stmt) -> Uses:
        """What a statement uses."""
        found = self._uses.get(id(statement))
        if found is None:
            found = self._uses[id(statement)] = Uses([statement])
        return found


class _Walk:
    def __init__(self, finder: ClosureFinder, module: str, qualname: str) -> None:
        self._finder = finder
        self._entries: dict[str, list[str]] = {}
        self._external: set[str] = set()
        self._imports: set[str] = set()
        self._whole_project = ""
        self._visited: set[str] = set()
        self._pending: list[Callable[[], None]] = []
        self._root = finder.module(module)
        if self._root is None:
            self._external.add(module)
            return
        self._enter(self._root)
        name = qualname.split(".")[0]
        if name not in self._root.definitions:
            self._give_up(f"{module} has no '{name}' that can be seen in its source")
        for definition in self._root.definitions.get(name, ()):
            self._reach_root(self._root, name, definition)
        while self._pending:
            self._pending.pop()()

    def closure(self) -> Closure:
        """What was found."""
        project = ""
        if self._whole_project and self._root is not None:
            project = self._finder.project_digest(self._root)
        return Closure(
            digest=digest_json(
                {"entries": self._entries, "external": sorted(self._external), "project": project}
            ),
            reached=tuple(sorted(self._entries)),
            external=tuple(sorted(self._external)),
            imports=tuple(sorted(self._imports)),
            whole_project=self._whole_project,
        )

    def _reach_root(self, module: SourceModule, name: str, definition: Definition) -> None:
        """Reach the step itself, without the decorator: how often it is tried does not change its value."""
        if isinstance(definition, ast.FunctionDef):
            bare = copy.copy(definition)
            bare.decorator_list = [
                part for part in definition.decorator_list if not self._is_step(module, part)
            ]
            self._entries[f"{module.name}:{name}"] = [digest_bytes(ast.dump(bare).encode())]
            self._visited.add(f"{module.name}:{name}")
            self._follow(module, Uses([bare]), name)
        else:
            self._reach(module, (name,))

    def _is_step(self, module: SourceModule, decorator: ast.expr) -> bool:
        chain = chain_of(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if chain is None:
            return False
        for definition in module.definitions.get(chain[0], ()):
            if isinstance(definition, Imported):
                path = [module.absolute(definition)]
                path.extend(() if definition.name is None else (definition.name,))
                if ".".join((*path, *chain[1:])) in _STEP:
                    return True
        return False

    def _enter(self, module: SourceModule) -> None:
        """Count what importing a module does: its effects, those of its packages and of its imports."""
        if f"{module.name}:" in self._visited:
            return
        self._visited.add(f"{module.name}:")
        if module.opaque:
            self._entries[f"{module.name}:"] = [module.opaque]
        parent = self._finder.module(module.name.rpartition(".")[0]) if "." in module.name else None
        if parent is not None:
            self._enter(parent)
        for imported in module.imports:
            self._execute(module, imported)
        for statement in module.effects:
            self._entries.setdefault(f"{module.name}:", []).append(self._finder.dump(statement))
            uses = self._finder.uses(statement)
            self._pending.append(lambda uses=uses: self._follow(module, uses, "its top level"))  # type: ignore[misc]  # bound now

    def _execute(self, module: SourceModule, imported: Imported) -> None:
        name = module.absolute(imported)
        target = self._finder.module(name)
        if target is None:
            self._imports.add(name)
            return
        self._enter(target)
        if imported.name is not None and imported.name not in target.definitions:
            submodule = self._finder.module(f"{name}.{imported.name}")
            if submodule is not None:
                self._enter(submodule)

    def _reach(self, module: SourceModule, chain: Chain) -> None:
        """Count what a name of a module stands for."""
        self._enter(module)
        name = chain[0]
        for definition in module.definitions[name]:
            if isinstance(definition, Imported):
                self._entries.setdefault(f"{module.name}:{name}", [])
                self._note_import(module, name, definition)
                self._follow_import(module, definition, chain[1:])
                continue
            key = f"{module.name}:{name}:{id(definition)}"
            if key in self._visited:
                continue
            self._visited.add(key)
            if f"{module.name}:{name}" not in self._visited:  # the step itself stands there bare
                self._entries.setdefault(f"{module.name}:{name}", []).append(self._finder.dump(definition))
                uses = self._finder.uses(definition)
                self._pending.append(lambda uses=uses: self._follow(module, uses, name))  # type: ignore[misc]  # bound now

    def _note_import(self, module: SourceModule, name: str, imported: Imported) -> None:
        note = f"import {module.absolute(imported)}:{imported.name or ''}"
        if note not in self._entries[f"{module.name}:{name}"]:
            self._entries[f"{module.name}:{name}"].append(note)

    def _follow(self, module: SourceModule, uses: Uses, where: str) -> None:
        place = f"{module.name}, {where}"
        for chain in uses.chains:
            self._resolve(module, chain, place)
        for imported, rest in uses.through:
            self._follow_import(module, imported, rest)
        for imported in uses.executed:
            self._execute(module, imported)
        for name in uses.imported:
            target = self._finder.module(name)
            if target is None:
                self._external.add(name)
            else:
                self._reach_all(target)

    def _resolve(self, module: SourceModule, chain: Chain, place: str) -> None:
        name = chain[0]
        if name in module.definitions:
            self._reach(module, chain)
        elif any(self._finder.module(module.absolute(star)) is not None for star in module.stars):
            self._give_up(f"a star import in {module.name} may bind '{name}'")
        elif name in DYNAMIC_BUILTINS:
            self._give_up(f"{name} in {place}")
        elif name not in _BUILTINS and name not in _MODULE_NAMES:
            self._external.update(module.absolute(star) for star in module.stars)

    def _follow_import(self, module: SourceModule, imported: Imported, rest: Chain) -> None:
        key = f"{module.name}:{imported}:{'.'.join(rest)}"
        if key in self._visited:
            return
        self._visited.add(key)
        chain = rest if imported.name is None else (imported.name, *rest)
        name = module.absolute(imported)
        target = self._finder.module(name)
        if target is None:
            self._use_external(".".join((name, *chain)), module)
        elif target is module and (submodule := self._finder.module(f"{name}.{imported.name}")) is not None:
            self._take(submodule, rest)  # a package that names its own part
        else:
            self._take(target, chain)

    def _take(self, module: SourceModule, chain: Chain) -> None:
        """Count what is taken from a module object by attributes; all of it, if it is used as a whole."""
        self._enter(module)
        if not chain:
            self._reach_all(module)
        elif chain[0] in module.definitions:
            self._reach(module, chain)
        elif (submodule := self._finder.module(f"{module.name}.{chain[0]}")) is not None:
            self._take(submodule, chain[1:])
        elif chain[0] not in _MODULE_NAMES and not module.opaque:
            self._give_up(f"{module.name} has no '{chain[0]}' that can be seen in its source")

    def _reach_all(self, module: SourceModule) -> None:
        self._enter(module)
        for name in module.definitions:
            self._reach(module, (name,))
        if any(self._finder.module(module.absolute(star)) is not None for star in module.stars):
            self._give_up(f"a star import in {module.name}")

    def _use_external(self, name: str, module: SourceModule) -> None:
        self._external.add(name)
        if is_dynamic(name):
            self._give_up(f"{name} in {module.name}")

    def _give_up(self, why: str) -> None:
        self._whole_project = min(self._whole_project, why) if self._whole_project else why


def is_dynamic(name: str) -> bool:
    """Whether what is called so in full ("importlib.import_module") reaches code that cannot be followed."""
    return name in {"importlib", "sys"} or any(
        name == dynamic or name.startswith(f"{dynamic}.") for dynamic in _DYNAMIC
    )


def module_digest(path: Path) -> str:
    """The digest of one whole Python file's syntax tree; of its bytes, if it cannot be parsed."""
    data = path.read_bytes()
    try:
        return digest_bytes(ast.dump(without_docstrings(ast.parse(data))).encode())
    except (SyntaxError, ValueError):
        return digest_bytes(data)
