"""A model of number columns alone, whose rows may be sent as one matrix."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import polars as pl

from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.specification import EXAMPLE_FILE, MLMODEL_FILE, SPECIFICATION_FILE, InputExample
from trimtab.serving.endpoints import Endpoints
from trimtab.serving.routes import single
from trimtab.workspace import Workspace

WIDTH = 30
ENDPOINT = "numbers"


def serve_numbers(workspace: Workspace, folder: Path) -> None:
    """Put such a model, made in `folder`, behind the endpoint `numbers`."""
    rows = np.random.default_rng(0).normal(size=(64, WIDTH))
    frame = pl.DataFrame({f"c{place}": rows[:, place] for place in range(WIDTH)})
    taken = inputs(frame)
    booster = lightgbm.train(
        {"verbose": -1, "num_leaves": 4, "min_data_in_leaf": 2, "num_threads": 1},
        lightgbm.Dataset(taken.matrix(frame), rows[:, 0]),
        num_boost_round=5,
    )
    model = Model.lightgbm(booster, taken, target="y")
    names = model.signature.names
    example = InputExample(names, [list(row) for row in zip(*(model.example[n] for n in names), strict=True)])
    folder.mkdir(parents=True)
    (folder / MLMODEL_FILE).write_text("flavors: {}\n")
    (folder / SPECIFICATION_FILE).write_bytes(model.specification.to_json())
    (folder / model.specification.file).write_bytes(model.content)
    (folder / EXAMPLE_FILE).write_bytes(msgspec.json.encode(example))
    digest = workspace.blobs.put_tree(folder)
    endpoints = Endpoints(workspace)
    workspace.write(lambda tx: endpoints.create(tx, ENDPOINT, "numbers-model"))
    workspace.write(lambda tx: endpoints.set_route(tx, ENDPOINT, single("numbers-model", 1, digest)))
