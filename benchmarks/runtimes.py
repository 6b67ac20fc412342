"""Processor time for one row by each runtime, alone and in a batch of 1,000, beside the original's own."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil

from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.predictor import ConfinedPredictor, ConfinedProgram, load_servable
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.runtimes.predictor import Predictor, load_predictor

COLUMNS = 30
BATCH = 1_000
TREES = 100


def main() -> None:
    import lightgbm
    import xgboost
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(5)
    rows = pl.DataFrame({f"x{place}": random.normal(size=5_000) for place in range(COLUMNS)})
    declared = inputs(rows)
    matrix = declared.matrix(rows)
    target = matrix[:, 0] + np.sin(matrix[:, 1]) + random.normal(0, 0.3, len(matrix))
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(matrix, target > 0)
    forest = RandomForestClassifier(TREES, max_depth=8, random_state=0).fit(matrix, target > 0)
    boosted = xgboost.XGBRegressor(n_estimators=TREES, max_depth=6, n_jobs=1).fit(matrix, target)
    booster = lightgbm.train(
        {"verbose": -1, "num_threads": 1},
        lightgbm.Dataset(matrix, target, feature_name=declared.names),
        TREES,
    )
    print(f"{COLUMNS} columns; processor time in µs, the original's in brackets\n")
    print(f"{'':44} {'one row':>18} {'of ' + format(BATCH, ','):>18}")
    row(f"LightGBM, {TREES} trees", Model.lightgbm(booster, declared, target="y"), rows, booster.predict)
    row(f"XGBoost, {TREES} trees", Model.xgboost(boosted, declared, target="y"), rows, boosted.predict)
    for name, estimator in (("scaler and logistic regression", scaled), (f"forest of {TREES} trees", forest)):
        model = Model.sklearn(estimator, declared, target="y", rows=rows.tail(500))
        row(f"ONNX: {name}", model, rows, estimator.predict_proba)
    with tempfile.TemporaryDirectory() as home:
        apart(Path(home), scaled, rows)
    if importlib.util.find_spec("torch") is not None:
        networks(rows)


def networks(rows: pl.DataFrame) -> None:
    """A network of two layers as ONNX, and with a function that keeps it PyTorch's."""
    import torch

    torch.set_num_threads(1)

    class Waves(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read
        def forward(self, given: Any) -> Any:
            return torch.special.bessel_j0(given)

    layers = [torch.nn.Linear(COLUMNS, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)]
    network = torch.nn.Sequential(*layers).eval()
    model = Model.torch(network, inputs(rows), target="y", rows=rows.tail(500))

    def original(matrix: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(matrix.astype(np.float32))).numpy()

    row("ONNX: a network of PyTorch, 64 hidden", model, rows, original)
    kept = Model.torch(torch.nn.Sequential(Waves(), *layers), inputs(rows), target="y")
    with tempfile.TemporaryDirectory() as home:
        kept.save(Path(home) / "model")
        confined("a network kept as PyTorch's, confined", Path(home) / "model", rows)


def row(name: str, model: Model, rows: pl.DataFrame, original: Callable[[Any], Any]) -> None:
    with tempfile.TemporaryDirectory() as home:
        model.save(Path(home) / "model")
        with load_predictor(Path(home) / "model") as predictor:
            matrix = rows.head(BATCH).to_numpy()
            first = matrix[0].tolist()
            own, many = matrix[:1], matrix
            print(
                f"{name:44} {spent(lambda: predictor.score(first), 2_000):8.1f} "
                f"({spent(lambda: original(own), 200):7.0f}) "
                f"{spent(lambda: predictor.scores(many), 20) / BATCH:8.2f} "
                f"({spent(lambda: original(many), 20) / BATCH:7.2f})"
            )


def apart(home: Path, estimator: Any, rows: pl.DataFrame) -> None:
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.base import clone

    frame = rows.head(BATCH).to_pandas()
    estimator = clone(estimator).fit(frame, np.arange(BATCH) % 2)  # by name, as MLflow asks it
    mlflow.sklearn.save_model(
        estimator,
        str(home / "model"),
        signature=infer_signature(frame, np.zeros(BATCH)),
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
        pip_requirements=[],
    )
    confined("scaler and logistic regression, confined", home / "model", rows)


def confined(name: str, folder: Path, rows: pl.DataFrame) -> None:
    with load_servable(folder, model="m", confinement=Confinement(("m",))) as predictor:
        assert isinstance(predictor, ConfinedPredictor | ConfinedProgram)
        many = rows.head(BATCH).to_dict(as_series=False)
        one = {name: values[:1] for name, values in many.items()}
        process = psutil.Process(predictor.pid)
        alone, together = both(process, predictor, one, 100), both(process, predictor, many, 10)
        print(f"{name:44} {alone:8.0f} {'':9} {together / BATCH:8.2f}")


def both(process: psutil.Process, predictor: Predictor, given: dict[str, list[Any]], times: int) -> float:
    """Microseconds of processor time of this process and the model's, for one call."""
    predictor.predict(given)
    before = sum(process.cpu_times()[:2])
    here = spent(lambda: predictor.predict(given), times)
    return here + (sum(process.cpu_times()[:2]) - before) / times * 1e6


def spent(what: Callable[[], Any], times: int) -> float:
    """Microseconds of processor time for one call."""
    what()
    start = time.process_time()
    for _ in range(times):
        what()
    return (time.process_time() - start) / times * 1e6


if __name__ == "__main__":
    main()
