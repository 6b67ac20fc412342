"""A model whose step is expressions alone, in the place of a process: nothing of the package runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import ModelCorruptError, UnavailableError
from trimtab.models.confined.messages import Ask, Hello, ModelRaisedError
from trimtab.models.runtimes.predictor import Predictor, runtime_of
from trimtab.models.specification import read_model_file, read_specification
from trimtab.models.steps.allowed import NotExpressionsError
from trimtab.models.steps.applied import Applied, StepFailedOnRowsError
from trimtab.models.steps.document import INNER_FOLDER, inner_specification, read_files, read_steps
from trimtab.models.steps.expressions import program_of
from trimtab.models.steps.raw_columns import RawColumns


class Expressions:
    """Applies the expressions and asks the inner model. May be asked from several threads at once."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Raises ModelCorruptError for a step that is more than expressions, RefusedError for an inner model
        that may run code."""
        outer = read_specification(folder)
        steps = read_steps(read_model_file(folder, outer))
        files = read_files(folder, steps)
        step = steps.before
        if step is None or steps.after is not None:
            raise ModelCorruptError(f"The model in '{folder}' has other steps than its runtime applies.")
        try:
            program = program_of(files, step)
        except NotExpressionsError as error:
            raise ModelCorruptError(
                f"The step '{step}' is not applied: it {error}, which expressions alone do not.",
                hint="Pack it again with Model.with_steps.",
            ) from error

        def prepare(rows: pl.DataFrame) -> pl.DataFrame:
            return program.apply(rows)

        prepare.__name__ = step.name
        within = inner_specification(files)
        runtime = runtime_of(within, files[f"{INNER_FOLDER}/{within.file}"], threads=threads)
        self._applied: Applied | None = Applied(Predictor(within, runtime), prepare, None, with_rows=False)
        self._frame = RawColumns(steps.columns).frame
        self._numbers = sum(column.kind != "text" for column in steps.columns)
        self.hello = Hello(
            columns=outer.signature.columns,
            whole=tuple(column.name for column in steps.columns if column.whole),
            target=outer.target,
            example={},
            answers=(),
        )

    @property
    def pid(self) -> None:
        """There is no process."""
        return

    def ask(self, asked: Ask) -> NDArray[np.float64]:
        """One answer for each row, or the matrix that is wanted, as one array. Raises InvalidInputError,
        ModelRaisedError."""
        applied = self._applied
        if applied is None:
            raise UnavailableError("The model was closed.")
        numbers = np.frombuffer(asked.numbers, dtype=np.float64).reshape(asked.rows, self._numbers)
        rows = self._frame(asked.rows, numbers, asked.texts)
        try:
            return applied.matrix(rows).reshape(-1) if asked.width else applied.answers(rows)
        except StepFailedOnRowsError as error:
            raise ModelRaisedError(error.message, hint=error.hint) from error

    def close(self) -> None:
        """Let go of the model. Whatever is asked afterwards raises UnavailableError."""
        self._applied = None
