"""What stands before the replay begins: the project, its history as dataset versions, its loop."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import polars as pl

from trimtab.data.contracts import Contract
from trimtab.data.datasets import Datasets
from trimtab.data.sources import Sources
from trimtab.demo.driver import INCOMING, REPLAY_FROM
from trimtab.demo.example import EXAMPLES, write_example
from trimtab.errors import ConflictError
from trimtab.loop.applying import apply_reference
from trimtab.loop.replay import Replay
from trimtab.pipelines.project import import_project_object
from trimtab.workspace import Workspace

DATASET = "rentals"
MARKER = ".trimtab-demo"


def load_rentals() -> pl.DataFrame:
    """The shipped rentals, one row an hour, ordered by `at`."""
    return pl.read_parquet(EXAMPLES["bikes"] / "rentals.parquet")


def by_month(rentals: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows of each month, oldest first."""
    months = rentals.with_columns(month=pl.col("at").dt.truncate("1mo"))
    return months.partition_by("month", maintain_order=True, include_key=False)


def make_project(folder: Path) -> None:
    """Write the example project into `folder`; what an earlier demo left there is removed first.

    Raises ConflictError if the folder holds anything else.
    """
    if (folder / MARKER).exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise ConflictError(
            f"The folder {folder} is not empty, and no demo made it.", hint="Name another one with --dir."
        )
    write_example("bikes", folder)
    (folder / MARKER).touch()
    (folder / INCOMING).mkdir()


def prepare(workspace: Workspace, rentals: pl.DataFrame) -> None:
    """Start the replay, append the first eight months month by month, watch the folder, apply the loop."""
    Replay(workspace).start(REPLAY_FROM)
    contract = import_project_object(workspace.project, "loop:Rentals")
    assert isinstance(contract, type)
    assert issubclass(contract, Contract)
    datasets = Datasets(workspace)
    datasets.create(DATASET, contract=contract, time="at")
    history = rentals.filter(pl.col("at") < REPLAY_FROM)
    for month in by_month(history):
        datasets.append(DATASET, month, key=f"history {month['at'][0]:%Y-%m}")
    sources = Sources(workspace)
    sources.register(DATASET, workspace.project / INCOMING, every=timedelta(days=7), settle=timedelta(0))
    apply_reference(workspace)
