"""A package as files in memory, and loading one where its maker's code may run."""

from __future__ import annotations

import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.predictor import load_servable
from trimtab.models.encoding import Columns
from trimtab.models.packaging import example_bytes
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.runtimes.trusted import load_trusted
from trimtab.models.specification import (
    EXAMPLE_FILE,
    MLMODEL_FILE,
    SPECIFICATION_FILE,
    Specification,
    read_example,
    read_model_file,
    read_specification,
)
from trimtab.models.steps.document import STEPS_FILE, read_files, read_steps

ALLOWED = Confinement(("*",), timeout_ms=60_000)
"""For whoever may run a model's code."""


class Packed(NamedTuple):
    """The model with its steps: its file, and the files beside that by path."""

    specification: Specification
    content: bytes
    example: dict[str, list[Any]]
    files: dict[str, bytes]


class PackedPredictor(Predictor):
    """A model with its steps, in a process that starts when it is first asked."""

    def __init__(self, made: Packed) -> None:
        self.specification = made.specification
        self.example = made.example
        self._made = made
        self._apart: Predictor | None = None
        self._starting = threading.Lock()

    def predict(self, columns: Columns, *, ignore_unknown: bool = False) -> NDArray[np.float64]:
        """One answer for each row. Raises what a model in a process of its own does."""
        with self._starting:
            if self._apart is None:
                folder = tempfile.TemporaryDirectory(prefix="trimtab-steps-")
                weakref.finalize(self, folder.cleanup)
                write_files(self._made, Path(folder.name))
                self._apart = load_packaged(Path(folder.name))
        return self._apart.predict(columns, ignore_unknown=ignore_unknown)

    def close(self) -> None:
        """End the process."""
        if self._apart is not None:
            self._apart.close()


def write_files(made: Packed, folder: Path) -> None:
    """Write what the process of a model with its steps needs; `Model.save` writes a whole package."""
    files = {
        **made.files,
        SPECIFICATION_FILE: made.specification.to_json(),
        STEPS_FILE: made.content,
        MLMODEL_FILE: b"",  # only mlflow reads it, and making it takes seconds
        EXAMPLE_FILE: example_bytes(made.specification.signature.names, made.example),
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def load_packaged(folder: Path) -> Predictor:
    """Load a model that Trimtab packaged, for a process that may run its maker's code; that of steps runs in
    another one. Raises what `load_servable` does."""
    if read_specification(folder).has_steps:
        return load_servable(folder, model="", confinement=ALLOWED)
    return load_trusted(folder)


def read_packed(folder: Path) -> Packed:
    """A package with steps, its files checked against their digests. Runs none of them. Raises
    ModelCorruptError."""
    specification = read_specification(folder)
    content = read_model_file(folder, specification)
    files = read_files(folder, read_steps(content))
    return Packed(specification, content, read_example(folder), files)
