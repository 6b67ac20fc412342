"""A model whose step is expressions alone, in the place of a process: nothing of the package runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import ModelCorruptError, UnavailableError
from trimtab.models.confined.messages import Ask
from trimtab.models.confined.step_package import StepPackage
from trimtab.models.runtimes.predictor import Predictor, runtime_of
from trimtab.models.steps.allowed import NotExpressionsError
from trimtab.models.steps.applied import Applied
from trimtab.models.steps.expressions import program_of


class Expressions:
    """Applies the expressions and asks the inner model. May be asked from several threads at once."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Raises ModelCorruptError for a step that is more than expressions, RefusedError for an inner model
        that may run code, and what Polars raises where the columns are not those that the step takes."""
        self._package = package = StepPackage(folder)
        step = package.steps.before
        if step is None or package.steps.after is not None:
            raise ModelCorruptError(f"The model in '{folder}' has other steps than its runtime applies.")
        try:
            program = program_of(package.files, step)
            program.check(package.empty)
        except NotExpressionsError as error:
            raise ModelCorruptError(
                f"The step '{step}' is not applied: it {error}, which expressions alone do not.",
                hint="Pack it again with Model.with_steps.",
            ) from error

        def prepare(rows: pl.DataFrame) -> pl.DataFrame:
            return program.apply(rows)

        prepare.__name__ = step.name
        inner = Predictor(package.inner, runtime_of(package.inner, package.content, threads=threads))
        self._applied: Applied | None = Applied(inner, prepare, None, with_rows=False)
        self.hello = package.hello()

    @property
    def pid(self) -> None:
        """There is no process."""
        return

    def ask(self, asked: Ask) -> NDArray[np.float64]:
        """As `StepPackage.answers`. Raises UnavailableError once it is closed."""
        applied = self._applied
        if applied is None:
            raise UnavailableError("The model was closed.")
        return self._package.answers(applied, asked)

    def close(self) -> None:
        """Let go of the model. Whatever is asked afterwards raises UnavailableError."""
        self._applied = None
