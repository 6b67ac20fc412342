"""Hourly rows that look like bike rentals, and models trained on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import lightgbm
import numpy as np
import polars as pl

from trimtab.models.inputs import Inputs, inputs
from trimtab.models.model import Model

COLUMNS = ["weather", "hour", "temperature", "holiday"]


def rentals(rows: int = 2000, seed: int = 1) -> pl.DataFrame:
    """Hourly rows that look like bike rentals: weather, hour and temperature make the count."""
    random = np.random.default_rng(seed)
    hour = np.arange(rows) % 24
    weather = random.choice(["clear", "mist", "rain"], rows)
    temperature = random.normal(15.0, 8.0, rows)
    busy = 80 + 60 * np.sin(hour / 24 * 2 * np.pi) + 2 * temperature - 40 * (weather == "rain")
    return pl.DataFrame(
        {
            "at": [datetime(2011, 1, 1, tzinfo=UTC) + timedelta(hours=int(row)) for row in range(rows)],
            "weather": weather,
            "hour": hour,
            "temperature": temperature,
            "holiday": random.random(rows) < 0.1,
            "cnt": np.maximum(1, busy + random.normal(0, 10, rows)).astype(np.int64),
        }
    )


def booster(rows: pl.DataFrame, declared: Inputs, trees: int = 40) -> lightgbm.Booster:
    data = lightgbm.Dataset(
        declared.matrix(rows),
        np.log1p(rows["cnt"].to_numpy()),
        feature_name=declared.names,
        categorical_feature=declared.categorical,
    )
    parameters = {"verbose": -1, "num_threads": 1, "deterministic": True, "min_data_in_leaf": 5}
    return lightgbm.train(parameters, data, trees)


def trained(rows: pl.DataFrame, trees: int = 40, columns: list[str] | None = None) -> Model:
    declared = inputs(rows, columns or COLUMNS)
    return Model.lightgbm(booster(rows, declared, trees), declared, target="cnt", output="expm1")
