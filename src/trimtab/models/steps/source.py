"""The source that functions need, cut out of the user's modules.

Starting from the functions, every first-party function, class and constant that they name is taken over, and
nothing else: a script's training is not packed with the function that stands above it. A constant whose value
is plain is taken over as that value, so what training computed stays what it was. Everything else is taken
over as source, with the statements at the top of its module that change it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import msgspec

from trimtab.digest import digest_bytes, digest_json
from trimtab.errors import InvalidInputError
from trimtab.models.steps.literals import literal
from trimtab.pipelines.closure import DYNAMIC_BUILTINS, is_dynamic
from trimtab.pipelines.modules import Definition, ModuleIndex, SourceModule, without_docstrings
from trimtab.pipelines.names import Chain, Imported, Uses

_KNOWN = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__", "__package__", "__spec__", "__path__"}
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_TABLES = frozenset({"DataFrame", "LazyFrame", "Series", "ndarray", "Index"})

Place = tuple[int, int]
"""Where a statement starts: line and column."""


class Code(msgspec.Struct, frozen=True):
    """Source files by path, in which the functions stand under `names` ("module", "name"). `packages` are the
    top-level modules that they use and that are not packed; `digest` leaves comments and layout out."""

    files: dict[str, bytes]
    names: tuple[tuple[str, str], ...]
    packages: frozenset[str]
    digest: str


def packed(functions: Iterable[Callable[..., Any]]) -> Code:
    """The code that these functions need. Raises InvalidInputError for functions that cannot be found by name
    in a file, and for code that chooses what it uses in ways that cannot be followed."""
    cut = _Cut()
    names = tuple(cut.take(plain_function(function)) for function in functions)
    return cut.code(names)


def plain_function(function: object) -> FunctionType:
    """The function itself, of a step too. Raises InvalidInputError for anything else."""
    found = getattr(function, "function", function)
    if not isinstance(found, FunctionType):
        raise InvalidInputError(
            f"{function!r:.80} is no function.",
            hint="Give a function that is defined at the top level of a module, or a @step.",
        )
    if "<" in found.__qualname__ or "." in found.__qualname__:
        raise InvalidInputError(
            f"'{found.__qualname__}' is defined inside of something else, and cannot be cut out of it.",
            hint="Define it at the top level of a module; give it values with functools.partial(function, "
            "name=value).",
        )
    return found


class _Part:
    """What is taken over of one module."""

    def __init__(self, source: SourceModule, live: Mapping[str, object]) -> None:
        self.source = source
        self.live = live
        self.names: set[str] = set()
        self.literals: dict[Place, dict[str, str]] = {}
        self.statements: set[Place] = set()
        self.made: set[str] = set()
        """Names of objects that source makes, and that other statements may change."""
        self.stars = False

    def keeps_effect(self, statement: ast.stmt) -> bool:
        """Whether a statement may change an object that was taken over as source."""
        changed = self.made & {chain[0] for chain in Uses([statement]).chains}
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            plain = {name for values in self.literals.values() for name in values}
            changed |= (self.names - plain) & {_root(target) for target in targets}
        return bool(changed)


class _Cut:
    def __init__(self) -> None:
        self._index = ModuleIndex()
        self._parts: dict[str, _Part] = {}
        self._scripts: dict[str, Mapping[str, object]] = {}
        self._taken: set[tuple[str, Chain]] = set()
        self._pending: list[Callable[[], None]] = []
        self._packages: set[str] = set()

    def take(self, function: FunctionType) -> tuple[str, str]:
        """Take a function over; answers the module and the name under which it will stand."""
        path = Path(inspect.unwrap(function).__code__.co_filename)
        if not path.is_file():
            raise InvalidInputError(
                f"The source of '{function.__name__}' is in no file ({path}).",
                hint="Write it to a module, and import it from there.",
            )
        module = function.__module__
        if module == "__main__":
            module = path.stem if path.stem.isidentifier() else "main_script"
            self._index.add_script(module, path)
            self._scripts[module] = function.__globals__
        source = self._index.module(module)
        if source is None or source.path is None or source.path.resolve() != path.resolve():
            raise InvalidInputError(
                f"'{function.__name__}' of '{module}' is no code of yours, or was imported from elsewhere "
                f"({path}) than where '{module}' is found now.",
                hint="Wrap what an installed package has in a function of your own.",
            )
        if function.__name__ not in source.definitions:
            raise InvalidInputError(
                f"'{function.__name__}' is not defined at the top level of '{path}'.",
                hint="Move it there, out of any `if __name__ == ...`.",
            )
        self._use(self._enter(source), (function.__name__,))
        self._work()
        return module, function.__name__

    def code(self, names: tuple[tuple[str, str], ...]) -> Code:
        """All that was taken over."""
        files, trees = {}, {}
        for name, part in sorted(self._parts.items()):
            base = name.replace(".", "/")
            path = f"{base}/__init__.py" if part.source.is_package else f"{base}.py"
            text = self._text(part)
            files[path] = text.encode()
            trees[path] = digest_bytes(ast.dump(without_docstrings(ast.parse(text))).encode())
        digest = digest_json({"files": trees, "names": names})
        return Code(files, names, frozenset(self._packages), digest)

    def _work(self) -> None:
        while self._pending:
            while self._pending:
                self._pending.pop()()
            for part in list(self._parts.values()):
                for effect in part.source.effects:
                    if _place(effect) not in part.statements and part.keeps_effect(effect):
                        self._keep(part, effect)

    def _enter(self, source: SourceModule) -> _Part:
        found = self._parts.get(source.name)
        if found is not None:
            return found
        if source.opaque:
            raise InvalidInputError(
                f"The module '{source.name}' is compiled code, which cannot be packed.",
                hint="Install it as a package, here and where the model is served.",
            )
        live = self._scripts.get(source.name)
        if live is None:
            live = vars(sys.modules[source.name]) if source.name in sys.modules else {}
        found = self._parts[source.name] = _Part(source, live)
        parent = self._index.module(source.name.rpartition(".")[0]) if "." in source.name else None
        if parent is not None:
            self._enter(parent)
        return found

    def _use(self, part: _Part, chain: Chain) -> None:
        """Take over what a name of a module stands for, and what is taken from it by attributes."""
        if (part.source.name, chain) in self._taken:
            return
        self._taken.add((part.source.name, chain))
        name = chain[0]
        definitions = part.source.definitions.get(name)
        if definitions is None:
            self._use_undefined(part, name)
            return
        if name not in part.names:
            part.names.add(name)
            self._define(part, name, definitions)
        for definition in definitions:
            if isinstance(definition, Imported):
                self._follow(part, definition, chain[1:])

    def _use_undefined(self, part: _Part, name: str) -> None:
        if name in DYNAMIC_BUILTINS:
            raise _not_followed(part, f"calls {name}")
        if name in _KNOWN:
            return
        for star in part.source.stars:
            if self._index.module(part.source.absolute(star)) is not None:
                raise _not_followed(part, f"takes '{name}' from a star import")
            part.stars = True
            self._packages.add(part.source.absolute(star).split(".")[0])

    def _define(self, part: _Part, name: str, definitions: list[Definition]) -> None:
        statements = [each for each in definitions if not isinstance(each, Imported)]
        if len(statements) == len(definitions) and not any(isinstance(each, _DEFINED) for each in statements):
            value = part.live.get(name, part)
            text = literal(value)
            if text is not None:
                part.literals.setdefault(_place(statements[0]), {})[name] = text
                return
            if type(value).__name__ in _TABLES:
                raise InvalidInputError(
                    f"'{name}' in {part.source.name} is a {type(value).__name__}, whose values are not in "
                    "the source.",
                    hint=f"Make it a dictionary or a list: {name} = {name}.to_dict(as_series=False), or pass "
                    "it in with functools.partial.",
                )
            part.made.add(name)
        for statement in statements:
            self._keep(part, statement)

    def _keep(self, part: _Part, statement: ast.stmt) -> None:
        part.statements.add(_place(statement))
        self._pending.append(lambda: self._follow_uses(part, Uses([statement])))

    def _follow_uses(self, part: _Part, uses: Uses) -> None:
        for chain in uses.chains:
            self._use(part, chain)
        for imported, rest in uses.through:
            self._follow(part, imported, rest)
        for imported in uses.executed:
            if imported.name is not None or self._index.module(part.source.absolute(imported)) is None:
                self._follow(part, imported, ())
        if uses.imported:
            raise _not_followed(part, f"imports {min(uses.imported)} by its name")

    def _follow(self, part: _Part, imported: Imported, rest: Chain) -> None:
        chain = rest if imported.name is None else (imported.name, *rest)
        name = part.source.absolute(imported)
        target = self._index.module(name)
        if target is None:
            if is_dynamic(".".join((name, *chain))):
                raise _not_followed(part, f"uses {'.'.join((name, *chain))}")
            self._packages.add(name.split(".")[0])
        elif name == part.source.name and (sub := self._index.module(f"{name}.{imported.name}")) is not None:
            self._take_from(sub, rest)  # a package that names its own part
        else:
            self._take_from(target, chain)

    def _take_from(self, target: SourceModule, chain: Chain) -> None:
        part = self._enter(target)
        if not chain:
            for name in target.definitions:
                self._use(part, (name,))
        elif chain[0] in target.definitions:
            self._use(part, chain)
        elif (submodule := self._index.module(f"{target.name}.{chain[0]}")) is not None:
            self._take_from(submodule, chain[1:])
        elif chain[0] not in _KNOWN:
            raise _not_followed(part, f"has no '{chain[0]}' that can be seen in its source")

    def _text(self, part: _Part) -> str:
        if part.source.path is None:
            return ""
        whole = part.source.path.read_text()
        lines = whole.splitlines()
        blocks = []
        for statement in ast.parse(whole).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                blocks.append(self._import_text(part, statement))
                continue
            place = _place(statement)
            blocks.extend(f"{name} = {text}" for name, text in part.literals.get(place, {}).items())
            if place not in part.statements:
                continue
            if isinstance(statement, _DEFINED):
                first = min([statement.lineno, *(each.lineno for each in statement.decorator_list)])
                blocks.append("\n" + "\n".join(lines[first - 1 : statement.end_lineno]) + "\n")
            else:
                blocks.append(ast.unparse(statement))
        return "\n".join(block for block in blocks if block) + "\n"

    def _import_text(self, part: _Part, statement: ast.Import | ast.ImportFrom) -> str:
        kept = []
        for alias in statement.names:
            bound = alias.asname or alias.name
            if isinstance(statement, ast.Import):
                own = self._index.module(alias.name)
                wanted = own is None or own.name in self._parts
                if wanted and (alias.asname or alias.name.split(".")[0]) in part.names:
                    kept.append(alias)
            elif statement.module == "__future__" or bound in part.names or (bound == "*" and part.stars):
                kept.append(alias)
        if not kept:
            return ""
        if isinstance(statement, ast.Import):
            return ast.unparse(ast.Import(kept))
        return ast.unparse(ast.ImportFrom(statement.module, kept, statement.level))


def _place(statement: ast.stmt) -> Place:
    return statement.lineno, statement.col_offset


def _root(target: ast.expr) -> str:
    """The name behind which an assignment changes something: `a` of `a.b[c] = d`."""
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
    return target.id if isinstance(target, ast.Name) else ""


def _not_followed(part: _Part, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"The code of '{part.source.name}' {what}, so what it needs cannot be told.",
        hint="Name what is used in the source, by plain imports.",
    )
