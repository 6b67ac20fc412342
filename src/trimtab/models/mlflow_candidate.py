"""A model of one of MLflow's flavors, asked through `mlflow.pyfunc`. Loading it runs its code.

Importing this takes 2 s and 150 MB.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import polars as pl

# mlflow must not report anybody's use of Trimtab to its makers; it looks at these as it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

from trimtab.errors import (
    InvalidInputError,
    MissingExtraError,
    ModelCorruptError,
    TrimtabError,
    missing_extra,
)
from trimtab.models.candidates import Candidate, Input, Kind, Numbers, refusals

try:
    import mlflow.pyfunc
    import pandas as pd
except ModuleNotFoundError as error:
    raise missing_extra(error.name or "pandas", "pyfunc") from error

from mlflow.models import Model
from mlflow.types.schema import TensorSpec

_KINDS: Mapping[str, Kind] = {
    "double": "number",
    "float": "number",
    "integer": "number",
    "long": "number",
    "string": "text",
    "boolean": "boolean",
    "datetime": "time",
}
_WHOLE = {"integer": np.int32, "long": np.int64}
_DECIMAL = {"float": np.float32, "double": np.float64}


class MlflowColumn(msgspec.Struct, frozen=True):
    """A column of a model's signature: its kind, and MLflow's name of its type."""

    name: str
    kind: Kind
    type: str
    required: bool

    @property
    def whole(self) -> bool:
        """Whether it takes whole numbers only."""
        return self.type in _WHOLE


class MlflowCandidate:
    """A loaded model."""

    def __init__(self, model: Any, document: Model, folder: Path, not_inputs: tuple[str, ...]) -> None:
        self._model = model
        self._document = document
        self._folder = folder
        self._not_inputs = not_inputs
        signature = document.signature
        schema = None if signature is None else signature.inputs
        self._schema = schema
        self._named = schema is not None and schema.has_input_names()

    @classmethod
    def load(cls, folder: Path, not_inputs: tuple[str, ...]) -> Self:
        """Load a folder with an MLmodel file, and let the model answer its own input example."""
        logging.getLogger("mlflow").setLevel(logging.ERROR)  # it warns of each package of another version
        try:
            document = Model.load(str(folder))
            if "python_function" not in document.flavors:
                raise ModelCorruptError(
                    f"It has the flavors {', '.join(sorted(document.flavors))}, and not python_function.",
                    hint="Log it with a flavor that mlflow.pyfunc loads.",
                )
            loaded = cls(mlflow.pyfunc.load_model(str(folder)), document, folder, not_inputs)
            loaded._answer_example()
        except TrimtabError:
            raise
        except Exception as error:  # the model's own code may raise anything
            if (package := _missing_package(error)) is None:
                raise ModelCorruptError(f"Loading it raised {told(error)}") from error
            raise MissingExtraError(
                f"The model needs the package '{package}', which is not installed here.",
                hint="Install what the file requirements.txt of the model names.",
            ) from error
        return loaded

    @property
    def target(self) -> str:
        """What it predicts; "" if it does not say."""
        signature = self._document.signature
        outputs = None if signature is None else signature.outputs
        names = outputs.input_names() if outputs is not None and outputs.has_input_names() else []
        return str(names[0]) if len(names) == 1 else ""

    @property
    def inputs(self) -> Mapping[str, Input] | None:
        """Its input columns; None if it does not say."""
        if self._schema is None or not self._named:
            return None
        return {
            each.name: Input(_KINDS.get(_type_of(each), "other"), each.required)
            for each in self._schema.inputs
        }

    @property
    def columns(self) -> list[MlflowColumn] | None:
        """Its input columns with their types; those of a matrix without names are called by their places,
        from 0. None if it does not say."""
        if self._schema is None:
            return None
        if self._named:
            types = [(each.name, _type_of(each), each.required) for each in self._schema.inputs]
            return [MlflowColumn(n, _KINDS.get(type, "other"), type, needed) for n, type, needed in types]
        first = self._schema.inputs[0]
        if not isinstance(first, TensorSpec) or len(first.shape) != 2 or first.shape[1] < 1:
            return None
        return [MlflowColumn(str(place), "number", "double", True) for place in range(first.shape[1])]

    def example(self) -> dict[str, list[Any]]:
        """Its input example by column, as plain values; empty if it has none, or none of named columns."""
        given: Any = self._document.load_input_example(str(self._folder))
        if isinstance(given, np.ndarray) and given.ndim == 2:
            given = pd.DataFrame(given, columns=[str(place) for place in range(given.shape[1])])
        if not isinstance(given, pd.DataFrame):
            return {}
        return {str(name): [_cell(value) for value in given[name].tolist()] for name in given.columns}

    def answers(self, rows: pl.DataFrame) -> Numbers:
        """One number for each row."""
        return self._asked(self._frame(rows), rows.height)

    def answers_to(self, matrix: Numbers) -> Numbers:
        """What `answers` says to a matrix that has all columns as doubles, in their order (NaN: missing),
        without a frame made of each column."""
        if self._schema is None or not self._named:
            return self.answers(pl.DataFrame(matrix))
        frame = pd.DataFrame(matrix, columns=[each.name for each in self._schema.inputs])
        return self._asked(frame, len(matrix))

    def singles(self, rows: pl.DataFrame) -> list[Callable[[], object]]:
        """For each row a call that answers it alone."""
        frame = self._frame(rows)
        predict = self._model.predict
        each = [frame[row : row + 1] for row in range(rows.height)]
        return [functools.partial(predict, row) for row in each]

    def refusals_of(self, champion: Candidate) -> Iterator[str]:
        """Why a request that `champion` accepts might be refused here."""
        yield from refusals(self.inputs, champion.inputs)

    def close(self) -> None:
        """Free its memory."""
        self._model = None

    def _answer_example(self) -> None:
        example = self._document.load_input_example(str(self._folder))
        if example is None:
            return
        count = len(example) if isinstance(example, pd.DataFrame | np.ndarray | list) else 1
        if not np.isfinite(self._asked(example, count)).all():
            raise ModelCorruptError("Not all of its answers to its own input example are finite.")

    def _asked(self, given: Any, count: int) -> Numbers:
        try:
            made = self._model.predict(given)
        except Exception as error:  # the model's own code may raise anything
            raise InvalidInputError(f"It raised {told(error)}") from error
        return numbers(made, count)

    def _frame(self, rows: pl.DataFrame) -> Any:
        """The rows as the model's signature has them: a pandas frame, or a matrix where it names nothing."""
        if self._schema is not None and self._named:
            return pd.DataFrame(
                {
                    each.name: _series(rows[each.name], _type_of(each))
                    for each in self._schema.inputs
                    if self._is_there(each, rows)
                }
            )
        allowed = rows.drop(self._not_inputs, strict=False)
        if self._schema is None:
            return pd.DataFrame({name: _series(allowed[name], "") for name in allowed.columns})
        return self._matrix(allowed)

    def _is_there(self, column: Any, rows: pl.DataFrame) -> bool:
        if column.name in rows.columns:
            return True
        if column.required:
            raise InvalidInputError(f"The column '{column.name}' is missing.", hint="The model needs it.")
        return False

    def _matrix(self, rows: pl.DataFrame) -> Any:
        first = self._document.signature.inputs.inputs[0]
        width = first.shape[-1] if isinstance(first, TensorSpec) and len(first.shape) == 2 else None
        if width != rows.width or not all(dtype.is_numeric() for dtype in rows.dtypes):
            raise InvalidInputError(
                f"It takes a matrix without names, of shape {getattr(first, 'shape', '(?)')}, and there are "
                f"{rows.width} columns beside target and time.",
                hint="Log it with a signature that names its columns.",
            )
        return rows.to_numpy().astype(first.type)


