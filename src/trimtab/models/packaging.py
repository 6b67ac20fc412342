"""Writing a model as an MLmodel folder: `mlflow.pyfunc.load_model` opens it, `load_predictor` serves it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions, version
from pathlib import Path
from types import MappingProxyType

import msgspec
import yaml

from trimtab.errors import ConflictError
from trimtab.models.specification import (
    EXAMPLE_FILE,
    MLMODEL_FILE,
    SPECIFICATION_FILE,
    Specification,
)
from trimtab.models.steps.document import read_steps

REQUIREMENTS_FILE = "requirements.txt"
ENVIRONMENT_FILE = "python_env.yaml"

# What each runtime needs where `mlflow.pyfunc` serves the folder.
_RUNTIME_PACKAGES = {
    "lightgbm": ["lightgbm"],
    "onnx": ["onnxruntime"],
    "torch": ["torch"],
    "xgboost": ["xgboost"],
}


def write_model(
    specification: Specification,
    content: bytes,
    example: Mapping[str, Sequence[object]],
    folder: Path,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write a model into `folder`, which must not exist yet or be empty (ConflictError otherwise).

    `content` are the model file's bytes, `example` the input example by column, `files` what else belongs to
    the model, by path.

    Nothing in it depends on when, where or how often it is written: equal models give equal folders, as
    long as the versions of Python and of the packages named in requirements.txt are the same.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(f"'{folder}' already exists and is not an empty folder.", hint="Choose another.")
    folder.mkdir(parents=True, exist_ok=True)
    names = specification.signature.names
    (folder / specification.file).write_bytes(content)
    (folder / SPECIFICATION_FILE).write_bytes(specification.to_json())
    (folder / EXAMPLE_FILE).write_bytes(example_bytes(names, example))
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / REQUIREMENTS_FILE).write_text(
        "".join(f"{line}\n" for line in _requirements(specification, content))
    )
    environment = {
        "python": platform.python_version(),
        "build_dependencies": ["pip"],
        "dependencies": [f"-r {REQUIREMENTS_FILE}"],
    }
    (folder / ENVIRONMENT_FILE).write_text(yaml.safe_dump(environment, sort_keys=False))
    # mlflow: 2 s and 150 MB, needed by nobody else who packages, loads or asks models.
    from trimtab.models.mlmodel import mlmodel_document  # noqa: PLC0415, see above

    document = mlmodel_document(specification, example, environment=ENVIRONMENT_FILE)
    (folder / MLMODEL_FILE).write_text(yaml.safe_dump(document, sort_keys=True))


def example_bytes(names: Sequence[str], example: Mapping[str, Sequence[object]]) -> bytes:
    """The bytes of the file of the input example."""
    rows = [list(row) for row in zip(*(example[name] for name in names), strict=True)]
    return msgspec.json.encode({"columns": names, "data": rows}) + b"\n"


def _requirements(specification: Specification, content: bytes) -> list[str]:
    stepped = specification.has_steps
    runtime = specification.options["inner"] if stepped else specification.runtime
    packages = ["mlflow-skinny", "numpy", "trimtab", *_RUNTIME_PACKAGES.get(runtime, [])]
    # PyTorch's version says for which processor it was built, which is no version that every index has.
    versions = {package: version(package).partition("+")[0] for package in map(_installed, packages)}
    if stepped:
        versions = {**read_steps(content).packages, **versions}
    return [f"{package}=={versions[package]}" for package in sorted(versions)]


def _installed(package: str) -> str:
    """The name under which a package is installed: XGBoost's comes with and without what a GPU needs."""
    if package == "xgboost":
        return next((name for name in ("xgboost-cpu", package) if any(distributions(name=name))), package)
    return package
