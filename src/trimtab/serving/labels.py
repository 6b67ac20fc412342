"""Labels that come by other ways than the gateway: a file, or a folder or table that is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from trimtab.data.datasets import Datasets
from trimtab.data.sources import MINUTE, SETTLE, Source, Sources
from trimtab.data.spec import ColumnSpec, ColumnType, ContractSpec
from trimtab.digest import digest_json
from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.monitoring.outcomes import LabelCounts, LabelRecord, record_labels
from trimtab.serving.columnar import feedback_columns, feedback_table
from trimtab.serving.endpoints import Endpoints, labels_dataset, signing_secret
from trimtab.serving.frames import LabelFrame
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

FORMS = "Give the columns id and label, or key, at and label."

NAMES: dict[str, ColumnType] = {"id": "str", "key": "str", "at": "datetime"}
"""How the columns that name a prediction are read where they are written as text."""

CONTRACT = ContractSpec(
    "Labels",
    (
        *(ColumnSpec(name, kind, nullable=True, required=False) for name, kind in NAMES.items()),
        ColumnSpec("label", "float", description="1 and 0 for true and false"),
    ),
    unexpected="drop",
)
"""What files of labels in a folder must be."""

_AT_ONCE = 10_000
"""Labels that one transaction joins."""


def labels_from_rows(endpoint: str, rows: pl.DataFrame, known_at: datetime) -> list[LabelRecord]:
    """The labels of a frame with columns `id` and `label`, or `key`, `at` (may be left out) and `label`.

    `known_at` is the event time at which they are told. Raises InvalidInputError, naming the row, for what
    is no label.
    """
    if "label" not in rows.columns or not {"id", "key"} & set(rows.columns):
        raise InvalidInputError("These rows hold no labels.", hint=FORMS)
    if not rows.height:
        raise InvalidInputError("There are no labels: the frame is empty.")
    labels = rows["label"]
    if not (labels.dtype.is_numeric() or labels.dtype == pl.Boolean):
        raise InvalidInputError(f"The column 'label' holds {labels.dtype}, not numbers or true/false.")
    values = labels.cast(pl.Float64)
    usable = values.is_finite().fill_null(False)
    if not usable.all():
        raise InvalidInputError(f"The label of row {usable.arg_min()} is missing or not finite.")
    ids = _texts(rows, "id")
    keys = _texts(rows, "key")
    for place, (id, key) in enumerate(zip(ids, keys, strict=True)):
        if id is None and key is None:
            raise InvalidInputError(f"Row {place} names no prediction.", hint=FORMS)
        if "\0" in (id or key or ""):
            raise InvalidInputError(f"Row {place} has the character NUL in it.", hint="Leave it out.")
    times = _times(rows)
    known = to_microseconds(known_at)
    return [
        LabelRecord(endpoint=endpoint, label=label, labelled_at=known, id=id, key=key, at=at)
        for id, key, at, label in zip(ids, keys, times, values, strict=True)
    ]


def tell_labels(workspace: Workspace, labels: Sequence[LabelRecord]) -> LabelCounts:
    """Join labels of one endpoint to their predictions, and keep them in its table of feedback.

    The table is written first and once, by what the labels say; so a repetition after a crash doubles none.
    Raises NotFoundError, and tells none, if an id is not one that the endpoint gave.
    """
    if (forged := next(_forged(workspace, labels), None)) is not None:
        raise NotFoundError(
            f"The endpoint '{labels[forged].endpoint}' made no prediction with the id "
            f"'{labels[forged].id}' (row {forged}).",
            hint="Give ids as `predict` answered them, to the same endpoint.",
        )
    counts = LabelCounts()
    if not labels:
        return counts
    frames = [
        LabelFrame(label.endpoint, label.label, label.labelled_at, label.id, label.key, label.at)
        for label in labels
    ]
    told = digest_json([[label.id, label.key, label.at, label.label] for label in labels])
    workspace.tables.append(feedback_table(labels[0].endpoint), feedback_columns(frames), transaction_id=told)
    for first in range(0, len(labels), _AT_ONCE):
        some = labels[first : first + _AT_ONCE]
        more = workspace.write(lambda tx, some=some: record_labels(tx, some))  # type: ignore[misc]  # bound now
        for field in LabelCounts.__struct_fields__:
            setattr(counts, field, getattr(counts, field) + getattr(more, field))
    return counts


def watch_labels(
    workspace: Workspace,
    endpoint: str,
    folder: Path | str,
    *,
    every: timedelta = MINUTE,
    settle: timedelta = SETTLE,
) -> Source:
    """Look at a folder (or a Delta table) from now on for labels of an endpoint: see `CONTRACT`.

    They become versions of a dataset of their own, rows that are no labels go into its quarantine. The
    endpoint's loop looks at the folder. Raises NotFoundError for an unknown endpoint.
    """
    Endpoints(workspace).get(endpoint)
    name = labels_dataset(endpoint)
    Datasets(workspace).create(name, contract=CONTRACT)
    return Sources(workspace).register(name, folder, every=every, settle=settle)


def tell_version(workspace: Workspace, endpoint: str, number: int) -> LabelCounts:
    """Tell an endpoint the labels that one version of its dataset of labels added.

    Rows that name no prediction, or none that the endpoint made, are left out and counted in the journal.
    """
    datasets = Datasets(workspace)
    name = labels_dataset(endpoint)
    version = datasets.version(name, number)
    rows = datasets.read(name, number).tail(version.added) if version.added else pl.DataFrame()
    named = [column for column in ("id", "key") if column in rows.columns]
    if named:
        rows = rows.filter(pl.any_horizontal(pl.col(named).is_not_null()))
    labels = labels_from_rows(endpoint, rows, version.created_at) if named and rows.height else []
    forged = set(_forged(workspace, labels))
    counts = tell_labels(workspace, [label for place, label in enumerate(labels) if place not in forged])
    if refused := version.added - len(labels) + len(forged):
        details = {"version": number, "rows": refused, "forged ids": len(forged)}
        reason = f"{refused} of {version.added} labels name no prediction of the endpoint"
        workspace.write(
            lambda tx: tx.journal("labels.refused", "endpoint", endpoint, reason=reason, details=details)
        )
    return counts


def _forged(workspace: Workspace, labels: Sequence[LabelRecord]) -> Iterator[int]:
    """The places of labels whose id is none that the endpoint gave."""
    if any(label.id is not None for label in labels):
        ids = PredictionIds(workspace.write(signing_secret))
        for place, label in enumerate(labels):
            if label.id is not None and not ids.genuine(label.endpoint, label.id):
                yield place


def _texts(rows: pl.DataFrame, name: str) -> Sequence[str | None]:
    if name not in rows.columns:
        return [None] * rows.height
    values = rows[name]
    if values.dtype.is_float() and values.drop_nulls().is_finite().all() and (values % 1 == 0).all():
        values = values.cast(pl.Int64)  # whole numbers, written as floats because some are missing
    return values.cast(pl.String).to_list()


def _times(rows: pl.DataFrame) -> Sequence[int | None]:
    if "at" not in rows.columns:
        return [None] * rows.height
    times = rows["at"]
    if not isinstance(times.dtype, pl.Datetime):
        raise InvalidInputError(f"The column 'at' holds {times.dtype}, not times.")
    return times.dt.epoch("us").to_list()
