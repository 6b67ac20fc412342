"""Fits the same model with a peer's own scikit-learn and writes it as the peer wants it. It runs in the
peer's environment.

    python make_model.py mlserver|mlflow|pickle DATA FOLDER
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    kind, data, folder = sys.argv[1], np.load(sys.argv[2]), Path(sys.argv[3])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data["matrix"], data["target"])
    if kind == "mlflow":
        import mlflow.sklearn

        mlflow.sklearn.save_model(
            model,
            str(folder / "model"),
            pyfunc_predict_fn="predict_proba",
            serialization_format="cloudpickle",
        )
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.pickle").open("wb") as file:
        pickle.dump(model, file)
    if kind == "mlserver":
        (folder / "model-settings.json").write_text(
            json.dumps(
                {
                    "name": "bench",
                    "implementation": "mlserver_sklearn.SKLearnModel",
                    "parameters": {"uri": "./model.pickle"},
                }
            )
        )


if __name__ == "__main__":
    main()
