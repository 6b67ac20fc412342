"""Bike rentals of the next hour: what the model learns from, what it must prove, and when it learns again."""

from datetime import datetime
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl

import trimtab as tt

# No season: with less than a year of rows to learn from, the next season is one never seen.
WEATHER = ["weather", "temp", "atemp", "humidity", "windspeed"]
CALENDAR = ["hour", "holiday", "weekday", "workingday"]
LIGHTGBM: dict[str, Any] = {
    "objective": "l2",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "verbose": -1,
}
TREES = 200


class Rentals(tt.Contract):
    """One row an hour: weather, calendar, and how many bikes were rented."""

    at: datetime = tt.field(unique=True)
    season: str = tt.field(isin=["spring", "summer", "fall", "winter"])
    hour: int = tt.field(ge=0, le=23)
    holiday: str = tt.field(isin=["yes", "no"])
    weekday: str = tt.field(isin=["mon", "tue", "wed", "thu", "fri", "sat", "sun"])
    workingday: str = tt.field(isin=["yes", "no"])
    weather: str | None = tt.field(isin=["clear", "mist", "light rain", "heavy rain"])
    temp: float = tt.field(ge=-30, le=60)
    atemp: float = tt.field(ge=-40, le=70)
    humidity: float = tt.field(ge=0, le=100)
    windspeed: float = tt.field(ge=0, le=150)
    casual: int = tt.field(ge=0)
    registered: int = tt.field(ge=0)
    cnt: int = tt.field(ge=0)


@tt.step
def prepare(rentals: pl.DataFrame, *, rides_per_unit: float) -> pl.DataFrame:
    """The target in the unit that the endpoint answers in: rides an hour."""
    return rentals.with_columns(pl.col("cnt") / rides_per_unit)


@tt.step
def train(rows: pl.DataFrame, *, columns: list[str]) -> tt.Model:
    """Gradient-boosted trees on log1p(cnt); the model answers in rides again."""
    inputs = tt.inputs(rows, columns, nullable=True)
    data = lgb.Dataset(
        inputs.matrix(rows),
        np.log1p(rows["cnt"].to_numpy()),
        feature_name=inputs.names,
        categorical_feature=inputs.categorical,
    )
    booster = lgb.train(LIGHTGBM, data, num_boost_round=TREES)
    tt.log(rows=rows.height, trees=booster.num_trees())
    return tt.Model.lightgbm(booster, inputs, target="cnt", output="expm1")


@tt.pipeline
def training(
    window: tt.Window = tt.last(days=180), rides_per_unit: float = 1.0, extra_columns: list[str] | None = None
) -> tt.Model:
    """From the rentals of the window to a model."""
    rentals = tt.dataset("rentals", contract=Rentals).window(window)
    rows = prepare(rentals, rides_per_unit=rides_per_unit)
    return train(rows, columns=[*CALENDAR, *WEATHER, *(extra_columns or [])])


loop = tt.Loop(
    "bikes",
    train=training,
    target="cnt",
    holdout=tt.last(days=10),
    gates=[
        tt.gates.Signature(),
        tt.gates.Bias(max_abs=0.4),
        tt.gates.AnswerRatio(1 / 6, 6.0),
        tt.gates.BeatsChampion("rmsle", margin=0.04, level=0.9),
        tt.gates.Latency(p99_ms=50),
    ],
    rollout=tt.Canary(
        steps=[5, 25, 100],
        shadow="2d",
        dwell=["2d", "2d", "1d"],
        max_duration="14d",
        margin=0.05,
        alpha=0.1,
        tuned_for=10,
        look="1d",
        answer_ratio=(1 / 6, 6.0),
    ),
    monitors=[tt.Bias(max_abs=0.10, log=True), tt.Performance("rmsle", max=0.6), tt.Drift(effect=0.35)],
    triggers=[tt.OnBias(), tt.OnAge(days=60)],
    budget=tt.Budget(cooldown="14d", after_promotion="35d"),
    mode="auto",
)
