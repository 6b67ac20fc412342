"""Pipelines, and the graph that a pipeline's body describes when it runs once."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Generic, Literal, NoReturn, ParamSpec, TypeVar, cast

import msgspec

from trimtab.clock import as_utc
from trimtab.errors import InvalidInputError
from trimtab.pipelines.source import DatasetRef
from trimtab.pipelines.step import Step, active_trace, plain_data

P = ParamSpec("P")
R = TypeVar("R")

Key = str | int
GroupKind = Literal["list", "tuple", "dict"]


@dataclasses.dataclass(frozen=True)
class Literally:
    """An argument whose value is known when the graph is built."""

    value: object


@dataclasses.dataclass(frozen=True)
class FromNode:
    """What another node returns, or the part of it that `path` leads to (keys and indices)."""

    node: str
    path: tuple[Key, ...] = ()


@dataclasses.dataclass(frozen=True)
class FromDataset:
    """Rows of a dataset."""

    ref: DatasetRef


@dataclasses.dataclass(frozen=True)
class Group:
    """A list, tuple or dict with handles somewhere inside; `keys` only for a dict."""

    kind: GroupKind
    items: tuple[Argument, ...]
    keys: tuple[str, ...] = ()


Argument = Literally | FromNode | FromDataset | Group


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of a step. `id` is the step's name, with "#2" and so on for further calls."""

    id: str
    step: Step[Any, Any]
    positional: tuple[tuple[str, Argument], ...]
    keyword: tuple[tuple[str, Argument], ...]

    @property
    def inputs(self) -> dict[str, Argument]:
        """All arguments by the names of their parameters."""
        return dict((*self.positional, *self.keyword))

    @property
    def upstream(self) -> frozenset[str]:
        """The nodes whose results this one needs."""
        return frozenset(
            part.node for value in self.inputs.values() for part in parts(value) if isinstance(part, FromNode)
        )


@dataclasses.dataclass(frozen=True)
class Graph:
    """What a pipeline does in one run: nodes in an order that respects their inputs, and its outputs.

    A pipeline that returns one value has one output, named "output"; a tuple's are named "0", "1", and so
    on, a dict's by its keys.
    """

    pipeline: str
    params: Mapping[str, object]
    as_of: datetime
    nodes: Mapping[str, Node]
    outputs: Mapping[str, Argument]

    @property
    def datasets(self) -> tuple[DatasetRef, ...]:
        """The datasets that the nodes read, each as often as it is named."""
        found = [
            part.ref
            for node in self.nodes.values()
            for value in node.inputs.values()
            for part in parts(value)
            if isinstance(part, FromDataset)
        ]
        return tuple({id(ref): ref for ref in found}.values())


def parts(argument: Argument) -> Iterator[Argument]:
    """The argument itself, or what a group is made of, through all levels."""
    if isinstance(argument, Group):
        for item in argument.items:
            yield from parts(item)
    else:
        yield argument


class Handle:
    """What a step call answers inside a pipeline: a name for a value that is not there yet.

    It can be given to other steps, indexed (`split["train"]`), and unpacked if the step is annotated to
    return a tuple of fixed length. Anything else needs the value, and belongs into a step.
    """

    __slots__ = ("_length", "_node", "_path")

    def __init__(self, node: str, path: tuple[Key, ...], length: int | None) -> None:
        self._node = node
        self._path = path
        self._length = length

    @property
    def _argument(self) -> FromNode:
        return FromNode(self._node, self._path)

    def __getitem__(self, key: object) -> Handle:
        if isinstance(key, bool) or not isinstance(key, str | int):
            self._refuse("be sliced")
        return Handle(self._node, (*self._path, key), None)

    def __iter__(self) -> Iterator[Handle]:
        if self._length is None:
            raise InvalidInputError(
                f"What '{self._node}' returns cannot be unpacked while the pipeline is being described.",
                hint="Annotate the step as returning a tuple of fixed length, or use an index: result[0].",
            )
        return iter([self[position] for position in range(self._length)])

    def _refuse(self, verb: str) -> NoReturn:
        raise InvalidInputError(
            f"What '{self._node}' returns is not there yet while the pipeline is being described, "
            f"so it cannot {verb}.",
            hint="Do that inside a step.",
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse(f"be asked for '.{name}'")

    def __bool__(self) -> bool:  # noqa: PLE0304  (it raises)
        self._refuse("decide an `if`")

    def __len__(self) -> int:  # noqa: PLE0303  (it raises)
        self._refuse("be counted")

    def _compare(self, _other: object) -> bool:
        self._refuse("be compared")

    def _compute(self, _other: object) -> NoReturn:
        self._refuse("be computed with")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _compare
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _compute
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<result of {self._node}{''.join(f'[{key!r}]' for key in self._path)}>"


class Pipeline(Generic[P, R]):
    """A function whose body describes a graph of steps.

    Called outside a trace it is a plain function whose steps run at once, one after the other, in this
    process, uncached and unrecorded; where it reads datasets, `on` says which rows stand for them. Called
    inside another pipeline, its steps become nodes of that one.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.signature = inspect.signature(function)
        for parameter in self.signature.parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise InvalidInputError(
                    f"The parameter '{parameter}' of the pipeline '{self.name}' cannot be set by name.",
                    hint="Give a pipeline plain named parameters.",
                )
        functools.update_wrapper(cast("Callable[P, R]", self), function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body; see the class."""
        return self.function(*args, **kwargs)

    def on(self, data: Mapping[str, object], /, **params: Any) -> R:
        """Run plainly with `data[name]` as the rows of each dataset, whatever window is asked for."""
        with plain_data(data):
            return self.function(**params)  # type: ignore[call-arg]  # given by name

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"


def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]:
    """Make a pipeline of a function that calls steps."""
    return Pipeline(function)


