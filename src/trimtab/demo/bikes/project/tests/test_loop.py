"""Steps are plain functions: they are tested by calling them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from loop import CALENDAR, WEATHER, Rentals, loop, prepare, train


@pytest.fixture
def rentals() -> pl.DataFrame:
    return pl.read_parquet(Path(__file__).parents[1] / "data" / "history.parquet").head(1000)


def test_the_contract_holds_for_the_rows(rentals: pl.DataFrame) -> None:
    assert Rentals.validate(rentals).height == rentals.height


def test_prepare_gives_the_target_in_the_asked_unit(rentals: pl.DataFrame) -> None:
    tens = prepare(rentals, rides_per_unit=10.0)
    assert tens["cnt"].to_list() == (rentals["cnt"] / 10).to_list()


def test_the_model_answers_in_rides(rentals: pl.DataFrame) -> None:
    model = train(rentals, columns=[*CALENDAR, *WEATHER])
    error = np.abs(model.predict(rentals) - rentals["cnt"].to_numpy())
    assert np.median(error) < 15


def test_the_loop_promotes_nothing_without_a_comparison() -> None:
    assert any("champion" in gate.name for gate in loop.declaration.gates)
