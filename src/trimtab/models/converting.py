"""Converting a registered version in a process of its own, since loading the original runs its code.

python -m trimtab.models.converting    reads one Assignment, answers on standard output
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import msgspec
import polars as pl

from trimtab import errors
from trimtab.data.datasets import Datasets
from trimtab.errors import ConflictError, StepFailedError, TrimtabError
from trimtab.models.contents import address_of, is_address
from trimtab.models.registry import Registry
from trimtab.models.signature import Signature
from trimtab.models.specification import SPECIFICATION_FILE
from trimtab.models.versions import ModelVersion, VersionRecord
from trimtab.workspace import Workspace

MOST_ROWS = 20_000
"""Rows of a dataset that a conversion is compared on; of more, so many spread evenly."""


class Assignment(msgspec.Struct, frozen=True):
    """The original's folder, where to write, and the file of the rows to compare on."""

    folder: str
    to: str
    rows: str | None
    answer: Literal["probability", "label"] | None
    tolerance: float | None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What was made, or the error by its class in `trimtab.errors`."""

    flavor: str = ""
    runtime: str = ""
    rows: int = 0
    difference: float = 0.0
    signature: Signature | None = None
    notes: dict[str, str] = {}
    error: str = ""
    message: str = ""
    hint: str = ""


def convert_version(
    workspace: Workspace,
    name: str,
    version: int,
    *,
    dataset: str | None = None,
    answer: Literal["probability", "label"] | None = None,
    tolerance: float | None = None,
) -> tuple[ModelVersion, Told]:
    """Make a version that any gateway serves of one that MLflow's clients logged, and register it.

    `dataset` has rows to compare on; give those that training has not seen. Raises ConflictError for a
    version that needs no conversion, InvalidInputError with the reason why it cannot be converted exactly.
    """
    registry = Registry(workspace)
    original = registry.get_version(name, version)
    if is_address(workspace, original.digest):
        raise ConflictError(
            f"The files of version {version} of '{name}' are elsewhere, at "
            f"{address_of(workspace, original.digest)}.",
            hint="Fetch them, and register their folder.",
        )
    if SPECIFICATION_FILE in workspace.blobs.manifest(original.digest).files:
        raise ConflictError(
            f"Version {version} of '{name}' is served as it is.", hint="There is nothing to convert."
        )
    with tempfile.TemporaryDirectory(prefix="trimtab-convert-") as made:
        place = Path(made)
        workspace.blobs.fetch_tree(original.digest, place / "original")
        rows = None if dataset is None else _written(workspace, dataset, place / "rows.parquet")
        told = _converted(Assignment(str(place / "original"), str(place / "made"), rows, answer, tolerance))
        digest = workspace.blobs.put_tree(place / "made")
    compared = f", within {told.difference:.2g} of it on {told.rows} rows" if told.rows else ""
    description = f"version {version} converted from {told.flavor} to {told.runtime}{compared}"
    record = VersionRecord(signature=told.signature)
    registered = workspace.write(
        lambda tx: registry.register(
            tx,
            name,
            digest,
            run_id=original.run_id,
            source=f"models:/{name}/{version}",
            description=description,
            record=record,
        )
    )
    return registered, told


def _written(workspace: Workspace, dataset: str, file: Path) -> str:
    datasets = Datasets(workspace)
    rows = datasets.read(dataset, datasets.version(dataset).number)
    if rows.height > MOST_ROWS:
        rows = rows.gather_every(-(-rows.height // MOST_ROWS))
    rows.write_parquet(file)
    return str(file)


def _converted(assignment: Assignment) -> Told:
    command = [sys.executable, "-m", "trimtab.models.converting"]
    ended = subprocess.run(
        command, input=msgspec.json.encode(assignment), stdout=subprocess.PIPE, check=False
    )
    try:
        told = msgspec.json.decode(ended.stdout, type=Told)
    except msgspec.DecodeError:
        raise StepFailedError(
            f"The process that converted the model ended with status {ended.returncode} and said nothing.",
            hint="Its last words stand above.",
        ) from None
    if told.error:
        found = getattr(errors, told.error, StepFailedError)
        raise found(told.message, hint=told.hint)
    return told


def main() -> None:
    """Read an assignment, convert, answer."""
    answering = os.dup(1)
    os.dup2(2, 1)  # what the model prints is not the answer
    assignment = msgspec.json.decode(sys.stdin.buffer.read(), type=Assignment)
    try:
        # mlflow and the model's own packages: only this process may load them.
        from trimtab.models.mlflow_conversion import convert_folder  # noqa: PLC0415, see above

        rows = None if assignment.rows is None else pl.read_parquet(assignment.rows)
        made = convert_folder(
            Path(assignment.folder), rows, answer=assignment.answer, tolerance=assignment.tolerance
        )
        made.model.save(assignment.to)
        said = made.model.specification
        told = Told(
            flavor=made.flavor,
            runtime=said.runtime,
            rows=made.rows,
            difference=made.difference,
            signature=said.signature,
            notes=said.options,
        )
    except TrimtabError as error:
        told = Told(error=type(error).__name__, message=error.message, hint=error.hint)
    with os.fdopen(answering, "wb") as out:
        out.write(msgspec.json.encode(told))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of the model's may go on for ever


if __name__ == "__main__":
    main()
