"""A prediction for one row: Trimtab's predictor beside LightGBM's Python package and mlflow.pyfunc.

Run it with `python benchmarks/predictor.py`. It prints the median and the 99th percentile of each in
microseconds, and the ratio of the medians to Trimtab's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lightgbm
import mlflow.pyfunc
import numpy as np
import pandas
import polars as pl

from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.runtimes.predictor import load_predictor

RENTALS = Path(__file__).parents[1] / "src" / "trimtab" / "demo" / "bikes" / "rentals.parquet"
PARAMETERS = {"num_leaves": 15, "num_threads": 1, "verbose": -1}


def measured(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """The median and the 99th percentile of so many calls, in microseconds."""
    taken = np.empty(calls)
    for place in range(calls):
        began = time.perf_counter()
        call()
        taken[place] = time.perf_counter() - began
    median, p99 = np.quantile(taken, [0.5, 0.99]) * 1e6
    return float(median), float(p99)


def main() -> None:
    """Train the example's model, ask it for one row in each way, and print the table."""
    rows = pl.read_parquet(RENTALS)
    declared = inputs(rows, exclude=["at", "casual", "registered", "cnt"])
    matrix = declared.matrix(rows)
    data = lightgbm.Dataset(matrix, np.log1p(rows["cnt"].to_numpy()), feature_name=declared.names)
    booster = lightgbm.train(PARAMETERS, data, 200)
    with tempfile.TemporaryDirectory() as folder:
        Model.lightgbm(booster, declared, target="cnt", output="expm1").save(Path(folder, "model"))
        predictor = load_predictor(Path(folder, "model"))
        loaded = mlflow.pyfunc.load_model(str(Path(folder, "model")))
    request = rows.head(1).select(declared.names).to_dict(as_series=False)
    frame = pandas.DataFrame(request)
    results = {
        "trimtab predictor, from named columns": measured(lambda: predictor.predict(request), 20_000),
        "lightgbm.Booster.predict, from numbers": measured(lambda: booster.predict(matrix[:1]), 2_000),
        "mlflow.pyfunc, from a data frame": measured(lambda: loaded.predict(frame), 200),
    }
    (own, _), *_ = results.values()
    for name, (median, p99) in results.items():
        print(f"{name:42} median {median:8.1f} us   p99 {p99:8.1f} us   {median / own:6.1f} x")


if __name__ == "__main__":
    main()
