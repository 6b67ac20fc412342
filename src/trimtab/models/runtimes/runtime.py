"""The port of a runtime: what knows how to run one kind of model file.

A plug-in registers a `Load` function under its name in the entry-point group "trimtab.runtimes".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import ModelCorruptError, unknown

GROUP = "trimtab.runtimes"


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
    """Load a model file with the runtime registered under `name`."""
    registered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in registered:
        raise ModelCorruptError(
            f"No runtime '{name}' is installed.",
            hint=unknown("runtime", name, registered).hint,
        )
    load: Load = registered[name].load()
    return load(content, width=width, threads=threads, options=options)
