from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import resources

import polars as pl

BIKES = resources.files("trimtab.demo").joinpath("bikes")


def test_the_shipped_rentals_are_whole_and_in_order() -> None:
    with resources.as_file(BIKES.joinpath("rentals.parquet")) as path:
        rows = pl.read_parquet(path)
    assert rows.height == 17_379
    assert rows["at"].is_sorted()
    assert rows["at"].n_unique() == rows.height
    assert rows["at"][0] == datetime(2011, 1, 1, tzinfo=UTC)
    assert rows["at"][-1] == datetime(2013, 1, 1, tzinfo=UTC) - timedelta(hours=1)
    assert rows.select((pl.col("at").dt.hour() == pl.col("hour")).all()).item()
    assert rows.select((pl.col("casual") + pl.col("registered") == pl.col("cnt")).all()).item()
    assert rows["cnt"].sum() == 3_292_679
    assert [name for name, nulls in rows.null_count().row(0, named=True).items() if nulls] == ["weather"]


def test_the_shipped_rentals_name_their_authors_and_licence() -> None:
    text = BIKES.joinpath("ATTRIBUTION.md").read_text()
    for words in ("Fanaee-T", "Gama", "CC BY 4.0", "10.24432/C5W894", "What was changed"):
        assert words in text
