"""Packed steps that are Polars expressions alone: read as data, and built without running any code.

A step that only selects and names columns by expressions needs no Python where it is served. Its packed
source is parsed, and what stands there is built by the names in `trimtab.models.steps.allowed`: no import is
made, and nothing else is called, so a gateway may read it whoever wrote it. The expressions themselves are
never stored: Polars' own format for them holds pickles, and differs between versions.
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl

from trimtab.models.steps.allowed import (
    FRAME,
    FUNCTIONS,
    METHODS,
    METHODS_OF_FRAME,
    PLAIN,
    TYPES,
    WITHIN,
    Built,
    NotExpressionsError,
    bare,
    check_replaces_once,
    check_sum,
    constant,
    extent,
    listed,
    made_of,
    operated,
    short,
    sums_of,
)
from trimtab.models.steps.document import CODE_FOLDER, PackedStep
from trimtab.models.steps.literals import value_of

_LONGEST = 2**20
_STEPS = 100_000
_DEEPEST = 30


class Done(NamedTuple):
    """A method of a frame with its arguments, and the sums among them."""

    method: str
    args: tuple[Any, ...]
    named: Mapping[str, Any]
    sums: tuple[Any, ...]


class Program(NamedTuple):
    """What is done to a frame, one after the other."""

    done: tuple[Done, ...] = ()

    def check(self, frame: pl.DataFrame) -> None:
        """Raise NotExpressionsError if it puts texts of such a frame together, and what Polars raises. Looks
        at types only."""
        for method, args, named, sums in self.done:
            types = frame.clear().lazy()
            for expr in sums:
                check_sum(expr, types)
            frame = pl.DataFrame(schema=getattr(types, method)(*args, **named).collect_schema())

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame that comes of this one. Raises what Polars raises."""
        for method, args, named, _ in self.done:
            frame = getattr(frame, method)(*args, **named)
        return frame


