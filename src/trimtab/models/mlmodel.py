"""The MLmodel document of a model, made by mlflow's own classes.

Importing this module takes 2 s and 150 MB, so only a process that writes a model does; a worker that
forks such processes may import it beforehand.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from trimtab.digest import digest_json
from trimtab.models.signature import Column
from trimtab.models.specification import EXAMPLE_FILE, SPECIFICATION_FILE, Specification

# mlflow must not report anybody's use of Trimtab to its makers; it looks at these as it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

from mlflow.models.model import Model as MLmodel
from mlflow.types.schema import ColSpec, DataType, Schema, TensorSpec

LOADER = "trimtab.models.pyfunc"


def mlmodel_document(
    specification: Specification, example: Mapping[str, Sequence[object]], *, environment: str
) -> dict[str, Any]:
    """What the file MLmodel says. `environment` is the name of the file that lists the environment."""
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
        env={"virtualenv": environment},
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
    if column.kind == "text":
        return "string"
    # mlflow refuses to take whole numbers as a double; pandas has whole numbers only where none is missing.
    whole = not column.nullable and all(type(value) is int for value in example)
    return "long" if whole else "double"
