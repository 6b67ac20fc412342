"""Which outside names a piece of code uses: lexical scoping over the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

Chain = tuple[str, ...]
"""A name and the attributes taken from it: `helpers.rates.TAX` is ("helpers", "rates", "TAX")."""

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Imported(NamedTuple):
    """What an import binds: a module, or a name of it; `level` counts the dots of a relative import."""

    module: str
    name: str | None
    level: int


Scope = Mapping[str, Imported | None]
"""Names bound inside the code: by an import, or (None) in any other way."""


class Uses:
    """What code uses and does not bind itself.

    `chains` start with a name that the module (or the builtins) must have; `through` follows imports that
    happen within functions; `executed` are the imports that the code carries out; `imported` the modules
    named by constants in `import_module("...")`. A name that a class body binds counts as used as well
    when the body reads it, since it is looked up outside until it is bound.
    """

    def __init__(self, code: Iterable[ast.AST]) -> None:
        self.chains: set[Chain] = set()
        self.through: set[tuple[Imported, Chain]] = set()
        self.executed: set[Imported] = set()
        self.imported: set[str] = set()
        for node in code:
            self._visit(node, {})

    def _visit(self, node: ast.AST, bound: Scope) -> None:
        if isinstance(node, Function):
            self._function(node, bound)
        elif isinstance(node, Comprehension):
            self._comprehension(node, bound)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.executed.update(imported for _, imported in imports_of(node))
        elif isinstance(node, ast.Name | ast.Attribute):
            self._reference(node, bound)
        elif not (isinstance(node, ast.Call) and self._known_call(node, bound)):
            self._children(node, bound)

    def _children(self, node: ast.AST, bound: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            self._visit(child, bound)

    def _function(self, node: Function, bound: Scope) -> None:
        declared = [
            *node.args.posonlyargs,
            *node.args.args,
            *node.args.kwonlyargs,
            *(argument for argument in (node.args.vararg, node.args.kwarg) if argument is not None),
        ]
        outer: list[ast.AST] = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
        outer.extend(argument.annotation for argument in declared if argument.annotation is not None)
        if isinstance(node, ast.Lambda):
            body: list[ast.AST] = [node.body]
        else:
            outer.extend(node.decorator_list)
            outer.extend(() if node.returns is None else (node.returns,))
            body = list(node.body)
        for part in outer:
            self._visit(part, bound)
        parameters = [argument.arg for argument in declared]
        parameters.extend(parameter.name for parameter in getattr(node, "type_params", ()))  # Python 3.12+
        inner = {**bound, **dict.fromkeys(parameters), **bound_in(body)}
        for part in body:
            self._visit(part, inner)

    def _comprehension(self, node: Comprehension, bound: Scope) -> None:
        inner = dict(bound)
        for generator in node.generators:
            self._visit(generator.iter, inner)
            inner.update((part.id, None) for part in ast.walk(generator.target) if isinstance(part, ast.Name))
            for condition in generator.ifs:
                self._visit(condition, inner)
        for result in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self._visit(result, inner)

    def _reference(self, node: ast.Name | ast.Attribute, bound: Scope) -> None:
        chain = chain_of(node)
        if chain is None:
            self._children(node, bound)
        elif not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)):
            self._use(chain, bound)

    def _use(self, chain: Chain, bound: Scope) -> None:
        if chain[0] not in bound:
            self.chains.add(chain)
        elif (imported := bound[chain[0]]) is not None:
            self.through.add((imported, chain[1:]))

    def _known_call(self, node: ast.Call, bound: Scope) -> bool:
        """Take in the two dynamic calls that are static when their argument is a constant."""
        chain = chain_of(node.func)
        values = [part.value if isinstance(part, ast.Constant) else None for part in node.args]
        if chain is None:
            return False
        if chain[-1] == "import_module" and len(values) == 1 and isinstance(values[0], str):
            self.imported.add(values[0])
            return True
        target = chain_of(node.args[0]) if chain == ("getattr",) and len(values) >= 2 else None
        if target is None or not isinstance(values[1], str):
            return False
        self._use((*target, values[1]), bound)
        for part in node.args[2:]:
            self._visit(part, bound)
        return True


def chain_of(node: ast.AST) -> Chain | None:
    """The chain that an expression is, or None if it is more than names and attributes."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else None


def imports_of(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Imported]]:
    """What an import statement binds, by name; "*" for a star."""
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom):
            yield alias.asname or alias.name, Imported(statement.module or "", alias.name, statement.level)
        elif alias.asname:
            yield alias.asname, Imported(alias.name, None, 0)
        else:
            yield alias.name.split(".")[0], Imported(alias.name.split(".")[0], None, 0)


def bound_in(body: Iterable[ast.AST]) -> dict[str, Imported | None]:
    """The names that these statements bind in their own scope, also in the blocks within them."""
    bound: dict[str, Imported | None] = {}
    elsewhere: set[str] = set()
    pending = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.setdefault(node.name, None)
            continue
        if isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere.update(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            bound.setdefault(node.id, None)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(imports_of(node))
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.setdefault(node.name, None)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound.setdefault(node.rest, None)
        if isinstance(node, Comprehension | ast.Lambda):
            # What they bind is their own, but for a walrus in a comprehension.
            pending.extend(part.target for part in ast.walk(node) if isinstance(part, ast.NamedExpr))
        else:
            pending.extend(ast.iter_child_nodes(node))
    return {name: imported for name, imported in bound.items() if name not in elsewhere}
