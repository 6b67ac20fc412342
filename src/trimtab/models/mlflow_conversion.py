"""A model that MLflow's clients logged, as one that needs none of its code any more.

Loading it runs its code, so only a process of its own does (`trimtab.models.converting`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from trimtab.errors import InvalidInputError, TrimtabError, missing_extra
from trimtab.models.inputs import Inputs
from trimtab.models.mlflow_candidate import MlflowCandidate, MlflowColumn, told
from trimtab.models.model import EXACT_TOLERANCE, Model
from trimtab.models.signature import Column, Signature

try:
    import mlflow
    from mlflow.models import Model as MLmodel
except ModuleNotFoundError as error:
    raise missing_extra(error.name or "mlflow", "pyfunc") from error

Answer = Literal["probability", "label"]

MOST_ROWS = 5_000
_FLAVORS = ("sklearn", "xgboost", "lightgbm", "onnx", "pytorch")
_SINGLE = 1e-5
"""How exact models are that compute in single precision."""


class Conversion(msgspec.Struct, frozen=True):
    """What was made, and how it was compared: with which flavor's own answers, and on how many rows."""

    model: Model
    flavor: str
    rows: int
    difference: float


def convert_folder(
    folder: Path, rows: pl.DataFrame | None, *, answer: Answer | None, tolerance: float | None
) -> Conversion:
    """Convert the model in an MLflow folder, and compare it with what MLflow's own pyfunc says to its input
    example and to `rows`.

    `answer` says what of a classifier is served; as it was logged, if not given. Raises InvalidInputError
    with the reason, or the measured difference.
    """
    document = MLmodel.load(str(folder))
    flavor = next((name for name in _FLAVORS if name in document.flavors), None)
    if flavor is None:
        raise InvalidInputError(
            f"It has the flavors {', '.join(sorted(document.flavors))}; those converted are "
            f"{', '.join(_FLAVORS)}.",
            hint="Serve it in a process of its own: the setting confined_models.",
        )
    logged = _logged_answer(document, flavor)
    original = MlflowCandidate.load(folder, ())
    native = _native(folder, document, flavor)
    inputs = _inputs(original, native, rows)
    model = _packaged(
        flavor, native, inputs, original.target or "prediction", rows, answer or logged, tolerance
    )
    if answer not in (None, logged):  # it is to answer otherwise than it was logged
        return Conversion(model, flavor, 0, 0.0)
    count, difference = _compared(model, original, inputs, rows)
    if not difference <= model.specification.tolerance:
        raise InvalidInputError(
            f"Converted, it answers otherwise than mlflow.pyfunc does: a relative difference of "
            f"{difference:.2g}, and {model.specification.tolerance:g} is allowed.",
            hint="Serve it in a process of its own: the setting confined_models.",
        )
    return Conversion(model, flavor, count, difference)


def _native(folder: Path, document: Any, flavor: str) -> Any:
    """The model itself; of a program of PyTorch's its file, since the module that is made of one cannot be
    exported again."""
    if flavor == "pytorch":
        program = folder / document.flavors[flavor]["model_data"] / "model.pt2"
        if program.is_file():
            return program
    try:
        return getattr(mlflow, flavor).load_model(str(folder))
    except Exception as error:  # the model's own code may raise anything
        raise InvalidInputError(f"mlflow.{flavor} cannot load it: {told(error)}") from error


def _logged_answer(document: Any, flavor: str) -> Answer:
    if flavor in ("onnx", "pytorch"):
        return "probability"
    said = document.flavors["python_function"].get("predict_fn", "predict")
    return "probability" if said == "predict_proba" else "label"


