"""Model folders that take milliseconds to make: version v answers about 1000 v + x."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import polars as pl

from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.specification import EXAMPLE_FILE, MLMODEL_FILE, SPECIFICATION_FILE, InputExample

ROW = {"x": 1.0, "season": "winter", "holiday": False}
"""A row that every version takes."""


def write_model(folder: Path, version: int, *, extra: str | None = None) -> None:
    """Package a model of the columns x (number), season (text) and holiday (boolean), and `extra` (a number
    that may be missing), without mlflow, which would take longer than all of this."""
    rows = 64
    frame = pl.DataFrame(
        {
            "x": np.linspace(0.0, 10.0, rows),
            "season": ["winter", "summer"] * (rows // 2),
            "holiday": [False, True, False, False] * (rows // 4),
            **({extra: np.linspace(0.0, 1.0, rows)} if extra else {}),
        }
    )
    taken = inputs(frame, nullable=[extra] if extra else ())
    booster = lightgbm.train(
        {"verbose": -1, "num_leaves": 4, "min_data_in_leaf": 2, "num_threads": 1, "seed": version},
        lightgbm.Dataset(taken.matrix(frame), 1000.0 * version + frame["x"].to_numpy()),
        num_boost_round=20,
    )
    model = Model.lightgbm(booster, taken, target="y")
    folder.mkdir(parents=True)
    names = model.signature.names
    example = InputExample(names, [list(row) for row in zip(*(model.example[n] for n in names), strict=True)])
    (folder / MLMODEL_FILE).write_text("flavors: {}\n")
    (folder / SPECIFICATION_FILE).write_bytes(model.specification.to_json())
    (folder / model.specification.file).write_bytes(model.content)
    (folder / EXAMPLE_FILE).write_bytes(msgspec.json.encode(example))


def version_of(prediction: float) -> int:
    """Which version gave this answer."""
    return int(prediction // 1000)
