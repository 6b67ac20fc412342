"""What answers requests: a runtime with a signature before it and a transformation behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, ModelCorruptError, TrimtabError, UnavailableError
from trimtab.models.answers import answers
from trimtab.models.encoding import Columns, Encoder
from trimtab.models.runtimes.runtime import Runtime, load_runtime
from trimtab.models.signature import Output, Signature
from trimtab.models.specification import Specification, read_example, read_model_file, read_specification


class _Closed:
    """Stands where a runtime was."""

    def row(self, values: Sequence[float]) -> float:
        raise UnavailableError("The model was closed.")

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        raise UnavailableError("The model was closed.")


class Predictor:
    """A loaded model. `predict` may be called from several threads at once. `example` are the rows of its
    input example by column, for those who describe it. One that is `blocking` waits for another process, so
    no event loop may ask it."""

    blocking = False

    def __init__(self, specification: Specification, runtime: Runtime) -> None:
        self.specification = specification
        self.example: Columns = {}
        self._runtime: Runtime = runtime
        self._output = specification.output
        self._plain = specification.output == Output()
        self._encoder = Encoder(specification.signature)

    @property
    def signature(self) -> Signature:
        """The input columns."""
        return self.specification.signature

    @property
    def target(self) -> str:
        """The name of what is predicted."""
        return self.specification.target

    def predict(self, columns: Columns, *, ignore_unknown: bool = False) -> NDArray[np.float64]:
        """One answer for each row of `columns` (a list or array of values for each column name).

        An answer may be NaN or infinite if the model makes it so. Raises InvalidInputError, naming column,
        row (counted from 0) and value, for a column that is missing, unknown (unless `ignore_unknown`), of
        another length than the others, of the wrong type, or missing a value where the signature forbids it.
        """
        encoder = self._encoder
        rows = encoder.rows(columns, ignore_unknown=ignore_unknown)
        if rows == 1:
            raw = np.array([self._runtime.row(encoder.row(columns))])
        else:
            raw = self._runtime.matrix(encoder.matrix(columns, rows))
        return answers(raw, self._output)

    def predict_matrix(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One answer for each row of a matrix of numbers in the signature's order, NaN where one is missing;
        only for a model whose columns are all numbers. Raises what `predict` does."""
        return self.scores(self._encoder.checked(matrix))

    def encoded_row(self, row: Mapping[str, Any], *, ignore_unknown: bool = False) -> Sequence[float]:
        """The numbers of one row, given by column name, for `score`. Raises what `predict` does."""
        return self._encoder.row_of(row, ignore_unknown=ignore_unknown)

    def score(self, values: Sequence[float]) -> float:
        """The answer to an encoded row."""
        raw = self._runtime.row(values)
        if self._plain:
            return raw
        return float(answers(np.array([raw]), self._output)[0])

    def scores(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The answers to encoded rows, shape (rows, columns)."""
        return answers(self._runtime.matrix(rows), self._output)

    def check(self, example: Columns) -> None:
        """Answer the input example; raises ModelCorruptError unless the answers are the recorded ones."""
        expected = np.array(self.specification.expected)
        try:
            made = self.predict(example)
        except TrimtabError as error:
            raise ModelCorruptError(f"The model does not answer its own input example: {error}") from error
        if made.shape != expected.shape:
            raise ModelCorruptError(
                f"The model gives {made.size} answers to its example, and {expected.size} are recorded."
            )
        # Written so that a NaN is a failure.
        close = np.abs(made - expected) <= self.specification.tolerance * np.maximum(1.0, np.abs(expected))
        if not close.all():
            row = int(np.flatnonzero(~close)[0])
            raise ModelCorruptError(
                f"The model answers row {row} of its example with {float(made[row])} where "
                f"{float(expected[row])} is recorded (tolerance {self.specification.tolerance:g}).",
                hint="Its file or its runtime is not the one that it was packaged with.",
            )

    def close(self) -> None:
        """Let go of the model's memory, which is freed once no call uses it any more. May be repeated.

        Whatever is asked afterwards raises UnavailableError.
        """
        self._runtime = _Closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_predictor(folder: str | os.PathLike[str], *, threads: int = 1) -> Predictor:
    """Load a packaged model for serving, and let it answer its input example, which also warms it up.

    `threads`: how many threads one prediction may use. Reads no pickle and runs no code from the folder.
    Raises RefusedError for a model that would need that, ModelCorruptError for a folder that is not what it
    was when packaged.
    """
    path = Path(folder)
    specification = read_specification(path)
    content = read_model_file(path, specification)
    example = read_example(path)
    try:
        predictor = Predictor(specification, runtime_of(specification, content, threads=threads))
    except InvalidInputError as error:
        raise ModelCorruptError(f"The model in '{path}' does not fit its specification: {error}") from error
    try:
        predictor.check(example)
    except BaseException:
        predictor.close()
        raise
    predictor.example = example
    return predictor


def runtime_of(specification: Specification, content: bytes, *, threads: int = 1) -> Runtime:
    """The runtime for a model file's bytes."""
    return load_runtime(
        specification.runtime,
        content,
        width=len(specification.signature.columns),
        threads=threads,
        options=specification.options,
    )
