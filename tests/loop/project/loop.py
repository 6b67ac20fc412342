"""A small project: one number is learned from the hour."""

import lightgbm as lgb
import numpy as np
import polars as pl

import trimtab as tt


def log_error(labels: np.ndarray, predictions: np.ndarray) -> float:
    """A metric of the project's own."""
    return float(np.mean(np.abs(np.log1p(predictions) - np.log1p(labels))))


@tt.step
def train(rows: pl.DataFrame, *, unit: float) -> tt.Model:
    """A few trees on the hour."""
    inputs = tt.inputs(rows, ["hour"], nullable=True)
    labels = rows["demand"].to_numpy() / unit
    data = lgb.Dataset(inputs.matrix(rows), labels, feature_name=inputs.names)
    parameters = {"objective": "l2", "min_data_in_leaf": 5, "num_threads": 1, "seed": 1, "verbose": -1}
    booster = lgb.train({**parameters, "deterministic": True}, data, num_boost_round=60)
    tt.log(rows=rows.height)
    return tt.Model.lightgbm(booster, inputs, target="demand")


@tt.pipeline
def training(window: tt.Window = tt.last(days=8), unit: float = 1.0) -> tt.Model:
    """From the last days to a model."""
    return train(tt.dataset("demand").window(window), unit=unit)


loop = tt.Loop(
    "demand",
    train=training,
    gates=[tt.gates.Signature(), tt.gates.AnswerRatio(0.1, 10), tt.gates.Bias(max_abs=1.2)],
    metric=log_error,
    rollout=tt.Canary(
        steps=(50, 100),
        shadow="1d",
        dwell="1d",
        max_duration="9d",
        margin=0.05,
        alpha=0.1,
        min_blocks=2,
        look="1d",
        answer_ratio=(0.2, 5),
    ),
    monitors=[
        tt.Bias(max_abs=0.2, log=True, days=2, min_labels=24),
        tt.Drift(min_rows=24),
        tt.Performance(log_error, max=9, days=2, min_labels=24),
    ],
    triggers=[tt.OnBias()],
    budget=tt.Budget(cycles_per_day=2, cooldown="2d"),
    holdout=tt.last(days=1),
    mode="auto",
)
