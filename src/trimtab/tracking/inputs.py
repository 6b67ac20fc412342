"""What went into a run and came out of it: datasets by name and digest, and logged models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from sqlalchemy import Connection, func, select

from trimtab.store.database import Transaction
from trimtab.store.prepared import Prepared, among
from trimtab.store.upsert import upsert
from trimtab.tracking.params_and_tags import checked_text
from trimtab.tracking.runs import number_of
from trimtab.tracking.schema import run_datasets_table as datasets
from trimtab.tracking.schema import run_models_table as models

CONTEXT_TAG = "mlflow.data.context"

_DATASETS = Prepared(
    select(datasets).where(among(datasets.c.run, "runs")).order_by(datasets.c.run, datasets.c.place)
)
_MODELS = Prepared(select(models).where(among(models.c.run, "runs")).order_by(models.c.run, models.c.model))


class RunDataset(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset as MLflow's clients describe it; `source`, `schema` and `profile` are texts of theirs."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: dict[str, str] = {}


class ModelUse(msgspec.Struct, frozen=True):
    """A logged model that a run read ("in") or made ("out")."""

    model: str
    direction: Literal["in", "out"]
    step: int = 0


def log_datasets(tx: Transaction, run_id: str, used: Sequence[RunDataset]) -> None:
    """Note datasets that went into a run; one that is noted already, by name and digest, stays as it is."""
    number = number_of(tx.connection, run_id)
    place = tx.execute(select(func.count()).where(datasets.c.run == number)).scalar_one()
    rows = [
        {
            "run": number,
            "name": checked_text("the dataset's name", dataset.name),
            "digest": checked_text("the dataset's digest", dataset.digest),
            "place": place + index,
            "source_type": checked_text("the source's type", dataset.source_type),
            "source": checked_text("the source", dataset.source),
            "schema": dataset.schema,
            "profile": dataset.profile,
            "context": dataset.tags.get(CONTEXT_TAG),
            "tags": dataset.tags,
        }
        for index, dataset in enumerate(used)
    ]
    upsert(tx, datasets, rows, keys=["run", "name", "digest"], update=[])


def log_models(tx: Transaction, run_id: str, used: Sequence[ModelUse]) -> None:
    """Note logged models that a run read or made."""
    number = number_of(tx.connection, run_id)
    rows = [{"run": number, "direction": use.direction, "model": use.model, "step": use.step} for use in used]
    upsert(tx, models, rows, keys=["run", "direction", "model"])


def datasets_of(connection: Connection, numbers: Sequence[int]) -> Iterator[tuple[int, RunDataset]]:
    """The datasets of runs, given by their numbers, each with its run's number."""
    for row in _DATASETS.rows(connection, runs=numbers):
        yield (
            row.run,
            RunDataset(
                name=row.name,
                digest=row.digest,
                source_type=row.source_type,
                source=row.source,
                schema=row.schema,
                profile=row.profile,
                tags=row.tags,
            ),
        )


def models_of(connection: Connection, numbers: Sequence[int]) -> Iterator[tuple[int, ModelUse]]:
    """The logged models of runs, given by their numbers, each with its run's number."""
    for row in _MODELS.rows(connection, runs=numbers):
        yield row.run, ModelUse(row.model, row.direction, row.step)
