"""A model in a process of its own, in the place of one that is loaded here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, TrimtabError
from trimtab.models.confined.confinement import NOTHING, Confinement
from trimtab.models.confined.messages import Ask, Hello, Texts
from trimtab.models.confined.process import ConfinedProcess
from trimtab.models.encoding import Columns, Encoder
from trimtab.models.runtimes.predictor import Predictor, load_predictor
from trimtab.models.runtimes.runtime import check_runs_no_code, may_run_code
from trimtab.models.signature import Column, Output, Signature
from trimtab.models.specification import (
    EXPRESSIONS_RUNTIME,
    MLMODEL_FILE,
    SPECIFICATION_FILE,
    STEPS_RUNTIME,
    Specification,
    read_example,
    read_specification,
)

CONFINED = "confined"
"""The runtime that the specification of such a model names."""

_TOLERANCE = 1e-6


class Asked(Protocol):
    """What rows are sent to: a process, or what stands in its place."""

    hello: Hello

    @property
    def pid(self) -> int | None:
        """The id of its process; None while there is none."""
        ...

    def ask(self, asked: Ask) -> NDArray[np.float64]:
        """One answer for each row, or the matrix that is wanted."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class ConfinedPredictor(Predictor):
    """Checks rows here, so that a request which the model cannot take costs its process nothing."""

    blocking = True

    def __init__(self, process: Asked, specification: Specification | None = None) -> None:
        """A predictor for a process that has loaded its model; `specification` is the package's, if it has
        one."""
        hello = process.hello
        self._process = process
        self.specification = specification or Specification(
            runtime=CONFINED,
            file=MLMODEL_FILE,
            file_digest="",
            signature=Signature(hello.columns),
            output=Output(),
            target=hello.target or "prediction",
            expected=hello.answers,
            tolerance=_TOLERANCE,
        )
        self.example: Columns = dict(hello.example)
        self._whole = frozenset(hello.whole)
        self._columns = Encoder(Signature(hello.columns))
        self._numbers = [column for column in hello.columns if column.kind != "text"]
        self._texts = [column for column in hello.columns if column.kind == "text"]
        self._matrix = Encoder(Signature(tuple(self._numbers))) if self._numbers else None

    @property
    def pid(self) -> int | None:
        """The id of its process; None while there is none."""
        return self._process.pid

    def predict(self, columns: Columns, *, ignore_unknown: bool = False) -> NDArray[np.float64]:
        """One answer for each row, as `Predictor.predict`; waits for the model's process.

        Raises UnavailableError, too, if that died or hangs.
        """
        rows = self._columns.rows(columns, ignore_unknown=ignore_unknown)
        if not rows:
            return np.empty(0, dtype=np.float64)
        return self._process.ask(
            Ask(rows, self._given_numbers(columns, rows), self._given_texts(columns, rows))
        )

    def prepared(self, columns: Columns, width: int) -> NDArray[np.float64]:
        """The matrix, `width` columns wide, that the steps of the model make for its inner model. Raises what
        `predict` does."""
        rows = self._columns.rows(columns)
        asked = Ask(rows, self._given_numbers(columns, rows), self._given_texts(columns, rows), width)
        return self._process.ask(asked).reshape(rows, width)

    def encoded_row(self, row: Mapping[str, Any], *, ignore_unknown: bool = False) -> Sequence[float]:
        """Not for such a model: its rows are no numbers alone. Ask `predict`."""
        raise InvalidInputError("A model in a process of its own takes no encoded rows.")

    def score(self, values: Sequence[float]) -> float:
        """Not for such a model: see `encoded_row`."""
        raise InvalidInputError("A model in a process of its own takes no encoded rows.")

    def scores(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Not for such a model: see `encoded_row`."""
        raise InvalidInputError("A model in a process of its own takes no encoded rows.")

    def close(self) -> None:
        """End the process. Whatever is asked afterwards raises UnavailableError."""
        self._process.close()

    def _given_numbers(self, columns: Columns, rows: int) -> bytes:
        if self._matrix is None:
            return b""
        matrix = self._matrix.matrix(columns, rows)
        for place, column in enumerate(self._numbers):
            if column.name in self._whole:
                values = matrix[:, place]
                odd = np.flatnonzero(~np.isnan(values) & (np.floor(values) != values))
                if odd.size:
                    raise InvalidInputError(
                        f"The column '{column.name}' has {float(values[odd[0]])} in row {int(odd[0])}, which "
                        "is not a whole number."
                    )
        return matrix.tobytes()

    def _given_texts(self, columns: Columns, rows: int) -> Texts:
        return [_texts(column, columns.get(column.name), rows) for column in self._texts]


class ConfinedRuntime:
    """A runtime that is a process: it is sent encoded rows."""

    def __init__(self, process: ConfinedProcess) -> None:
        self._process = process

    def row(self, values: Sequence[float]) -> float:
        """The raw answer to one row of numbers."""
        return float(self.matrix(np.array([values], dtype=np.float64))[0])

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The raw answers, one for each row."""
        if not rows.shape[0]:
            return np.empty(0, dtype=np.float64)
        return self._process.ask(Ask(rows.shape[0], rows.tobytes(), []))


class ConfinedProgram(Predictor):
    """A model that Trimtab packaged, whose file may run code: rows are checked and encoded here, and what the
    process says is transformed here."""

    blocking = True

    def __init__(self, specification: Specification, process: ConfinedProcess) -> None:
        """A predictor for a process that has loaded its model."""
        super().__init__(specification, ConfinedRuntime(process))
        self._process = process

    @property
    def pid(self) -> int | None:
        """The id of its process; None while there is none."""
        return self._process.pid

    def close(self) -> None:
        """End the process. Whatever is asked afterwards raises UnavailableError."""
        super().close()
        self._process.close()


def load_servable(
    folder: str | os.PathLike[str], *, model: str, confinement: Confinement = NOTHING, threads: int = 1
) -> Predictor:
    """Load a model for serving: here if its file runs no code, and else in a process of its own.

    `model` is its name, by which `confinement` allows that. Raises what `load_predictor` raises, RefusedError
    for a model that is not allowed, and UnavailableError if its process does not start.
    """
    path = Path(folder)
    if not needs_process(path) or not confinement.permits(model):
        if _has_expressions(path):
            return _expressions(path, threads)
        return load_predictor(path, threads=threads)
    process = ConfinedProcess(path, confinement, threads=threads)
    predictor = _predictor(path, process)
    try:
        if predictor.example:
            predictor.check(predictor.example)
    except BaseException:
        predictor.close()
        raise
    return predictor


def _predictor(folder: Path, process: ConfinedProcess) -> Predictor:
    if not (folder / SPECIFICATION_FILE).exists():
        return ConfinedPredictor(process)
    try:
        specification = read_specification(folder)
        predictor: Predictor = (
            ConfinedPredictor(process, specification)
            if specification.runtime == STEPS_RUNTIME
            else ConfinedProgram(specification, process)
        )
        predictor.example = read_example(folder)
    except BaseException:
        process.close()
        raise
    return predictor


def _has_expressions(folder: Path) -> bool:
    return (folder / SPECIFICATION_FILE).exists() and read_specification(
        folder
    ).runtime == EXPRESSIONS_RUNTIME


def _expressions(folder: Path, threads: int) -> Predictor:
    os.environ.setdefault("POLARS_MAX_THREADS", str(threads))  # it looks there as it is imported
    # Polars: 30 MB and 0.1 s, for gateways that serve such a model only.
    from trimtab.models.confined.expressions import Expressions  # noqa: PLC0415  (see above)
    from trimtab.models.confined.step_package import opening  # noqa: PLC0415  (see above)

    with opening(folder):
        predictor = ConfinedPredictor(Expressions(folder, threads=threads), read_specification(folder))
        predictor.example = read_example(folder)
        predictor.check(predictor.example)
    return predictor


def needs_process(folder: Path) -> bool:
    """Whether the model in a folder is served in a process of its own, or not at all."""
    if not (folder / MLMODEL_FILE).is_file():
        return False
    if not (folder / SPECIFICATION_FILE).exists():
        return True
    try:
        return may_run_code(read_specification(folder).runtime)
    except TrimtabError:  # it is not served at all, and who loads it says why
        return False


def check_servable(folder: Path, *, model: str, confinement: Confinement = NOTHING) -> None:
    """Raise the reason if a folder holds no model that is served: RefusedError, ModelCorruptError. Loads
    nothing."""
    if not needs_process(folder) or not confinement.permits(model):
        check_runs_no_code(read_specification(folder).runtime)


def _texts(column: Column, values: Any, rows: int) -> list[str | None]:
    if values is None:
        return [None] * rows
    given = values.tolist() if isinstance(values, np.ndarray) else list(values)
    for row, value in enumerate(given):
        if type(value) is str or (value is None and column.nullable):
            continue
        if value is None:
            raise InvalidInputError(
                f"The column '{column.name}' is missing in row {row}, and the model does not allow that.",
                hint="Give a text.",
            )
        raise InvalidInputError(
            f"The column '{column.name}' has {value!r:.60} in row {row}, which is not a text."
        )
    return given
