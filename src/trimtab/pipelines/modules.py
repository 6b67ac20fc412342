"""First-party modules as source: found without importing them, parsed, and taken apart by name."""

from __future__ import annotations

import ast
import importlib.machinery
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from trimtab.digest import digest_bytes
from trimtab.pipelines.names import Imported, bound_in, imports_of

_OWN = Path(__file__).resolve().parents[1]
_THIRD_PARTY = {
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
}
_THIRD_PARTY_FOLDERS = {"site-packages", "dist-packages"}

Definition = ast.stmt | Imported


class SourceModule:
    """One first-party module, by what its top level does.

    `definitions` has, for each name, everything that binds it; `effects` are the statements that do
    something else when the module is imported (calls, changes to what other names hold), `imports` what it
    imports then, `stars` the modules whose every name it takes in.
    """

    def __init__(self, name: str, path: Path | None, is_package: bool) -> None:
        self.name = name
        self.path = path
        self.is_package = is_package
        self.definitions: dict[str, list[Definition]] = {}
        self.effects: list[ast.stmt] = []
        self.imports: list[Imported] = []
        self.stars: list[Imported] = []
        self.opaque = ""
        """The digest of the file, where it is not Python source but compiled code."""
        if path is None:  # a namespace package has no code
            return
        if path.suffix != ".py":
            self.opaque = digest_bytes(path.read_bytes())
            return
        for statement in without_docstrings(ast.parse(path.read_bytes(), str(path))).body:
            self._take(statement)

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    def absolute(self, imported: Imported) -> str:
        """The full name of the module that an import in this module names."""
        if imported.level == 0:
            return imported.module
        base = self.package.split(".")
        base = base[: len(base) - imported.level + 1]
        return ".".join((*base, imported.module) if imported.module else base)

    def _take(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.If) and _is_main_guard(statement.test):
            return  # never runs in an imported module
        for part in ast.walk(statement):
            if isinstance(part, ast.Import | ast.ImportFrom) and not _within_function(part, statement):
                self._take_import(part)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return
        bound = bound_in([statement])
        for name in bound:
            self.definitions.setdefault(name, []).append(statement)
        if _has_effect(statement):
            self.effects.append(statement)

    def _take_import(self, statement: ast.Import | ast.ImportFrom) -> None:
        for name, imported in imports_of(statement):
            if name == "*":
                self.stars.append(imported)
            else:
                self.definitions.setdefault(name, []).append(imported)
            self.imports.append(imported)
        if isinstance(statement, ast.Import):  # `import a.b` binds `a`, but runs `a.b`
            self.imports.extend(Imported(alias.name, None, 0) for alias in statement.names)


class ModuleIndex:
    """Finds the source of modules along a search path, and remembers it.

    First-party is what lies neither in the standard library, nor among installed packages, nor in Trimtab.
    """

    def __init__(self, search_path: Sequence[str] | None = None) -> None:
        self._search_path = list(sys.path if search_path is None else search_path)
        self._found: dict[str, SourceModule | None] = {}

    def add_script(self, name: str, path: Path) -> None:
        """Let `name` be the script at `path`, which is not found along the search path."""
        self._found[name] = SourceModule(name, path, is_package=False)

    def module(self, name: str) -> SourceModule | None:
        """The first-party module of that name; None if it is installed, built in, or not to be found."""
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def _load(self, name: str) -> SourceModule | None:
        parent, _, _ = name.rpartition(".")
        if name.split(".")[0] in sys.stdlib_module_names:
            return None
        path: Sequence[str] | None = self._search_path
        if parent:
            if self.module(parent) is None:
                return None
            path = self._locations(parent)
        spec = _find(name, path)
        if spec is None:
            return None
        if spec.origin is None or not spec.has_location:
            locations = list(spec.submodule_search_locations or ())
            if not locations or not all(is_first_party(Path(location)) for location in locations):
                return None
            return SourceModule(name, None, is_package=True)
        origin = Path(spec.origin)
        if not is_first_party(origin):
            return None
        return SourceModule(name, origin, is_package=spec.submodule_search_locations is not None)

    def _locations(self, package: str) -> list[str]:
        module = self._found[package]
        assert module is not None
        if not module.is_package:
            return []
        if module.path is not None:
            return [str(module.path.parent)]
        parent, _, _ = package.rpartition(".")
        spec = _find(package, self._locations(parent) if parent else self._search_path)
        return list(spec.submodule_search_locations or ()) if spec is not None else []


def is_first_party(path: Path) -> bool:
    """Whether a file is the user's own: not installed, not of the standard library, not Trimtab's."""
    path = path.resolve()
    if _THIRD_PARTY_FOLDERS.intersection(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in (_OWN, *_THIRD_PARTY))


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree without docstrings, which change nothing that a step computes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if (
                body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
                and isinstance(body[0].value.value, str)
            ):
                node.body = body[1:]
    return tree


def _find(name: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    found = importlib.machinery.PathFinder.find_spec(name, path)
    if found is not None or "." in name:
        return found
    for finder in sys.meta_path:  # packages installed in place have finders of their own
        if finder is not importlib.machinery.PathFinder and hasattr(finder, "find_spec"):
            found = finder.find_spec(name, None)
            if found is not None:
                return found
    return None


def _is_main_guard(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and len(test.comparators) == 1
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == "__main__"
        and isinstance(test.ops[0], ast.Eq)
    )


def _within_function(part: ast.AST, statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return True
    return any(
        part in ast.walk(function)
        for function in ast.walk(statement)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )


def _has_effect(statement: ast.stmt) -> bool:
    """Whether a top-level statement does more than to bind names."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return any(
            isinstance(part, ast.Attribute | ast.Subscript) for target in targets for part in ast.walk(target)
        )
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.If | ast.Try | ast.TryStar):
        return any(_has_effect(part) for part in _block_statements(statement))
    return not isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass | ast.Global) and type(
        statement
    ).__name__ not in {"TypeAlias"}


def _block_statements(statement: ast.If | ast.Try | ast.TryStar) -> list[ast.stmt]:
    found = [*statement.body, *statement.orelse]
    if not isinstance(statement, ast.If):
        found.extend(statement.finalbody)
        for handler in statement.handlers:
            found.extend(handler.body)
    return found
