"""Writing a model as an MLmodel folder: `mlflow.pyfunc.load_model` opens it, `load_predictor` serves it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import yaml

from trimtab.digest import digest_json
from trimtab.errors import ConflictError
from trimtab.models.signature import Column
from trimtab.models.specification import EXAMPLE_FILE, MLMODEL_FILE, SPECIFICATION_FILE, Specification

LOADER = "trimtab.models.pyfunc"
REQUIREMENTS_FILE = "requirements.txt"
ENVIRONMENT_FILE = "python_env.yaml"

# What each runtime needs where `mlflow.pyfunc` serves the folder.
_RUNTIME_PACKAGES = {"lightgbm": ["lightgbm"], "onnx": ["onnxruntime"]}


def write_model(
    specification: Specification, content: bytes, example: Mapping[str, Sequence[object]], folder: Path
) -> None:
    """Write a model into `folder`, which must not exist yet or be empty (ConflictError otherwise).

    `content` are the model file's bytes, `example` the input example by column.

    Nothing in it depends on when, where or how often it is written: equal models give equal folders, as
    long as the versions of Python and of the packages named in requirements.txt are the same.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(f"'{folder}' already exists and is not an empty folder.", hint="Choose another.")
    folder.mkdir(parents=True, exist_ok=True)
    names = specification.signature.names
    rows = [list(row) for row in zip(*(example[name] for name in names), strict=True)]
    (folder / specification.file).write_bytes(content)
    (folder / SPECIFICATION_FILE).write_bytes(specification.to_json())
    (folder / EXAMPLE_FILE).write_bytes(msgspec.json.encode({"columns": names, "data": rows}) + b"\n")
    (folder / REQUIREMENTS_FILE).write_text("".join(f"{line}\n" for line in _requirements(specification)))
    environment = {
        "python": platform.python_version(),
        "build_dependencies": ["pip"],
        "dependencies": [f"-r {REQUIREMENTS_FILE}"],
    }
    (folder / ENVIRONMENT_FILE).write_text(yaml.safe_dump(environment, sort_keys=False))
    (folder / MLMODEL_FILE).write_text(yaml.safe_dump(_mlmodel(specification, example), sort_keys=True))


def _mlmodel(specification: Specification, example: Mapping[str, Sequence[object]]) -> dict[str, Any]:
    """The MLmodel document."""
    # mlflow must not report anybody's use of Trimtab to its makers; it looks when it is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # 1.5 s and 150 MB: loaded only by the process that writes a model.
    from mlflow.models.model import Model as MLmodel
    from mlflow.types.schema import ColSpec, DataType, Schema, TensorSpec

    document = MLmodel(
        model_uuid=digest_json(specification).removeprefix("b3:")[:32],
        saved_input_example_info={
            "artifact_path": EXAMPLE_FILE,
            "type": "dataframe",
            "pandas_orient": "split",
        },
    )
    document.add_flavor(
        "python_function",
        loader_module=LOADER,
        python_version=platform.python_version(),
        env={"virtualenv": ENVIRONMENT_FILE},
    )
    document.add_flavor(
        "trimtab",
        runtime=specification.runtime,
        file=specification.file,
        specification=SPECIFICATION_FILE,
        trimtab_version=version("trimtab"),
    )
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(
            DataType[_mlflow_type(column, example[column.name])],
            column.name,
            required=not column.nullable,
        )
        for column in specification.signature.columns
    ]
    written = {name: value for name, value in document.to_dict().items() if value is not None}
    # The moment of writing would make equal models differ.
    del written["utc_time_created"]
    # What mlflow's ModelSignature writes; that class cannot be imported without pandas.
    written["signature"] = {
        "inputs": Schema(inputs).to_json(),
        "outputs": Schema([ColSpec(DataType.double, specification.target)]).to_json(),
        "params": None,
    }
    return written


def _mlflow_type(column: Column, example: Sequence[object]) -> str:
    if column.kind == "category":
        return "string" if isinstance(column.categories[0], str) else "long"
    if column.kind == "boolean":
        return "boolean"
    # mlflow refuses to take whole numbers as a double; pandas has whole numbers only where none is missing.
    whole = not column.nullable and all(type(value) is int for value in example)
    return "long" if whole else "double"


def _requirements(specification: Specification) -> list[str]:
    packages = ["mlflow-skinny", "numpy", "trimtab", *_RUNTIME_PACKAGES.get(specification.runtime, [])]
    return [f"{package}=={version(package)}" for package in sorted(packages)]
