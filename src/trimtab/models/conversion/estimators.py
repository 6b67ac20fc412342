"""A fitted scikit-learn estimator as the original that a conversion is compared with."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from trimtab.errors import InvalidInputError
from trimtab.models.inputs import Inputs

Answer = Literal["probability", "label"]
Rows = Mapping[str, Sequence[Any]]


class Estimator:
    """A fitted estimator, asked as it was trained: by column name if it was fitted on a frame, and else by
    `inputs.matrix`. Raises InvalidInputError for one that does not go with its inputs or is no predictor."""

    def __init__(self, model: Any, inputs: Inputs, answer: Answer) -> None:
        self.model = model
        self._inputs = inputs
        self._answer = answer
        self._name = type(model).__name__
        if not hasattr(model, "predict"):
            raise InvalidInputError(
                f"{self._name} has no predict.", hint="Give a fitted estimator or pipeline."
            )
        try:
            check_is_fitted(model)
        except NotFittedError:
            raise InvalidInputError(f"The {self._name} is not fitted.", hint="Call its fit first.") from None
        trained = getattr(model, "feature_names_in_", None)
        self.by_name = trained is not None
        self._pandas = importlib.util.find_spec("pandas") is not None
        self.names: list[str] = inputs.names if trained is None else [str(name) for name in trained]
        self._check_columns(getattr(model, "n_features_in_", None))
        self.result = self._result()

    def _check_columns(self, width: int | None) -> None:
        if set(self.names) != set(self._inputs.names) or (
            not self.by_name and width is not None and width != len(self.names)
        ):
            what = self.names if self.by_name else f"{width} columns"
            raise InvalidInputError(
                f"The {self._name} was fitted on {what} and its inputs declare {self._inputs.names}.",
                hint="Fit it on rows.select(inputs.names), or on inputs.matrix(rows).",
            )
        if self._inputs.signature.missing is not None:
            raise InvalidInputError(
                "The inputs stand a number for missing values, which a scikit-learn model does not take.",
                hint="Leave `missing` out, and impute in the pipeline.",
            )

    def _result(self) -> str:
        """The place of what is served among skl2onnx's outputs."""
        if not is_classifier(self.model):
            return "variable"
        classes = np.asarray(self.model.classes_)
        if self._answer == "label":
            if classes.dtype.kind not in "iufb":
                raise InvalidInputError(
                    f"The classes of the {self._name} are not numbers: {classes[:3].tolist()}.",
                    hint="Serve the probability, or train on numbers.",
                )
            return "label"
        if classes.shape != (2,):
            raise InvalidInputError(
                f"The {self._name} has {classes.size} classes, and one number is served for each row.",
                hint='Use answer="label" for the class, or one model for each class.',
            )
        if not hasattr(self.model, "predict_proba"):
            raise InvalidInputError(
                f"The {self._name} gives no probabilities.", hint='Use answer="label", or calibrate it.'
            )
        return "probability"

    @property
    def per_column(self) -> bool:
        """Whether its conversion needs the columns one by one: they have types, or are picked by name."""
        first = self.model
        while isinstance(first, Pipeline):
            first = first.steps[0][1]
        columns = self._inputs.signature.columns
        return self.by_name and (
            isinstance(first, ColumnTransformer) or any(column.categories for column in columns)
        )

    def answers(self, rows: Rows) -> NDArray[np.float64]:
        """What it says, one number for each row; raises whatever the estimator raises."""
        if not self.by_name:
            return self._asked(self._matrix(rows), rows)
        ordered = {name: rows[name] for name in self.names}
        if not self._pandas:
            return self._asked(pl.DataFrame(_arrays(ordered)), rows)
        try:
            return self._asked(_pandas_frame(ordered), rows)
        except Exception:  # noqa: BLE001  (estimators refuse another library's texts in many ways)
            made = self._asked(pl.DataFrame(_arrays(ordered)), rows)
            self._pandas = False
            return made

    def _asked(self, given: Any, rows: Rows) -> NDArray[np.float64]:
        if self.result == "probability":
            made = np.asarray(self.model.predict_proba(given))[:, 1]
        else:
            made = np.asarray(self.model.predict(given))
        count = len(next(iter(rows.values())))
        if made.size != count:
            raise InvalidInputError(
                f"The {self._name} gives {made.size} numbers for {count} rows, and one for each is served."
            )
        return made.reshape(count).astype(np.float64)

    def _matrix(self, rows: Rows) -> NDArray[np.float64]:
        return self._inputs.matrix(pl.DataFrame(_arrays(rows)))


def _pandas_frame(rows: Rows) -> Any:
    import pandas  # noqa: PLC0415  (optional: what most estimators were fitted on)

    return pandas.DataFrame({name: _array(values) for name, values in rows.items()})


def _arrays(rows: Rows) -> dict[str, pl.Series]:
    return {name: pl.Series(name, list(values), strict=False) for name, values in rows.items()}


def _array(values: Sequence[Any]) -> NDArray[Any]:
    kinds = {type(value) for value in values}
    if kinds <= {bool}:
        return np.array(values, dtype=bool)
    if kinds <= {int}:
        return np.array(values, dtype=np.int64)
    if kinds <= {int, float, type(None)}:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.array(values, dtype=object)
