"""The model behind BentoML. It runs in BentoML's environment; BENCH_MODEL names the pickle."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import bentoml  # type: ignore[import-not-found]  # it is in an environment of its own
import numpy as np


@bentoml.service(workers=int(os.environ.get("BENCH_WORKERS", "1")))
class Bench:
    """One model."""

    def __init__(self) -> None:
        self.model = pickle.loads(Path(os.environ["BENCH_MODEL"]).read_bytes())

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, inputs: list[list[float]]) -> dict[str, Any]:
        """A probability for each row."""
        return {"predictions": self.model.predict_proba(np.array(inputs))[:, 1].tolist()}