def trace(
    pipeline: Pipeline[Any, Any], params: Mapping[str, object] | None = None, *, as_of: datetime
) -> Graph:
    """The graph of a pipeline for these parameters.

    `params` may hold builtins (as JSON has them) where a parameter's annotation is a richer type. A
    parameter named `as_of` that is not given gets the run's time. Raises InvalidInputError for unknown or
    missing parameters and for a body that needs a value before it is there.
    """
    as_of = as_utc(as_of)
    bound = _bind(pipeline, dict(params or {}), as_of)
    tracer = _Tracer()
    token = active_trace.set(tracer)
    try:
        result = pipeline.function(**bound)
    finally:
        active_trace.reset(token)
    return Graph(
        pipeline=pipeline.name,
        params=bound,
        as_of=as_of,
        nodes=tracer.nodes,
        outputs=_outputs(result),
    )


class _Tracer:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._calls: dict[str, int] = {}

    def call(self, step: Step[Any, Any], args: tuple[object, ...], kwargs: dict[str, object]) -> Handle:
        signature = inspect.signature(step.function)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInputError(
                f"The step '{step.name}' cannot be called like this: {error}.",
                hint=f"It is declared as {step.function.__name__}{signature}.",
            ) from None
        count = self._calls[step.name] = self._calls.get(step.name, 0) + 1
        node = Node(
            id=step.name if count == 1 else f"{step.name}#{count}",
            step=step,
            positional=tuple(
                (name, argument(value)) for name, value in _positional_names(signature, bound.args)
            ),
            keyword=tuple((name, argument(value)) for name, value in bound.kwargs.items()),
        )
        self.nodes[node.id] = node
        return Handle(node.id, (), _tuple_length(step))


def argument(value: object) -> Argument:
    """What a value given to a step stands for."""
    if isinstance(value, Handle):
        return value._argument
    if isinstance(value, DatasetRef):
        return FromDataset(value)
    if type(value) in (list, tuple) and _holds_handle(value):
        items = cast("list[object]", value)
        return Group("list" if type(value) is list else "tuple", tuple(argument(item) for item in items))
    if type(value) is dict and _holds_handle(value):
        if not all(isinstance(key, str) for key in value):
            raise InvalidInputError("A dict of step results must have strings as keys.")
        return Group("dict", tuple(argument(item) for item in value.values()), tuple(value))
    return Literally(value)


def _holds_handle(value: object) -> bool:
    if isinstance(value, Handle | DatasetRef):
        return True
    if type(value) in (list, tuple):
        return any(_holds_handle(item) for item in cast("list[object]", value))
    return type(value) is dict and any(_holds_handle(item) for item in value.values())


def _outputs(result: object) -> dict[str, Argument]:
    if result is None:
        return {}
    if type(result) is dict:
        named = {str(key): value for key, value in result.items()}
    elif type(result) is tuple:
        named = {str(position): value for position, value in enumerate(result)}
    else:
        named = {"output": result}
    outputs = {name: argument(value) for name, value in named.items()}
    for name, value in outputs.items():
        if not isinstance(value, FromNode):
            raise InvalidInputError(
                f"The pipeline's output '{name}' is not what a step returned.",
                hint="Return results of steps: one, a tuple, or a dict of them.",
            )
    return outputs


def _bind(pipeline: Pipeline[Any, Any], params: dict[str, object], as_of: datetime) -> dict[str, object]:
    declared = pipeline.signature.parameters
    if "as_of" in declared:
        params.setdefault("as_of", as_of)
    for name in params:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            raise InvalidInputError(
                f"The pipeline '{pipeline.name}' has no parameter '{name}'.",
                hint=f"Did you mean '{near[0]}'?" if near else f"It is declared as {pipeline.signature}.",
            )
    hints = _type_hints(pipeline.function)
    bound: dict[str, object] = {}
    for name, parameter in declared.items():
        if name in params:
            what = f"'{name}' of the pipeline '{pipeline.name}'"
            bound[name] = _converted(params[name], hints.get(name), what)
        elif parameter.default is not parameter.empty:
            bound[name] = parameter.default
        else:
            raise InvalidInputError(f"The pipeline '{pipeline.name}' needs the parameter '{name}'.")
    return bound


def _converted(value: object, hint: object, what: str) -> object:
    """`value` as the annotated type, where msgspec knows that type and the value is not yet of it."""
    if hint is None or hint is Any or (isinstance(hint, type) and isinstance(value, hint)):
        return value
    try:
        return msgspec.convert(value, cast("Any", hint), strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"The parameter {what} cannot be {value!r:.100}: {error}.") from None
    except TypeError:  # a type that msgspec does not know
        return value


def _type_hints(function: Callable[..., object]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # names that exist for type checkers only
        return {}


def _positional_names(
    signature: inspect.Signature, values: tuple[object, ...]
) -> Iterator[tuple[str, object]]:
    declared = signature.parameters.values()
    positional = [parameter for parameter in declared if parameter.kind is not parameter.KEYWORD_ONLY]
    for place, value in enumerate(values):
        parameter = positional[min(place, len(positional) - 1)]
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield f"{parameter.name}[{place - positional.index(parameter)}]", value
        else:
            yield parameter.name, value


def _tuple_length(step: Step[Any, Any]) -> int | None:
    returns = _type_hints(step.function).get("return")
    if typing.get_origin(returns) is tuple:
        arguments = typing.get_args(returns)
        if Ellipsis not in arguments:
            return len(arguments)
    return None
