"""scikit-learn estimators as ONNX models, compared with the original before anybody is served by one."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import is_classifier

from trimtab.errors import InvalidInputError, TrimtabError
from trimtab.models.conversion import imputers, polynomials, tree_ensembles
from trimtab.models.conversion.differences import Differs, check_singles, furthest
from trimtab.models.conversion.estimators import Answer, Estimator
from trimtab.models.conversion.onnx_graphs import Prelude, assembled
from trimtab.models.conversion.rows_to_check import (
    Rows,
    given_rows,
    opened,
    perturbed_rows,
    with_closed,
    with_missing,
    with_unknown,
)
from trimtab.models.conversion.tree_ensembles import ML_VERSION
from trimtab.models.encoding import Encoder
from trimtab.models.inputs import Inputs
from trimtab.models.runtimes.onnx import load
from trimtab.models.signature import Column, Signature

OPSET = 18
_WHOLE = "rows"

Numbers = NDArray[np.float64]


class Converted(msgspec.Struct, frozen=True):
    """An ONNX model, the inputs it is served with, and what was measured: on how many rows, and the largest
    difference to the original, relative to the larger of 1 and its answer."""

    content: bytes
    inputs: Inputs
    rows: int
    difference: float
    single: bool

    @property
    def notes(self) -> dict[str, str]:
        """What a specification says of it."""
        return {
            "checked_rows": str(self.rows),
            "largest_difference": f"{self.difference:.2g}",
            "precision": "single" if self.single else "double",
        }


def converted(
    model: Any, inputs: Inputs, *, rows: pl.DataFrame | None, answer: Answer, tolerance: float
) -> Converted:
    """Convert a fitted estimator, in double precision or, if only that is within `tolerance`, in single.

    Compared on the example rows, on `rows` that training has not seen, on both of them perturbed, and with
    what is missing or unknown. Raises InvalidInputError with the measured difference.
    """
    estimator = Estimator(model, inputs, answer)
    given = given_rows(inputs, rows)
    checked = _Checked(estimator, inputs, given, tolerance)
    reasons = []
    for single in (False, True):
        try:
            content = _content(estimator, inputs.signature, single)
            worst = checked.worst(content)
        except TrimtabError as error:
            reasons.append(error.message)
            continue
        if worst.difference <= tolerance:
            return Converted(content, checked.inputs, checked.count, worst.difference, single)
        reasons.append(
            f"In {'single' if single else 'double'} precision it answers row {worst.row} of those compared "
            f"with {worst.converted!r} where scikit-learn says {worst.original!r}: a relative difference of "
            f"{worst.difference:.2g}, and {tolerance:g} is allowed."
        )
    raise InvalidInputError(
        f"The {type(model).__name__} is not converted to ONNX. {' '.join(dict.fromkeys(reasons))}",
        hint="Log it with mlflow.sklearn and let the gateway serve it in a process of its own (setting "
        "confined_models), or allow more with tolerance=.",
    )


def origin(model: Any) -> str:
    """What a converted model was."""
    return f"{type(model).__name__} (scikit-learn {version('scikit-learn')}, skl2onnx {version('skl2onnx')})"


class _Checked:
    """The rows, and what the original says to them. Categories that it refuses are closed in `inputs`."""

    def __init__(self, estimator: Estimator, inputs: Inputs, given: Rows, tolerance: float) -> None:
        self.inputs = inputs
        self._tolerance = tolerance
        self._rows: list[Rows] = []
        self._said: list[Numbers] = []
        self._keep(given, estimator.answers(given))
        self._keep(*_answered(estimator, perturbed_rows(inputs, given)))
        for name, rows in with_missing(inputs, given):
            try:
                self._keep(rows, estimator.answers(rows))
            except Exception as error:
                raise InvalidInputError(
                    f"The column '{name}' may be missing, and the {type(estimator.model).__name__} refuses "
                    f"rows without it: {_told(error)}",
                    hint="Impute it in the pipeline, or declare inputs that are never missing.",
                ) from error
        if not estimator.by_name:  # it learned from codes, where an unknown value is a missing one
            return
        closed = set()
        for name, rows in with_unknown(inputs, given):
            try:
                self._keep(rows, estimator.answers(rows))
            except (ValueError, TypeError):  # what scikit-learn raises for a category that it does not know
                closed.add(name)
        self.inputs = with_closed(inputs, closed)

    def _keep(self, rows: Rows, said: Numbers) -> None:
        self._rows.append(rows)
        self._said.append(said)

    @property
    def count(self) -> int:
        return sum(said.size for said in self._said)

    def worst(self, content: bytes) -> Differs:
        """Where the converted model is furthest from the original; NaN goes with NaN only."""
        width = len(self.inputs.signature.columns)
        runtime = load(content, width=width, threads=1, options={})
        encoder = Encoder(opened(self.inputs.signature))
        matrix = np.concatenate([encoder.matrix(rows, len(said)) for rows, said in self._pairs()])
        made, said = runtime.matrix(matrix), np.concatenate(self._said)
        check_singles(runtime, matrix, made, self._tolerance)
        return furthest(made, said)

    def _pairs(self) -> list[tuple[Rows, Numbers]]:
        return list(zip(self._rows, self._said, strict=True))


def _answered(estimator: Estimator, rows: Rows) -> tuple[Rows, Numbers]:
    """Those rows that the estimator does not refuse, and what it says."""
    try:
        return rows, estimator.answers(rows)
    except Exception:  # noqa: BLE001  (some of them are nothing for it; then one by one)
        kept: list[int] = []
        said: list[float] = []
        for place in range(len(next(iter(rows.values())))):
            try:
                said += estimator.answers({name: [values[place]] for name, values in rows.items()}).tolist()
            except Exception:  # noqa: BLE001, S112  (this one: see above)
                continue
            kept.append(place)
        return {name: [values[place] for place in kept] for name, values in rows.items()}, np.array(said)


def _content(estimator: Estimator, signature: Signature, single: bool) -> bytes:
    number: Callable[[list[int | None]], Any] = FloatTensorType if single else DoubleTensorType
    prelude = Prelude(signature, single=single)
    width = len(signature.columns)
    if estimator.per_column:
        prelude.columns(signature.names)
        types = [(column.name, _type(column, number)) for column in signature.columns]
    else:
        order = [signature.names.index(name) for name in estimator.names]
        if order != list(range(width)):
            raise InvalidInputError(
                f"It was fitted on the columns {estimator.names} and its inputs declare {signature.names}.",
                hint="Give both in the same order.",
            )
        prelude.whole(_WHOLE)
        types = [(_WHOLE, number([None, width]))]
    model = _onnx(estimator.model, types, single)
    outputs = [output.name for output in model.graph.output]
    wanted = {"variable": 0, "label": 0, "probability": 1}[estimator.result]
    return assembled(prelude, model, outputs[wanted], width, ml_version=ML_VERSION)


def _onnx(model: Any, types: list[tuple[str, Any]], single: bool) -> Any:
    """What skl2onnx makes of it."""
    try:
        return convert_sklearn(
            model,
            initial_types=types,
            target_opset={"": OPSET, "ai.onnx.ml": 3},
            options={id(model): {"zipmap": False}} if is_classifier(model) else None,
            custom_conversion_functions={}
            if single
            else {**tree_ensembles.CONVERTERS, **imputers.CONVERTERS, **polynomials.CONVERTERS},
            custom_shape_calculators={}
            if single
            else {**tree_ensembles.SHAPES, **imputers.SHAPES, **polynomials.SHAPES},
        )
    except TrimtabError:
        raise
    except Exception as error:  # skl2onnx's errors share no narrower class
        raise InvalidInputError(f"skl2onnx cannot convert it: {_told(error)}") from error


def _type(column: Column, number: Callable[[list[int | None]], Any]) -> Any:
    if not column.categories:
        return number([None, 1])
    return (StringTensorType if isinstance(column.categories[0], str) else Int64TensorType)([None, 1])


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return f"{type(error).__name__}: {text.rstrip('.')}."
