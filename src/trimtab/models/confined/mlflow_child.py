"""A model of one of MLflow's flavors, in the process that is its own. Importing this takes 2 s."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError
from trimtab.models.confined.messages import Answers, Ask, Hello, ModelRaisedError
from trimtab.models.mlflow_candidate import MlflowCandidate, MlflowColumn
from trimtab.models.signature import Column

_KINDS = {"number": "number", "boolean": "boolean", "text": "text", "time": "text"}


class MlflowChild:
    """A loaded model at the end of a channel."""

    def __init__(self, folder: Path) -> None:
        self._model = MlflowCandidate.load(folder, ())
        columns = self._model.columns
        if columns is None:
            raise InvalidInputError(
                "The model has no signature that says which columns it takes.",
                hint="Log it with one: mlflow.models.infer_signature(rows, answers).",
            )
        self._columns = columns
        self._doubles = all(column.type == "double" for column in columns)
        for column in columns:
            if column.kind not in _KINDS:
                raise InvalidInputError(
                    f"The column '{column.name}' is of type {column.type}, which no request can carry.",
                    hint="Numbers, texts, booleans and times can be served.",
                )

    def hello(self) -> Hello:
        """What the model takes, and what it says to its own example."""
        example = self._model.example()
        answers: list[float] = []
        if example and all(column.name in example for column in self._columns if column.required):
            count = len(next(iter(example.values())))
            frame = pl.DataFrame(
                {c.name: _series(c, example[c.name]) for c in self._columns if c.name in example}
            )
            answers = self._model.answers(frame).tolist() if count else []
        return Hello(
            columns=tuple(
                Column(column.name, _KINDS[column.kind], not column.required)  # type: ignore[arg-type]  # a kind
                for column in self._columns
            ),
            whole=tuple(column.name for column in self._columns if column.whole),
            target=self._model.target,
            example=example if answers else {},
            answers=tuple(answers),
        )

    def answer(self, asked: Ask) -> Answers:
        """Answer rows; raises TrimtabError."""
        plain = [column for column in self._columns if column.kind in ("number", "boolean")]
        numbers = np.frombuffer(asked.numbers, dtype=np.float64).reshape(asked.rows, len(plain))
        if self._doubles:
            return self._answered(functools.partial(self._model.answers_to, numbers))
        texts = iter(asked.texts)
        places = iter(range(len(plain)))
        frame = pl.DataFrame(
            [
                _numbers(column, numbers[:, next(places)])
                if column.kind in ("number", "boolean")
                else _series(column, next(texts))
                for column in self._columns
            ]
        )
        return self._answered(functools.partial(self._model.answers, frame))

    @staticmethod
    def _answered(ask: Callable[[], NDArray[np.float64]]) -> Answers:
        try:
            return Answers(ask().tobytes())
        except InvalidInputError as error:  # the rows are what the signature says, so it is not about them
            raise ModelRaisedError(error.message, hint=error.hint) from error


def _numbers(column: MlflowColumn, values: NDArray[np.float64]) -> pl.Series:
    made = pl.Series(column.name, values)
    if np.isnan(values).any():
        made = made.fill_nan(None)
    return made.cast(pl.Boolean) if column.kind == "boolean" else made


def _series(column: MlflowColumn, values: Sequence[Any]) -> pl.Series:
    if column.kind in ("number", "boolean"):
        cells = [None if value is None else float(value) for value in values]
        return _numbers(column, np.array([np.nan if cell is None else cell for cell in cells]))
    made = pl.Series(column.name, values, dtype=pl.String)
    if column.kind == "time":
        try:
            return made.str.to_datetime(time_unit="us")
        except pl.exceptions.PolarsError as error:
            raise InvalidInputError(
                f"The column '{column.name}' has a text that is no time: {error}.",
                hint="Write times as 2026-01-31T12:00:00.",
            ) from error
    return made
