"""The port of a runtime: what knows how to run one kind of model file.

A plug-in registers a `Load` function under its name in the entry-point group "trimtab.runtimes". One whose
files may run code when they are read, as those that hold pickles, registers it in the group
"trimtab.confined_runtimes" instead: it is loaded where users' code runs (`trimtab.models.runtimes.trusted`),
and for a gateway in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import ModelCorruptError, RefusedError, unknown
from trimtab.models.specification import STEPS_RUNTIME

GROUP = "trimtab.runtimes"
CONFINED_GROUP = "trimtab.confined_runtimes"


class Runtime(Protocol):
    """A loaded model file. Its methods may be called from several threads at once.

    Its memory is freed with the last reference to it, so never under a call that is still going on.
    """

    def row(self, values: Sequence[float]) -> float:
        """The raw answer to one row of numbers."""
        ...

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The raw answers to a C-ordered matrix of shape (rows, width): one for each row."""
        ...


class Load(Protocol):
    """What a plug-in registers: makes a runtime from a model file's bytes.

    `width` is the number of input columns, `threads` how many threads one call may use; `options` are those
    that were recorded at packaging. Raises ModelCorruptError if the bytes are not such a model.
    """

    def __call__(self, content: bytes, *, width: int, threads: int, options: Mapping[str, str]) -> Runtime:
        """Load a model file's bytes."""
        ...


def load_runtime(
    name: str, content: bytes, *, width: int, threads: int, options: Mapping[str, str]
) -> Runtime:
    """Load a model file with the runtime registered under `name`.

    Raises RefusedError for a runtime whose files may run code.
    """
    check_runs_no_code(name)
    return registered_load(name, (GROUP,))(content, width=width, threads=threads, options=options)


def registered_load(name: str, groups: Sequence[str]) -> Load:
    """What is registered under `name` in one of these groups."""
    registered = {entry.name: entry for group in groups for entry in entry_points(group=group)}
    if name not in registered:
        raise ModelCorruptError(
            f"No runtime '{name}' is installed.",
            hint=unknown("runtime", name, registered).hint,
        )
    load: Load = registered[name].load()
    return load


def may_run_code(name: str) -> bool:
    """Whether files of this runtime may run code when they are read."""
    return name == STEPS_RUNTIME or any(entry.name == name for entry in entry_points(group=CONFINED_GROUP))


def check_runs_no_code(name: str) -> None:
    """Raise RefusedError for a runtime whose files may run code when they are read."""
    if may_run_code(name):
        raise RefusedError(
            "The model is refused: it has steps of its maker's, which are code."
            if name == STEPS_RUNTIME
            else f"The model is refused: it is a file for the runtime '{name}', which may run code in it.",
            hint="Allow it a process of its own by the setting confined_models.",
        )
