"""Labels that come by other ways than the gateway: a file, a table, a message to the server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from trimtab.digest import digest_json
from trimtab.errors import InvalidInputError
from trimtab.monitoring.outcomes import LabelCounts, LabelRecord, record_labels
from trimtab.serving.columnar import feedback_columns, feedback_table
from trimtab.serving.frames import LabelFrame
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

FORMS = "Give the columns id and label, or key, at and label."


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
    times = _times(rows)
    known = to_microseconds(known_at)
    return [
        LabelRecord(endpoint=endpoint, label=label, labelled_at=known, id=id, key=key, at=at)
        for id, key, at, label in zip(ids, keys, times, values, strict=True)
    ]


def tell_labels(workspace: Workspace, labels: Sequence[LabelRecord]) -> LabelCounts:
    """Join labels of one endpoint to their predictions, and keep them in its table of feedback.

    The table is written first and once, by what the labels say; so a repetition after a crash doubles none.
    """
    frames = [
        LabelFrame(label.endpoint, label.label, label.labelled_at, label.id, label.key, label.at)
        for label in labels
    ]
    told = digest_json([[label.id, label.key, label.at, label.label] for label in labels])
    workspace.tables.append(feedback_table(labels[0].endpoint), feedback_columns(frames), transaction_id=told)
    return workspace.write(lambda tx: record_labels(tx, labels))


def _texts(rows: pl.DataFrame, name: str) -> Sequence[str | None]:
    if name not in rows.columns:
        return [None] * rows.height
    return rows[name].cast(pl.String).to_list()


def _times(rows: pl.DataFrame) -> Sequence[int | None]:
    if "at" not in rows.columns:
        return [None] * rows.height
    times = rows["at"]
    if not isinstance(times.dtype, pl.Datetime):
        raise InvalidInputError(f"The column 'at' holds {times.dtype}, not times.")
    return times.dt.epoch("us").to_list()
