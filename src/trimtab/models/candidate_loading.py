"""Loading what gates ask: models that Trimtab packaged, and those that only MLflow can load.

The second kind runs its own code when it is loaded and asked (most are pickles), so only a process that may
run users' code loads candidates: a worker's child, or the one that `trimtab.models.validation` starts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from trimtab.errors import ModelCorruptError
from trimtab.models.candidates import Candidate, Input, Kind, Numbers, refusals
from trimtab.models.inputs import frame_columns
from trimtab.models.packed import load_packaged
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.signature import Column
from trimtab.models.specification import MLMODEL_FILE, SPECIFICATION_FILE


class Packaged:
    """A model that the gateway could serve."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def target(self) -> str:
        """What it predicts."""
        return self._predictor.target

    @property
    def inputs(self) -> Mapping[str, Input]:
        """Its input columns."""
        columns = self._predictor.signature.columns
        return {column.name: Input(_kind(column), not column.nullable) for column in columns}

    def answers(self, rows: pl.DataFrame) -> Numbers:
        """One number for each row."""
        columns = frame_columns(rows, self._predictor.signature)
        return self._predictor.predict(columns, ignore_unknown=True)

    def singles(self, rows: pl.DataFrame) -> list[Callable[[], object]]:
        """For each row a call that answers it alone."""
        columns = frame_columns(rows, self._predictor.signature)
        each = [{name: [values[row]] for name, values in columns.items()} for row in range(rows.height)]
        predict = self._predictor.predict
        return [functools.partial(predict, row) for row in each]

    def refusals_of(self, champion: Candidate) -> Iterator[str]:
        """Why a request that `champion` accepts might be refused here."""
        if isinstance(champion, Packaged):
            yield from self._predictor.signature.refusals_of(champion._predictor.signature)
        else:
            yield from refusals(self.inputs, champion.inputs)

    def close(self) -> None:
        """Free its memory."""
        self._predictor.close()


def load_candidate(folder: Path, *, not_inputs: tuple[str, ...] = ()) -> Candidate:
    """Load the model in a folder. May run its code.

    `not_inputs` are columns of the rows that no model may see, where it does not say what it takes. Raises
    ModelCorruptError, or RefusedError, for a folder that holds no model that can be asked, and
    MissingExtraError where a package is missing that it needs.
    """
    if (folder / SPECIFICATION_FILE).is_file():
        return Packaged(load_packaged(folder))
    if not (folder / MLMODEL_FILE).is_file():
        raise ModelCorruptError(
            f"It is not a model folder: it has no file '{MLMODEL_FILE}'.",
            hint="Log it with mlflow.<flavor>.log_model(...), and register that.",
        )
    # mlflow: 2 s and 150 MB, and pandas, which models that Trimtab packaged need nowhere.
    from trimtab.models.mlflow_candidate import MlflowCandidate  # noqa: PLC0415, see above

    return MlflowCandidate.load(folder, not_inputs)


def _kind(column: Column) -> Kind:
    if column.kind == "category":
        first: Any = column.categories[0]
        return "text" if isinstance(first, str) else "number"
    return column.kind
