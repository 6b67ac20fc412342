"""Steps are plain functions: they are tested by calling them."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from loop import WEATHER_AND_CALENDAR, Rentals, loop, prepare, train


@pytest.fixture
def rentals() -> pl.DataFrame:
    hours = 500
    chance = np.random.default_rng(0)
    hour = np.arange(hours) % 24
    return pl.DataFrame(
        {
            "at": pl.datetime_range(
                datetime(2011, 1, 1, tzinfo=UTC),
                interval="1h",
                end=datetime(2011, 1, 21, 19, tzinfo=UTC),
                eager=True,
            ),
            "season": ["spring"] * hours,
            "hour": hour,
            "holiday": ["no"] * hours,
            "weekday": [
                ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[day % 7] for day in np.arange(hours) // 24
            ],
            "workingday": ["yes"] * hours,
            "weather": chance.choice(["clear", "mist", None], hours),
            "temp": chance.uniform(0, 30, hours),
            "atemp": chance.uniform(0, 30, hours),
            "humidity": chance.uniform(20, 100, hours),
            "windspeed": chance.uniform(0, 40, hours),
            "casual": np.zeros(hours, dtype=np.int64),
            "registered": np.round(100 + 80 * np.sin(hour / 24 * 2 * np.pi)).astype(np.int64),
        }
    ).with_columns(cnt=pl.col("registered"))


def test_the_contract_holds_for_the_rows(rentals: pl.DataFrame) -> None:
    assert Rentals.validate(rentals).height == rentals.height


def test_prepare_gives_the_target_in_the_asked_unit(rentals: pl.DataFrame) -> None:
    tens = prepare(rentals, rides_per_unit=10.0)
    assert tens["cnt"].to_list() == (rentals["cnt"] / 10).to_list()


def test_the_model_answers_in_rides(rentals: pl.DataFrame) -> None:
    model = train(rentals, columns=WEATHER_AND_CALENDAR)
    error = np.abs(model.predict(rentals) - rentals["cnt"].to_numpy())
    assert np.median(error) < 10


def test_the_loop_promotes_nothing_without_a_comparison() -> None:
    assert any("champion" in gate.name for gate in loop.declaration.gates)
