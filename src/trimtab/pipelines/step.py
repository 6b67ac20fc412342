"""Steps: typed functions that a pipeline is made of."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from trimtab.errors import InvalidInputError
from trimtab.pipelines.source import DatasetRef
from trimtab.tracking.plain_call import plain_call

P = ParamSpec("P")
R = TypeVar("R")

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a step needs of the machine: processor cores (fractions allowed) and memory.

    `memory` is written as in "512MB" or "4GB" (powers of 1024). Both decide how many steps run at the
    same time; neither is a limit that the system enforces.
    """

    cpu: float = 1.0
    memory: str | None = None

    def __post_init__(self) -> None:
        if not self.cpu > 0:
            raise InvalidInputError(f"A step cannot use {self.cpu} cores.", hint="Give a number above 0.")
        _ = self.memory_bytes

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes; 0 if none was stated."""
        if self.memory is None:
            return 0
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", self.memory, re.IGNORECASE)
        if found is None:
            raise InvalidInputError(
                f"'{self.memory}' is not an amount of memory.", hint="Write it as in '4GB'."
            )
        return int(float(found[1]) * _UNITS[found[2].upper()])


class Tracer(Protocol):
    """What takes down step calls while a pipeline's body runs."""

    def call(self, step: Step[Any, Any], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Note a call and answer the handle of its result."""
        ...


active_trace: ContextVar[Tracer | None] = ContextVar("trimtab_trace", default=None)
"""The trace that step calls go to; None where steps are plain functions."""

_frames: ContextVar[Mapping[str, object] | None] = ContextVar("trimtab_plain_data", default=None)


class Step(Generic[P, R]):
    """A step: called inside a pipeline it becomes a node, anywhere else it is the plain function.

    `name` is qualified by the module, so steps of the same name in two modules are two steps.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None,
        retries: int,
        timeout: float | None,
        cache: bool,
        resources: Resources,
    ) -> None:
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise InvalidInputError(
                f"The step '{function.__qualname__}' is a coroutine or a generator.",
                hint="A step is a plain function that returns its value.",
            )
        if retries < 0:
            raise InvalidInputError(f"The step '{function.__qualname__}' cannot have {retries} retries.")
        if timeout is not None and not timeout > 0:
            raise InvalidInputError(
                f"The step '{function.__qualname__}' cannot time out after {timeout} s.",
                hint="Give seconds above 0, or None.",
            )
        self.function = function
        self.name = f"{function.__module__}.{name or function.__qualname__}"
        self.retries = retries
        self.timeout = timeout
        self.cache = cache
        self.resources = resources
        functools.update_wrapper(cast("Callable[P, R]", self), function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function; inside a pipeline, answer a handle of what it will return."""
        trace = active_trace.get()
        if trace is not None:
            return cast("R", trace.call(self, args, kwargs))
        with plain_call():
            return self._called(args, kwargs)

    def _called(self, args: Any, kwargs: Any) -> R:
        if any(isinstance(value, DatasetRef) for value in (*args, *kwargs.values())):
            return self.function(
                *[self._plain(value) for value in args],
                **{name: self._plain(value) for name, value in kwargs.items()},
            )
        return self.function(*args, **kwargs)

    def _plain(self, value: object) -> Any:
        if not isinstance(value, DatasetRef):
            return value
        frames = _frames.get()
        if frames is None or value.name not in frames:
            raise InvalidInputError(
                f"The step '{self.name}' was called plainly on the dataset '{value.name}', whose rows are "
                "read only when a pipeline runs.",
                hint=f"Call the pipeline as pipeline.on({{'{value.name}': rows}}), or run it with "
                "`trimtab run`.",
            )
        return frames[value.name]

    def __repr__(self) -> str:
        return f"<step {self.name}>"


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: float | None = None,
    cache: bool = True,
    resources: Resources | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: float | None = None,
    cache: bool = True,
    resources: Resources | None = None,
) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
    """Make a step of a function: `@step` or `@step(retries=2, timeout=60)`.

    `retries` are the further attempts after a failure of any kind, `timeout` the seconds that one attempt
    may take before its process is killed, `cache=False` runs the step in every run.
    """

    def decorate(function: Callable[P, R]) -> Step[P, R]:
        return Step(
            function,
            name=name,
            retries=retries,
            timeout=timeout,
            cache=cache,
            resources=resources or Resources(),
        )

    return decorate if function is None else decorate(function)


@contextmanager
def plain_data(frames: Mapping[str, object]) -> Iterator[None]:
    """Within this, steps called plainly get `frames[name]` for the dataset `name`, whatever its window."""
    token = _frames.set(frames)
    try:
        yield
    finally:
        _frames.reset(token)
