"""A trained model as a step returns it: a native model file with its inputs and output declared beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.digest import digest_bytes
from trimtab.errors import InvalidInputError, missing_extra
from trimtab.models.inputs import Inputs, frame_columns
from trimtab.models.packaging import write_model
from trimtab.models.packed import Packed, PackedPredictor, read_packed
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.runtimes.trusted import deferred_runtime_of, load_trusted
from trimtab.models.signature import Output, Signature, Transform
from trimtab.models.specification import (
    Specification,
    read_example,
    read_model_file,
    read_specification,
)

if TYPE_CHECKING:
    from trimtab.models.conversion.sklearn_conversion import Converted

LIGHTGBM_TOLERANCE = 1e-9
"""LightGBM computes in double precision; another build may add up in another order."""
XGBOOST_TOLERANCE = 1e-5
"""XGBoost computes in single precision; another build may add up in another order."""
ONNX_TOLERANCE = 1e-4
"""ONNX models mostly compute in single precision, in an order that depends on the processor."""
EXACT_TOLERANCE = 1e-9
"""How far, relative to the larger of 1 and the answer, a converted model may lie from its original."""


@runtime_checkable
class Booster(Protocol):
    """What is asked of a `lightgbm.Booster`."""

    def model_to_string(self) -> str:
        """The model's text."""
        ...

    def feature_name(self) -> list[str]:
        """The columns' names, "Column_0" and so on if none were given."""
        ...


@runtime_checkable
class Serializable(Protocol):
    """What is asked of an `onnx.ModelProto`."""

    def SerializeToString(self) -> bytes:  # noqa: N802, the name is onnx's
        """The model's bytes."""
        ...


