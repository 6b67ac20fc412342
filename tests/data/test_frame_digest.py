from __future__ import annotations

import math
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data.frame_digest import frame_digest
from trimtab.errors import InvalidInputError

SCHEMA = {
    "x": pl.Float64(),
    "n": pl.Int64(),
    "w": pl.String(),
    "b": pl.Boolean(),
    "at": pl.Datetime("us", "UTC"),
    "d": pl.Date(),
}
YEARS = (datetime(1900, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001
rows_of = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(allow_nan=False)),
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.text(max_size=20)),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.datetimes(*YEARS, timezones=st.just(UTC))),
        st.one_of(st.none(), st.dates()),
    ),
    max_size=8,
)


def frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@given(rows_of, st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_equal_rows_have_one_digest_however_they_lie_in_memory(
    rows: list[tuple[object, ...]], cut: int
) -> None:
    whole = frame(rows)
    expected = frame_digest(whole)
    assert frame_digest(pl.concat([frame(rows[:cut]), frame(rows[cut:])], rechunk=False)) == expected
    assert frame_digest(pl.concat([frame(rows[::-1]), whole]).tail(len(rows))) == expected
    under = whole.with_columns(pl.when(pl.col("n").is_not_null()).then(pl.col("n")).otherwise(pl.lit(None)))
    assert frame_digest(under) == expected


@given(rows_of, rows_of)
@settings(max_examples=60, deadline=None)
def test_different_rows_have_different_digests(
    one: list[tuple[object, ...]], two: list[tuple[object, ...]]
) -> None:
    same = [repr(row) for row in frame(one).rows()] == [repr(row) for row in frame(two).rows()]
    assert (frame_digest(frame(one)) == frame_digest(frame(two))) == same


def test_near_misses_are_told_apart() -> None:
    digests = [
        frame_digest(pl.DataFrame(columns))
        for columns in (
            {"w": ["ab", "c"]},
            {"w": ["a", "bc"]},
            {"w": ["", None]},
            {"w": [None, ""]},
            {"v": ["ab", "c"]},
            {"x": [0.0, 1.0]},
            {"x": [None, 1.0]},
            {"x": [math.nan, 1.0]},
            {"x": [0, 1]},
            {"x": [1, 0]},
            {"x": [False, True]},
            {"x": [0.0, 1.0], "w": ["", ""]},
            {"w": ["", ""], "x": [0.0, 1.0]},
        )
    ]
    assert len(set(digests)) == len(digests)


def test_types_that_are_kept_alike_have_one_digest() -> None:
    values = pl.Series("w", ["a", "b", "a"])
    assert frame_digest(values.cast(pl.Categorical).to_frame()) == frame_digest(values.to_frame())
    numbers = pl.Series("n", [1, 2])
    assert frame_digest(numbers.cast(pl.Int8).to_frame()) == frame_digest(numbers.to_frame())


def test_the_digest_stays_the_same_from_one_release_to_the_next() -> None:
    rows = pl.DataFrame({"x": [1.5, None], "w": ["é", ""], "b": [True, False]})
    assert frame_digest(rows) == "b3:b83fa33592de68c8f1e897729adf0bdcb220e896622ab15f28f0f73513438a4a"


def test_a_column_that_no_dataset_can_hold_has_no_digest() -> None:
    with pytest.raises(InvalidInputError, match="cannot hold"):
        frame_digest(pl.DataFrame({"x": [[1]]}))
