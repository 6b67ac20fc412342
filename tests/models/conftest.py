"""Small real models, trained once."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests.models.rentals import rentals, trained

from trimtab.models.model import Model


@pytest.fixture(scope="session")
def rows() -> pl.DataFrame:
    return rentals()


@pytest.fixture(scope="session")
def model(rows: pl.DataFrame) -> Model:
    return trained(rows)


@pytest.fixture(scope="session")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "model"
    model.save(made)
    return made