class Model:
    """A trained model. Make one with `Model.lightgbm`, `xgboost`, `sklearn`, `torch` or `onnx`.

    Equal content makes equal digests.
    """

    __trimtab_codec__ = "trimtab.models.codec:ModelCodec"

    def __init__(
        self,
        specification: Specification,
        content: bytes,
        example: Mapping[str, Sequence[Any]],
        predictor: Predictor,
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        self.specification = specification
        self.content = content
        self.example = dict(example)
        self._predictor = predictor
        self._files = files

    @classmethod
    def lightgbm(
        cls,
        booster: Booster | str,
        inputs: Inputs,
        *,
        target: str,
        output: Transform = "identity",
        clip: tuple[float | None, float | None] = (None, None),
    ) -> Self:
        """Package a LightGBM Booster (or its text), trained on `inputs.matrix(rows)`.

        `output` is applied to what the Booster predicts (a binary objective already gives probabilities);
        a target learned as log1p has output="expm1". Then answers are clipped to `clip`: (minimum, maximum).
        """
        if isinstance(booster, str):
            text = booster
        elif isinstance(booster, Booster):
            text = booster.model_to_string()
            _check_names(booster.feature_name(), inputs.names)
        else:
            raise InvalidInputError(
                f"{type(booster).__name__} is no lightgbm.Booster.",
                hint="Of a scikit-learn wrapper, give its attribute booster_.",
            )
        return cls._make(
            "lightgbm", "model.txt", text.encode(), inputs, target, output, clip, LIGHTGBM_TOLERANCE, {}
        )

    @classmethod
    def onnx(
        cls,
        model: bytes | Serializable,
        inputs: Inputs,
        *,
        target: str,
        output: Transform = "identity",
        clip: tuple[float | None, float | None] = (None, None),
        result: str = "",
        tolerance: float = ONNX_TOLERANCE,
    ) -> Self:
        """Package an ONNX model (or its bytes) that takes one matrix of float or double.

        `result` names the output to serve, the first if not given; of two columns the second is served.
        `tolerance` is how far, relatively, another processor's answers may lie from this one's.
        """
        content = model.SerializeToString() if isinstance(model, Serializable) else bytes(model)
        options = {"result": result} if result else {}
        return cls._make("onnx", "model.onnx", content, inputs, target, output, clip, tolerance, options)

    @classmethod
    def xgboost(
        cls,
        model: Any,
        inputs: Inputs,
        *,
        target: str,
        output: Transform = "identity",
        clip: tuple[float | None, float | None] = (None, None),
    ) -> Self:
        """Package an XGBoost model trained on `inputs.matrix(rows)`: a Booster, an estimator of its
        scikit-learn interface, or the bytes of its JSON or UBJSON file.

        An estimator that stopped early is served with its best iteration, as it predicts itself; a binary
        classifier with the probability of its second class. Raises InvalidInputError for more classes.
        """
        from trimtab.models.runtimes.xgboost import native  # noqa: PLC0415  (nothing else here needs it)

        content, options = native(model, inputs.names)
        file = "model.ubj" if content[:2] in (b"{L", b"{i", b"{U", b"{l", b"{I") else "model.json"
        return cls._make("xgboost", file, content, inputs, target, output, clip, XGBOOST_TOLERANCE, options)

    @classmethod
    def sklearn(
        cls,
        estimator: Any,
        inputs: Inputs,
        *,
        target: str,
        rows: pl.DataFrame | None = None,
        answer: Literal["probability", "label"] = "probability",
        output: Transform = "identity",
        clip: tuple[float | None, float | None] = (None, None),
        tolerance: float = EXACT_TOLERANCE,
    ) -> Self:
        """Package a fitted scikit-learn estimator or pipeline as ONNX (the extra `onnx`).

        It was fitted on a frame with the columns of `inputs` by name, or on `inputs.matrix(rows)`. Of a
        classifier of two classes the probability of the second (`classes_[1]`) is served, or with
        `answer="label"` the class, which has to be a number.

        The converted model is compared with the original on the example rows of `inputs`, on `rows`
        (held-out ones: give them), on both moved at random, and without each column that may be missing.
        Raises InvalidInputError with the measured difference if it is above `tolerance`, relative to the
        larger of 1 and the answer, or if there is no conversion at all. A value that the estimator refuses,
        such as a category that its OneHotEncoder does not know, is refused at request time as well.
        """
        made = _converted(estimator, inputs, rows, answer, tolerance)
        options = {"converted_from": _origin(estimator), **made.notes}
        return cls._make(
            "onnx", "model.onnx", made.content, made.inputs, target, output, clip, tolerance, options
        )

    @classmethod
    def torch(
        cls,
        program: Any,
        inputs: Inputs,
        *,
        target: str,
        rows: pl.DataFrame | None = None,
        output: Transform = "identity",
        clip: tuple[float | None, float | None] = (None, None),
        tolerance: float | None = None,
    ) -> Self:
        """Package a PyTorch program (the extra `torch`): a `torch.export.ExportedProgram`, the path or the
        bytes of its .pt2 file (of one that you trust: reading it may run code), or a `torch.nn.Module`,
        which is exported in evaluation mode.

        It takes one matrix as `inputs.matrix` makes it, of float32 or float64 and with any number of rows,
        and gives one number for each row. It is converted to ONNX if that answers alike, on the example rows,
        on `rows` (held-out ones: give them), on both moved at random, without each column that may be
        missing, and with unknown categories. `tolerance` is relative to the larger of 1 and the answer; if
        not given, 1e-5 in single and 1e-9 in double precision. Otherwise the program is kept as it is, a
        warning says why, and a gateway serves it in a process of its own if its setting `confined_models`
        allows that.

        Raises InvalidInputError for a program with a fixed number of rows (and says how to export it), with
        other inputs or answers, or whose answers change, as with dropout.
        """
        try:
            # PyTorch, 2 s and 300 MB: only for who trained with it.
            from trimtab.models.conversion.torch_conversion import packaged  # noqa: PLC0415  (see above)
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "torch", "torch") from error
        made = packaged(program, inputs, rows=rows, tolerance=tolerance)
        return cls._make(
            made.runtime,
            made.file,
            made.content,
            made.inputs,
            target,
            output,
            clip,
            made.tolerance,
            made.options,
        )

    @classmethod
    def _make(
        cls,
        runtime: str,
        file: str,
        content: bytes,
        inputs: Inputs,
        target: str,
        output: Transform,
        clip: tuple[float | None, float | None],
        tolerance: float,
        options: dict[str, str],
    ) -> Self:
        if target in inputs.names:
            raise InvalidInputError(
                f"The target '{target}' is among the model's inputs.", hint="Leave it out of the inputs."
            )
        draft = Specification(
            runtime=runtime,
            file=file,
            file_digest=digest_bytes(content),
            signature=inputs.signature,
            output=Output(output, *(None if bound is None else float(bound) for bound in clip)),
            target=target,
            expected=(),
            tolerance=tolerance,
            options=options,
        )
        loaded = deferred_runtime_of(draft, content)
        made = Predictor(draft, loaded).predict(inputs.example)
        if not made.size or not np.isfinite(made).all():
            raise InvalidInputError(
                f"The model answers its example rows with {made.tolist()}.",
                hint="A model must give a finite number for rows that it was trained on.",
            )
        specification = msgspec.structs.replace(draft, expected=tuple(made.tolist()))
        return cls(specification, content, inputs.example, Predictor(specification, loaded))

    def __reduce__(self) -> tuple[object, ...]:
        """For copies, and for values in which a model is only a part."""
        return _restored, (type(self), self.specification, self.content, self.example, dict(self._files))

    @property
    def signature(self) -> Signature:
        """The input columns."""
        return self.specification.signature

    @property
    def target(self) -> str:
        """The name of what is predicted."""
        return self.specification.target

    def with_steps(
        self,
        rows: pl.DataFrame,
        *,
        before: Callable[..., pl.DataFrame] | None = None,
        after: Callable[..., Any] | None = None,
        columns: Sequence[str] | None = None,
        exclude: Collection[str] = (),
        nullable: bool | Collection[str] = (),
    ) -> Self:
        """The same model, packed with what is done to rows before it and to answers behind it.

        `before` makes the model's columns of a frame of raw ones: a function or a `@step` at the top level of
        a module, with one row in its answer for each, in order. `after` makes other answers of the model's,
        which are an array; with a second parameter it gets the raw rows as well. What either needs to know of
        training is passed in by name: `functools.partial(prepare, mean=mean)`.

        `rows` are raw ones of training's, or held-out ones. They give the types of the raw columns (all but
        the target, unless `columns` or `exclude` say otherwise) and the example, and they are what the steps
        are checked on: each row alone has to give what all together give, and the packed code in a fresh
        process the very numbers that the functions give here. A column may be missing at request time if it
        has nulls in `rows`, or is named in `nullable` (True: all may).

        The source that the functions need is packed, and runs where the model is asked, in a process of its
        own; a gateway needs its setting `confined_models` to allow that. Raises InvalidInputError.
        """
        # Reading source and starting processes: only for who packs steps.
        from trimtab.models.step_packaging import Inner, with_steps  # noqa: PLC0415  (see above)

        inner = Inner(self.specification, self.content, self.example, self._predictor)
        return self._of(
            with_steps(inner, rows, before, after, columns=columns, exclude=exclude, nullable=nullable)
        )

    @classmethod
    def _of(cls, made: Packed) -> Self:
        return cls(made.specification, made.content, made.example, PackedPredictor(made), made.files)

    def predict(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """One answer for each row; columns that are no inputs are ignored. Raises InvalidInputError."""
        return self._predictor.predict(frame_columns(rows, self.signature), ignore_unknown=True)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as an MLmodel folder, which must not exist yet or be empty.

        The same model gives the same files, byte for byte, in the same environment.
        """
        write_model(self.specification, self.content, self.example, Path(folder), self._files)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a folder written by `save`. Raises what `load_predictor` raises.

        A PyTorch program that was not converted is read when it is first asked, since that may run code, and
        so are steps.
        """
        path = Path(folder)
        specification = read_specification(path)
        if specification.has_steps:
            return cls._of(read_packed(path))
        predictor = load_trusted(path, defer=True)
        return cls(specification, read_model_file(path, specification), read_example(path), predictor)


def _converted(
    estimator: Any,
    inputs: Inputs,
    rows: pl.DataFrame | None,
    answer: Literal["probability", "label"],
    tolerance: float,
) -> Converted:
    try:
        # scikit-learn and skl2onnx, 2 s and 200 MB: only for who trained with them.
        from trimtab.models.conversion.sklearn_conversion import converted  # noqa: PLC0415  (see above)
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "skl2onnx", "onnx") from error
    return converted(estimator, inputs, rows=rows, answer=answer, tolerance=tolerance)


def _origin(estimator: Any) -> str:
    from trimtab.models.conversion.sklearn_conversion import origin  # noqa: PLC0415  (loaded already)

    return origin(estimator)


def _check_names(trained: list[str], declared: list[str]) -> None:
    generated = [f"Column_{place}" for place in range(len(trained))]
    # LightGBM writes blanks in names as underscores.
    if trained not in (generated, declared, [name.replace(" ", "_") for name in declared]):
        raise InvalidInputError(
            f"The booster was trained on the columns {trained} and its inputs declare {declared}.",
            hint="Train it on inputs.matrix(rows) with feature_name=inputs.names.",
        )


def _restored(
    kind: type[Model],
    specification: Specification,
    content: bytes,
    example: dict[str, Sequence[Any]],
    files: dict[str, bytes],
) -> Model:
    if specification.has_steps:
        made = Packed(specification, content, {name: list(example[name]) for name in example}, files)
        return kind(specification, content, example, PackedPredictor(made), files)
    predictor = Predictor(specification, deferred_runtime_of(specification, content))
    return kind(specification, content, example, predictor)
