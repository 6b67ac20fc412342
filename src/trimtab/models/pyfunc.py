"""What `mlflow.pyfunc.load_model` loads a Trimtab model through (the MLmodel's `loader_module`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.models.packed import load_packaged
from trimtab.models.runtimes.predictor import Predictor


class PandasFrame(Protocol):
    """What is asked of a pandas data frame."""

    @property
    def columns(self) -> Any:
        """The columns' names."""
        ...

    def __getitem__(self, name: str) -> Any: ...


class PyfuncModel:
    """A Trimtab model behind MLflow's interface."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: PandasFrame, params: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """One answer for each row of a pandas data frame. There are no params."""
        columns = {str(name): _values(model_input[name]) for name in model_input.columns}
        return self._predictor.predict(columns, ignore_unknown=True)


def _load_pyfunc(path: str) -> PyfuncModel:
    """Called by MLflow with the model's folder."""
    return PyfuncModel(load_packaged(Path(path)))


def _values(series: Any) -> NDArray[Any] | list[Any]:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "iufb":
        values: NDArray[Any] = series.to_numpy()
        return values
    # pandas marks what is missing in columns of objects with several values of its own.
    return [None if missing else value for value, missing in zip(series.tolist(), series.isna(), strict=True)]