def program_of(files: Mapping[str, bytes], step: PackedStep) -> Program:
    """What a packed step does, if it is expressions alone; raises NotExpressionsError. Runs none of it."""
    try:
        reader = _Reader(files)
        arguments = {name: constant(value_of(text)) for name, text in step.arguments.items()}
        made = reader.call(reader.named(step.module, step.name), [Program()], arguments)
    except (pl.exceptions.PolarsError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise NotExpressionsError(f"is not understood: {type(error).__name__}: {error}") from error
    except RecursionError:
        raise NotExpressionsError("is nested too deeply") from None
    except pl.exceptions.PanicException as error:
        raise NotExpressionsError(f"makes Polars panic: {error}") from error
    if not isinstance(made, Program):
        raise NotExpressionsError("does not answer with the frame that it selected")
    return made


class _Within(NamedTuple):
    """The methods of an expression under a name: `.dt`, `.str`."""

    built: Built
    name: str


class _Module(NamedTuple):
    """A module by its name: Polars, math, or one of the packed code."""

    name: str


class _Defined(NamedTuple):
    """A function of the packed code."""

    module: str
    node: ast.FunctionDef


class _Reader:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._trees: dict[str, dict[str, list[ast.stmt]]] = {}
        self._left = _STEPS
        self._depth = 0
        written = 0
        for path, content in files.items():
            if path.startswith(f"{CODE_FOLDER}/") and path.endswith(".py"):
                parts = path.removeprefix(f"{CODE_FOLDER}/").removesuffix(".py").split("/")
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                written += len(content)
                if written > _LONGEST:
                    raise NotExpressionsError("is too long")
                self._trees[name] = _definitions(_parsed(content))

    def named(self, module: str, name: str) -> Any:
        """What a name at the top of a packed module stands for."""
        found = self._trees.get(module, {}).get(name, [])
        if len(found) != 1:
            raise NotExpressionsError(f"uses '{name}', which {module} does not define once")
        statement = found[0]
        if isinstance(statement, ast.FunctionDef):
            for decorator in statement.decorator_list:
                self._check_step(module, decorator)
            return _Defined(module, statement)
        if isinstance(statement, ast.Import):
            return self._imported(statement, name)
        if isinstance(statement, ast.ImportFrom):
            return self._imported_from(module, statement, name)
        assert isinstance(statement, ast.Assign)
        return self._value(statement.value, module, {})

    def call(self, function: Any, args: list[Any], named: Mapping[str, Any]) -> Any:
        """What a function of the packed code answers."""
        if not isinstance(function, _Defined):
            raise NotExpressionsError("is no function")
        if self._depth > _DEEPEST:
            raise NotExpressionsError("calls itself")
        module, node = function
        names: dict[str, Any] = self._bound(module, node, args, named)
        self._depth += 1
        try:
            for statement in node.body:
                if isinstance(statement, ast.Return) and statement.value is not None:
                    return self._value(statement.value, module, names)
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    continue
                target, value = _assigned(statement)
                names[target] = self._value(value, module, names)
        finally:
            self._depth -= 1
        raise NotExpressionsError(f"has the function '{node.name}', which answers nothing")

    def _bound(
        self, module: str, node: ast.FunctionDef, args: list[Any], named: Mapping[str, Any]
    ) -> dict[str, Any]:
        asked = node.args
        if asked.vararg or asked.kwarg:
            raise NotExpressionsError(f"has the function '{node.name}' with * or ** parameters")
        places = [argument.arg for argument in (*asked.posonlyargs, *asked.args)]
        every = [*places, *(argument.arg for argument in asked.kwonlyargs)]
        defaults = dict(zip(reversed(places), reversed(asked.defaults), strict=False))
        defaults.update(
            (argument.arg, value)
            for argument, value in zip(asked.kwonlyargs, asked.kw_defaults, strict=True)
            if value is not None
        )
        names = dict(zip(places, args, strict=False)) | dict(named)
        if len(args) > len(places) or not set(named) <= set(every):
            raise NotExpressionsError(f"calls '{node.name}' with other arguments than it has")
        for name in every:
            if name not in names:
                if name not in defaults:
                    raise NotExpressionsError(f"calls '{node.name}' without '{name}'")
                names[name] = self._value(defaults[name], module, {})
        return names

    def _check_step(self, module: str, decorator: ast.expr) -> None:
        part = decorator.func if isinstance(decorator, ast.Call) else decorator
        names = [part.attr] if isinstance(part, ast.Attribute) else []
        root = part.value if isinstance(part, ast.Attribute) else part
        if isinstance(root, ast.Name) and len(found := self._trees[module].get(root.id, [])) == 1:
            names = [*_origin(found[0], root.id), *names]
        if ".".join(names) != "trimtab.step":
            raise NotExpressionsError(f"has the decorator {_shown(decorator)}")

    def _imported(self, statement: ast.Import, name: str) -> _Module:
        for alias in statement.names:
            if alias.asname == name or (alias.asname is None and alias.name == name):
                return self._module(alias.name)
        raise NotExpressionsError(f"imports '{name}' as a part of a package")

    def _imported_from(self, module: str, statement: ast.ImportFrom, name: str) -> Any:
        if statement.level:
            raise NotExpressionsError("uses relative imports")
        original = next(each.name for each in statement.names if (each.asname or each.name) == name)
        source = statement.module or ""
        if source in self._trees:
            return self.named(source, original)
        if source == "math":
            return _constant(original)
        if f"{source}.{original}" in self._trees:
            return _Module(f"{source}.{original}")
        raise NotExpressionsError(f"uses {source}.{original}")

    def _module(self, name: str) -> _Module:
        if name not in ("polars", "math") and name not in self._trees:
            raise NotExpressionsError(f"uses the package {name}")
        return _Module(name)

    def _value(self, node: ast.expr, module: str, names: Mapping[str, Any]) -> Any:
        self._left -= 1
        if self._left < 0:
            raise NotExpressionsError("is too long")
        read = functools.partial(self._value, module=module, names=names)
        match node:
            case ast.Constant(value=value) if isinstance(value, PLAIN):
                return constant(value)
            case ast.Name(id=name):
                return names[name] if name in names else self.named(module, name)
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                made = list(self._items(items, read))
                return self._spent(short(made if isinstance(node, ast.List) else tuple(made)))
            case ast.Dict(keys=keys, values=values) if None not in keys:
                pairs = zip(keys, values, strict=True)
                return self._spent(short({read(k): read(v) for k, v in pairs if k is not None}))
            case ast.ListComp() | ast.GeneratorExp():
                return self._comprehended(node, module, names)
            case ast.JoinedStr(values=parts):
                return self._spent(short("".join(self._texts(parts, read))))
            case ast.Attribute(value=base, attr=name):
                return self._attribute(read(base), name)
            case ast.Call():
                return self._called(node, read)
        return self._spent(_computed(node, read))

    def _spent(self, value: Any) -> Any:
        """The value, for which as much is taken off what may be read as going through it costs."""
        if type(value) in (str, list, tuple, dict):
            self._left -= extent(value)[0] // (1 if type(value) is str else 10)
        return value

    def _items(self, nodes: list[ast.expr], read: Callable[[ast.expr], Any]) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self._spent(listed(read(node.value)))
            else:
                yield read(node)

    def _comprehended(
        self, node: ast.ListComp | ast.GeneratorExp, module: str, names: Mapping[str, Any]
    ) -> list[Any]:
        (first, *others) = node.generators
        if others or first.ifs or not isinstance(first.target, ast.Name):
            raise NotExpressionsError(f"has `{_shown(node)}`")
        over = listed(self._value(first.iter, module, names))
        name = first.target.id
        made = [self._value(node.elt, module, {**names, name: item}) for item in over]
        short(made)
        self._spent(made)
        return made

    def _texts(self, parts: list[ast.expr], read: Callable[[ast.expr], Any]) -> Iterator[str]:
        for part in parts:
            value = read(part.value) if isinstance(part, ast.FormattedValue) else read(part)
            if isinstance(part, ast.FormattedValue) and (part.conversion != -1 or part.format_spec):
                raise NotExpressionsError("formats a text")
            if type(value) not in (str, int):
                raise NotExpressionsError("formats what is no text")
            yield self._spent(str(value))

    def _attribute(self, base: Any, name: str) -> Any:
        if isinstance(base, _Module):
            if base.name == "polars":
                if name not in TYPES:
                    raise NotExpressionsError(f"uses polars.{name}")
                return getattr(pl, name)
            return _constant(name) if base.name == "math" else self.named(base.name, name)
        if isinstance(base, Built) and name in WITHIN:
            return _Within(base, name)
        raise NotExpressionsError(f"uses .{name}")

    def _arguments(self, node: ast.Call, read: Callable[[ast.expr], Any]) -> tuple[list[Any], dict[str, Any]]:
        args = list(self._items(node.args, read))
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise NotExpressionsError("calls with ** arguments")
            named[keyword.arg] = read(keyword.value)
        for value in (*args, *named.values()):
            self._spent(value)
        return args, named

    def _called(self, node: ast.Call, read: Callable[[ast.expr], Any]) -> Any:
        args, named = self._arguments(node, read)
        if not isinstance(node.func, ast.Attribute):
            return self.call(read(node.func), args, named)
        base, name = read(node.func.value), node.func.attr
        if isinstance(base, Program) and name in FRAME:
            extent((*args, *named.values()))
            if len(base.done) == METHODS_OF_FRAME:
                raise NotExpressionsError(f"makes more than {METHODS_OF_FRAME} frames, one of the other")
            sums = sums_of(args, named)
            self._left -= sum(each.size for each in sums) // 10
            plain = {key: bare(value) for key, value in named.items()}
            done = Done(name, tuple(map(bare, args)), plain, tuple(each.expr for each in sums))
            return Program((*base.done, done))
        if isinstance(base, Built) and name in METHODS:
            return made_of(getattr(base.expr, name), args, named, base)
        if isinstance(base, _Within) and name in WITHIN[base.name]:
            if (base.name, name) == ("str", "replace"):
                check_replaces_once(args, named)
            return made_of(getattr(getattr(base.built.expr, base.name), name), args, named, base.built)
        if isinstance(base, _Module) and base.name == "polars":
            if name in FUNCTIONS:
                return made_of(getattr(pl, name), args, named)._replace(adds=name == "sum_horizontal")
            if name in TYPES:
                return getattr(pl, name)(
                    *map(bare, args), **{key: bare(value) for key, value in named.items()}
                )
        if isinstance(base, _Module) and base.name in self._trees:
            return self.call(self.named(base.name, name), args, named)
        raise NotExpressionsError(f"calls {_shown(node.func)}")


def _computed(node: ast.expr, read: Callable[[ast.expr], Any]) -> Any:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return operated(op, read(left), read(right))
        case ast.UnaryOp(op=op, operand=operand):
            return operated(op, read(operand))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return operated(op, read(left), read(right))
    raise NotExpressionsError(f"has `{_shown(node)}`")


def _parsed(content: bytes) -> ast.Module:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise NotExpressionsError(f"is no Python: {error}") from error


def _definitions(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """What binds each name of a module; raises NotExpressionsError if a statement does anything else."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            found.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                found.setdefault(alias.asname or alias.name.split(".")[0], []).append(statement)
        else:
            name, value = _assigned(statement)
            found.setdefault(name, []).append(ast.Assign([ast.Name(name)], value))
    return found


def _assigned(statement: ast.stmt) -> tuple[str, ast.expr]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return name, value
    raise NotExpressionsError(f"has the statement `{_shown(statement)}`")


def _origin(statement: ast.stmt, name: str) -> list[str]:
    """The full name of what an import binds to a name."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            if name == (alias.asname or alias.name):
                start = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
                return [*start, alias.name]
    return []


def _shown(node: ast.AST) -> str:
    return f"{' '.join(ast.unparse(node).split()):.60}"


def _constant(name: str) -> float:
    if name not in ("pi", "e", "tau"):
        raise NotExpressionsError(f"uses math.{name}")
    return float(getattr(math, name))
