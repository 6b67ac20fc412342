"""The example project, as `trimtab init --example bikes` writes it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from trimtab.data.contracts import Contract
from trimtab.data.datasets import Datasets
from trimtab.errors import ConflictError, unknown
from trimtab.pipelines.project import import_project_object
from trimtab.workspace import Workspace

EXAMPLES = {"bikes": Path(__file__).parent / "bikes"}
"""The folder of each example: its `project` to copy, its data, and where the data comes from."""


HISTORY_ENDS = datetime(2011, 9, 1, tzinfo=UTC)
"""The rows before are what a first model learns from; the later ones are what comes in afterwards."""

DATASET = "rentals"


def load_rentals() -> pl.DataFrame:
    """The shipped rentals, one row an hour, ordered by `at`."""
    return pl.read_parquet(EXAMPLES["bikes"] / "rentals.parquet")


def by_month(rentals: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows of each month, oldest first."""
    months = rentals.with_columns(month=pl.col("at").dt.truncate("1mo"))
    return months.partition_by("month", maintain_order=True, include_key=False)


def append_history(workspace: Workspace) -> None:
    """Make the example's dataset with its contract, and append the history month by month."""
    contract = import_project_object(workspace.project, "loop:Rentals")
    assert isinstance(contract, type)
    assert issubclass(contract, Contract)
    datasets = Datasets(workspace)
    datasets.create(DATASET, contract=contract, time="at")
    for month in by_month(pl.read_parquet(workspace.project / "data" / "history.parquet")):
        datasets.append(DATASET, month, key=f"history {month['at'][0]:%Y-%m}")


def start_example(name: str, folder: Path) -> list[Path]:
    """Write an example project with a workspace that holds its history; see `write_example`."""
    files = write_example(name, folder)
    with Workspace.create(folder) as workspace:
        append_history(workspace)
    return files


def write_example(name: str, folder: Path) -> list[Path]:
    """Write an example project into a folder that is empty or not there; answers the files.

    Raises NotFoundError for an unknown example, ConflictError if the folder holds anything.
    """
    if name not in EXAMPLES:
        raise unknown("example", name, EXAMPLES)
    if folder.exists() and any(folder.iterdir()):
        raise ConflictError(f"The folder {folder} is not empty.", hint="Name another one with --dir.")
    source = EXAMPLES[name]
    shutil.copytree(
        source / "project", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    (folder / "data").mkdir(exist_ok=True)
    rentals = load_rentals()
    rentals.filter(pl.col("at") < HISTORY_ENDS).write_parquet(folder / "data" / "history.parquet")
    rentals.filter(pl.col("at") >= HISTORY_ENDS).write_parquet(folder / "data" / "later.parquet")
    shutil.copy(source / "ATTRIBUTION.md", folder / "data")
    return sorted(path for path in folder.rglob("*") if path.is_file())