def _packaged(
    flavor: str,
    native: Any,
    inputs: Inputs,
    target: str,
    rows: pl.DataFrame | None,
    answer: Answer,
    tolerance: float | None,
) -> Model:
    if flavor == "sklearn":
        exact = EXACT_TOLERANCE if tolerance is None else tolerance
        return Model.sklearn(native, inputs, target=target, rows=rows, answer=answer, tolerance=exact)
    if hasattr(native, "classes_") and answer == "label":
        raise InvalidInputError(
            f"The {type(native).__name__} was logged to answer with classes, its file has probabilities.",
            hint='Convert it with --answer probability, or log it with pyfunc_predict_fn="predict_proba".',
        )
    if flavor == "onnx":
        exact = _SINGLE if tolerance is None else tolerance
        return Model.onnx(native.SerializeToString(), inputs, target=target, tolerance=exact)
    if flavor == "pytorch":
        made = Model.torch(native, inputs, target=target, rows=rows, tolerance=tolerance)
        if (reason := made.specification.options.get("not_converted")) is not None:
            raise InvalidInputError(
                f"It is not converted to ONNX: {reason}",
                hint="Serve it in a process of its own: the setting confined_models.",
            )
        return made
    if flavor == "xgboost":
        return Model.xgboost(native, inputs, target=target)
    return Model.lightgbm(getattr(native, "booster_", native), inputs, target=target)


def _inputs(original: MlflowCandidate, native: Any, rows: pl.DataFrame | None) -> Inputs:
    columns = original.columns
    if columns is None:
        raise InvalidInputError(
            "The model has no signature that says which columns it takes.",
            hint="Log it with one: mlflow.models.infer_signature(rows, answers).",
        )
    known = dict(_known_categories(native))
    signature = Signature(tuple(_column(column, known) for column in columns))
    example = original.example()
    if not example and rows is not None:
        example = rows.select(signature.names).head(5).to_dict(as_series=False)
    if not example or any(name not in example for name in signature.names):
        raise InvalidInputError(
            "The model has no input example with all its columns.",
            hint="Log it with input_example=..., or name a dataset with --data.",
        )
    return Inputs(signature, {name: example[name] for name in signature.names})


def _column(column: MlflowColumn, known: Mapping[str, Sequence[Any]]) -> Column:
    categories = tuple(known.get(column.name, ()))
    nullable = not column.required
    if column.kind in ("text", "number") and categories and _fit(column, categories):
        return Column(column.name, "category", nullable, categories)
    if column.kind == "number":
        return Column(column.name, "number", nullable)
    if column.kind == "boolean":
        return Column(column.name, "boolean", nullable)
    raise InvalidInputError(
        f"The column '{column.name}' is a {column.kind} whose values no encoder of the model lists.",
        hint="Serve it in a process of its own: the setting confined_models.",
    )


def _fit(column: MlflowColumn, categories: Sequence[Any]) -> bool:
    wanted = str if column.kind == "text" else int
    return all(type(category) is wanted for category in categories)


def _known_categories(native: Any) -> Iterator[tuple[str, list[Any]]]:
    """The values that the encoders in a ColumnTransformer know, by column."""
    first = native
    while hasattr(first, "steps"):
        first = first.steps[0][1]
    for _, step, columns in getattr(first, "transformers_", ()):
        for encoder in [each for _, each in step.steps] if hasattr(step, "steps") else [step]:
            found = getattr(encoder, "categories_", None)
            names = [columns] if isinstance(columns, str) else list(columns)
            if found is not None and len(found) == len(names):
                for name, values in zip(names, found, strict=True):
                    plain = np.asarray(values).tolist()
                    yield str(name), [value for value in plain if value is not None and value == value]


def _compared(
    model: Model, original: MlflowCandidate, inputs: Inputs, rows: pl.DataFrame | None
) -> tuple[int, float]:
    """On how many rows it was compared, and the largest relative difference."""
    frames = [pl.DataFrame(inputs.example)]
    if rows is not None:
        frames.append(rows.select(inputs.names).head(MOST_ROWS))
    worst, count = 0.0, 0
    for frame in frames:
        said = original.answers(frame)
        try:
            made = model.predict(frame)
        except TrimtabError as error:
            raise InvalidInputError(
                f"Converted, it refuses rows that it answered: {error.message}"
            ) from error
        apart = np.abs(made - said) / np.maximum(1.0, np.abs(said))
        worst = max(worst, float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0)))
        count += frame.height
    return count, worst