def numbers(made: Any, count: int) -> Numbers:
    """A model's answers as one number for each of `count` rows. Of two columns, the probabilities of two
    classes, the second counts. Raises InvalidInputError for anything else."""
    if isinstance(made, Mapping):
        made = next(iter(made.values()), ())
    values = np.asarray(made)
    if values.ndim == 2 and values.shape[1] in (1, 2):
        values = values[:, -1]
    if values.shape != (count,):
        raise InvalidInputError(f"It answers {count} rows with an array of shape {values.shape}.")
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"It answers with {values[0]!r:.40}, which is not a number.",
            hint="Of a classifier log the probabilities: pyfunc_predict_fn='predict_proba'.",
        ) from None


def _missing_package(error: BaseException | None) -> str | None:
    """The package whose absence is behind an error, which MLflow may have wrapped in its own."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    return None if error is None else error.name


def told(error: BaseException) -> str:
    """An exception in one sentence."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:300]}..."
    return f"{type(error).__name__}: {text.rstrip('.')}." if text else f"{type(error).__name__}."


def _cell(value: Any) -> Any:
    if value is None or value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _type_of(column: Any) -> str:
    if isinstance(column, TensorSpec):
        return {"f": "double", "i": "long", "u": "long", "b": "boolean"}.get(column.type.kind, "")
    return str(getattr(column.type, "name", column.type))


def _series(column: pl.Series, kind: str) -> Any:
    """A column as pandas has it, of the type that the signature names ("" for its own)."""
    if kind in _DECIMAL or (kind in _WHOLE and column.null_count()):
        return column.cast(pl.Float64).to_numpy().astype(_DECIMAL.get(kind, np.float64))
    if kind in _WHOLE:
        return column.cast(pl.Int64).to_numpy().astype(_WHOLE[kind])
    if kind == "string" or column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return pd.Series(column.cast(pl.String).to_list(), dtype=object)
    if column.dtype == pl.Datetime:
        return pd.Series(column.dt.replace_time_zone(None).to_numpy())
    if column.dtype.is_numeric() or (column.dtype == pl.Boolean and not column.null_count()):
        return column.to_numpy()
    return pd.Series(column.to_list(), dtype=object)
