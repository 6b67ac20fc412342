"""`trimtab.json`: what a predictor needs to know of a packaged model, beside the model's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from trimtab.digest import digest_bytes
from trimtab.errors import ModelCorruptError, RefusedError
from trimtab.models.signature import Output, Signature

SPECIFICATION_FILE = "trimtab.json"
EXAMPLE_FILE = "input_example.json"
MLMODEL_FILE = "MLmodel"
FORMAT = 1

STEPS_RUNTIME = "steps"
"""The runtime of a model that is packed with the steps before and behind it: their code runs in a process of
its own."""
EXPRESSIONS_RUNTIME = "expressions"
"""The same, where the step before it is expressions alone, which any process may read and apply."""

_encoder = msgspec.json.Encoder(order="sorted")


class Specification(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How to serve the model file: which runtime, what goes in, what is done to what comes out.

    `expected` are the answers to the rows of `input_example.json`, which each load must reproduce within
    `tolerance` (relative to the larger of 1 and the expected answer). `options` belong to the runtime.
    """

    format: int = msgspec.field(default=FORMAT)
    runtime: str
    file: str
    file_digest: str
    signature: Signature
    output: Output
    target: str
    expected: tuple[float, ...]
    tolerance: float
    options: dict[str, str] = {}

    @property
    def has_steps(self) -> bool:
        """Whether the model is packed with steps around an inner one."""
        return self.runtime in (STEPS_RUNTIME, EXPRESSIONS_RUNTIME)

    def to_json(self) -> bytes:
        """The file's bytes: keys sorted, indented, so that equal specifications are equal bytes."""
        document = {"format": self.format, **msgspec.to_builtins(self)}
        return msgspec.json.format(_encoder.encode(document), indent=2) + b"\n"


class InputExample(msgspec.Struct, frozen=True):
    """`input_example.json`, in the "split" orientation that MLflow reads."""

    columns: list[str]
    data: list[list[int | float | bool | str | None]]

    def as_columns(self) -> dict[str, list[Any]]:
        """The example rows by column."""
        return {name: [row[place] for row in self.data] for place, name in enumerate(self.columns)}


def read_specification(folder: Path) -> Specification:
    """Read a model folder's specification.

    Raises RefusedError for an MLmodel folder that only pickled code could serve, ModelCorruptError for one
    that cannot be understood.
    """
    if not (folder / MLMODEL_FILE).is_file():
        raise ModelCorruptError(
            f"'{folder}' is not a model folder: it has no file '{MLMODEL_FILE}'.",
            hint="Package the model with trimtab.Model(...).save(folder).",
        )
    if not (folder / SPECIFICATION_FILE).exists():
        raise _unservable(folder)
    data = read_confined(folder, SPECIFICATION_FILE)
    try:
        specification = msgspec.json.decode(data, type=Specification)
    except (msgspec.DecodeError, ValueError) as error:
        raise ModelCorruptError(f"'{folder / SPECIFICATION_FILE}' cannot be understood: {error}.") from error
    if specification.format > FORMAT:
        raise ModelCorruptError(
            f"'{folder}' has the format {specification.format}, and this Trimtab knows up to {FORMAT}.",
            hint="Upgrade Trimtab where the model is served.",
        )
    return specification


def read_model_file(folder: Path, specification: Specification) -> bytes:
    """The model file's bytes, checked against the recorded digest."""
    content = read_confined(folder, specification.file)
    found = digest_bytes(content)
    if found != specification.file_digest:
        raise ModelCorruptError(
            f"'{folder / specification.file}' was changed after packaging: its digest is {found} "
            f"and {specification.file_digest} was recorded.",
            hint="Fetch the model version again.",
        )
    return content


def read_example(folder: Path) -> dict[str, list[Any]]:
    """The input example by column."""
    try:
        return msgspec.json.decode(read_confined(folder, EXAMPLE_FILE), type=InputExample).as_columns()
    except (msgspec.DecodeError, IndexError) as error:
        raise ModelCorruptError(f"'{folder / EXAMPLE_FILE}' cannot be understood: {error}.") from error


def read_confined(folder: Path, name: str) -> bytes:
    """The bytes of a file inside `folder`. Raises ModelCorruptError for a path that leads out of it."""
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or path == root:
        raise ModelCorruptError(
            f"The model folder '{folder}' names the file '{name}', which lies outside it."
        )
    if not path.is_file():
        raise ModelCorruptError(f"The model folder '{folder}' has no file '{name}'.")
    return path.read_bytes()


def _unservable(folder: Path) -> RefusedError:
    text = read_confined(folder, MLMODEL_FILE).decode("utf-8", "replace")
    pickled = [
        word for word in ("cloudpickle", "pickle", "mlflow.pyfunc.model", "mlflow.sklearn") if word in text
    ]
    reason = (
        f"it can only be served by unpickling code ({pickled[0]}), which may run anything"
        if pickled
        else f"it has no '{SPECIFICATION_FILE}' that says how to serve it without running its code"
    )
    return RefusedError(
        f"The model in '{folder}' is refused: {reason}.",
        hint="Package it with trimtab.Model (sklearn, lightgbm, xgboost, torch, onnx), convert it with "
        "`trimtab model convert`, or allow it a process of its own by the setting confined_models.",
    )
