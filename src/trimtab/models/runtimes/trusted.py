"""Loading models whose files may run code: for processes that run their makers' code anyway.

That is who trains, packages or judges a model, and the process of its own that a gateway starts for one. A
gateway itself has `load_predictor`, which refuses such files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.models.runtimes.predictor import Predictor, load_predictor, runtime_of
from trimtab.models.runtimes.runtime import CONFINED_GROUP, GROUP, Runtime, may_run_code, registered_load
from trimtab.models.specification import Specification, read_example, read_model_file, read_specification


class Deferred:
    """A runtime that reads its file when it is first asked, so that no code runs before somebody asks it."""

    def __init__(self, specification: Specification, content: bytes) -> None:
        self._specification = specification
        self._content = content
        self._loaded: Runtime | None = None

    def row(self, values: Sequence[float]) -> float:
        """The raw answer to one row of numbers."""
        return self._runtime().row(values)

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The raw answers, one for each row."""
        return self._runtime().matrix(rows)

    def _runtime(self) -> Runtime:
        if self._loaded is None:  # two threads may both load it, which costs time only
            self._loaded = trusted_runtime_of(self._specification, self._content)
        return self._loaded


def trusted_runtime_of(specification: Specification, content: bytes, *, threads: int = 1) -> Runtime:
    """The runtime for a model file's bytes, whichever it is. May run code in them."""
    load = registered_load(specification.runtime, (GROUP, CONFINED_GROUP))
    width = len(specification.signature.columns)
    return load(content, width=width, threads=threads, options=specification.options)


def deferred_runtime_of(specification: Specification, content: bytes) -> Runtime:
    """The same, but if the file may run code, then when the runtime is first asked."""
    if may_run_code(specification.runtime):
        return Deferred(specification, content)
    return runtime_of(specification, content)


def load_trusted(folder: Path, *, defer: bool = False) -> Predictor:
    """Load a packaged model as `load_predictor` does. May run code in its file: with `defer` not before it is
    asked, so its input example goes unchecked."""
    specification = read_specification(folder)
    if not may_run_code(specification.runtime):
        return load_predictor(folder)
    content = read_model_file(folder, specification)
    predictor = Predictor(specification, deferred_runtime_of(specification, content))
    predictor.example = read_example(folder)
    if not defer:
        predictor.check(predictor.example)
    return predictor
