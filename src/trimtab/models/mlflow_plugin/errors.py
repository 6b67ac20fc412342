"""What goes wrong, as MLflow's client expects to see it, and what Trimtab does not do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, NoReturn, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    NOT_IMPLEMENTED,
    PERMISSION_DENIED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)

from trimtab.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    TrimtabError,
    UnavailableError,
)

_CODES: tuple[tuple[type[TrimtabError], int], ...] = (
    (NotFoundError, RESOURCE_DOES_NOT_EXIST),
    (AlreadyExistsError, RESOURCE_ALREADY_EXISTS),
    (ConflictError, INVALID_PARAMETER_VALUE),
    (InvalidInputError, INVALID_PARAMETER_VALUE),
    (RefusedError, PERMISSION_DENIED),
    (UnavailableError, TEMPORARILY_UNAVAILABLE),
)

_NOT_DONE = frozenset({"NotImplementedError", "MlflowNotImplementedException"})

Store = TypeVar("Store", bound=type)


@contextlib.contextmanager
def as_mlflow() -> Iterator[None]:
    """Let errors of Trimtab leave as MlflowException with MLflow's code and the same message."""
    try:
        yield
    except TrimtabError as error:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL_ERROR)
        raise MlflowException(str(error), code) from error


def refusing_the_rest(store: Store) -> Store:
    """A class decorator: what MLflow's abstract store leaves open and `store` does not define raises
    MlflowException(NOT_IMPLEMENTED), whatever else the installed MLflow has."""
    for name in dir(store):
        method = getattr(store, name)
        if isinstance(method, FunctionType) and not method.__module__.startswith("trimtab."):
            open_here = getattr(method, "__isabstractmethod__", False)
            if open_here or _NOT_DONE & set(method.__code__.co_names):
                setattr(store, name, refusing(name))
    return store


def refusing(name: str) -> Callable[..., NoReturn]:
    """A method that Trimtab does not have."""

    def refuse(self: object, *arguments: Any, **keywords: Any) -> NoReturn:
        raise MlflowException(
            f"Trimtab does not have '{name}' of MLflow. It keeps experiments, runs, logged models, artifacts "
            "and registered models.",
            NOT_IMPLEMENTED,
        )

    refuse.__name__ = name
    return refuse
