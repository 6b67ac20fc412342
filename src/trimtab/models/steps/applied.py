"""A model with its steps, where they run: raw rows in, answers out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, TrimtabError
from trimtab.models.encoding import Encoder
from trimtab.models.inputs import frame_columns
from trimtab.models.runtimes.predictor import Predictor

Numbers = NDArray[np.float64]
Function = Callable[..., Any]


class StepFailedOnRowsError(TrimtabError):
    """A step raised, or gave what no step may give."""

    code = "model_failed"


class Applied:
    """Applies the steps around an inner model. `with_rows`: `after` takes the raw rows as well."""

    def __init__(
        self, inner: Predictor, before: Function | None, after: Function | None, *, with_rows: bool
    ) -> None:
        self.inner = inner
        self._before = before
        self._after = after
        self._with_rows = with_rows
        self._encoder = Encoder(inner.signature)

    def prepared(self, rows: pl.DataFrame) -> pl.DataFrame:
        """What the inner model gets of raw rows. Raises StepFailedOnRowsError, and the InvalidInputError by
        which a step refuses rows."""
        if self._before is None:
            return rows
        made = _called("before", self._before, rows)
        if not isinstance(made, pl.DataFrame):
            raise StepFailedOnRowsError(
                f"The step {_name(self._before)} answered with {_kind(made)}.",
                hint="It has to answer with a polars.DataFrame.",
            )
        if made.height != rows.height:
            raise StepFailedOnRowsError(
                f"The step {_name(self._before)} made {made.height} rows of {rows.height}.",
                hint="It has to answer with one row for each, in their order; leave rows out elsewhere.",
            )
        return made

    def matrix(self, rows: pl.DataFrame) -> Numbers:
        """The numbers that the inner model gets, shape (rows, columns). Raises what `prepared` does, and
        InvalidInputError where the inner model does not take them."""
        columns = frame_columns(self.prepared(rows), self.inner.signature)
        with _told(self._before):
            self._encoder.rows(columns)
            return self._encoder.matrix(columns, rows.height)

    def answers(self, rows: pl.DataFrame) -> Numbers:
        """One number for each row. Raises what `matrix` does."""
        columns = frame_columns(self.prepared(rows), self.inner.signature)
        with _told(self._before):
            made = self.inner.predict(columns, ignore_unknown=True)
        if self._after is None:
            return made
        given = (made, rows) if self._with_rows else (made,)
        finished = _called("after", self._after, *given)
        if isinstance(finished, pl.Series):
            finished = finished.to_numpy()
        answers = np.asarray(finished)
        if answers.shape != made.shape or answers.dtype.kind not in "fiub":
            raise StepFailedOnRowsError(
                f"The step {_name(self._after)} made {_kind(finished)} of shape {answers.shape} of "
                f"{made.size} answers.",
                hint="It has to answer with one number for each.",
            )
        return answers.astype(np.float64)


class _told:  # noqa: N801  (a context manager, which reads as a verb)
    """Names the step in what the inner model says of its rows."""

    def __init__(self, step: Function | None) -> None:
        self._step = step

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, InvalidInputError) and self._step is not None:
            raise InvalidInputError(
                f"The model does not take what the step {_name(self._step)} made: {error.message}",
                hint=error.hint,
            ) from error


def _called(role: str, step: Function, *given: Any) -> Any:
    try:
        return step(*given)
    except InvalidInputError:
        raise  # so a step refuses rows
    except (Exception, pl.exceptions.PanicException) as error:  # which is no Exception
        text = " ".join(str(error).split())
        shown = text if len(text) <= 300 else f"{text[:300]}..."
        raise StepFailedOnRowsError(
            f"The step {_name(step)} ({role} the model) raised {type(error).__name__}: {shown}"
        ) from error


def _name(step: Function) -> str:
    plain = getattr(step, "func", step)
    return f"'{getattr(plain, '__name__', type(plain).__name__)}'"


def _kind(value: object) -> str:
    return f"a {type(value).__module__.split('.')[0]}.{type(value).__name__}"
