from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InvalidInputError
from trimtab.models.encoding import Encoder
from trimtab.models.inputs import frame_columns, inputs
from trimtab.models.signature import Column, Signature

SIGNATURE = Signature(
    (
        Column("temperature", "number"),
        Column("wind", "number", nullable=True),
        Column("weather", "category", categories=("clear", "rain")),
        Column("season", "category", nullable=True, categories=(1, 2, 4)),
        Column("holiday", "boolean"),
    )
)
ENCODER = Encoder(SIGNATURE)
GOOD: dict[str, Any] = {
    "temperature": [1.5, 2],
    "wind": [None, 3.0],
    "weather": ["rain", "snow"],
    "season": [4, None],
    "holiday": [True, False],
}


def matrix(columns: dict[str, Any], encoder: Encoder = ENCODER) -> list[list[float]]:
    count = encoder.rows(columns)
    made: list[list[float]] = encoder.matrix(columns, count).tolist()
    return made


def same(left: object, right: object) -> bool:
    return bool(np.array_equal(np.array(left, float), np.array(right, float), equal_nan=True))


def test_rows_become_numbers_in_the_signatures_order() -> None:
    nan = math.nan
    assert same(matrix(GOOD), [[1.5, nan, 1, 2, 1], [2, 3, nan, nan, 0]])


def test_one_row_is_encoded_as_it_is_among_others() -> None:
    for place in range(2):
        row = {name: [values[place]] for name, values in GOOD.items()}
        assert ENCODER.rows(row) == 1
        assert same(ENCODER.row(row), matrix(GOOD)[place])


def test_lists_arrays_and_polars_columns_are_encoded_alike() -> None:
    frame = pl.DataFrame(GOOD, strict=False)
    arrays = {
        **GOOD,
        "temperature": np.array([1.5, 2.0], dtype=np.float32),
        "wind": np.array([math.nan, 3.0]),
        "weather": np.array(["rain", "snow"]),
        "season": np.array([4, None], dtype=object),
        "holiday": np.array([True, False]),
    }
    assert same(matrix(dict(frame_columns(frame, SIGNATURE))), matrix(GOOD))
    assert same(matrix(arrays), matrix(GOOD))
    assert same(ENCODER.row({name: values[:1] for name, values in arrays.items()}), matrix(GOOD)[0])


def test_a_missing_value_is_what_the_signature_says() -> None:
    encoder = Encoder(Signature((Column("wind", "number", nullable=True), Column("x", "number")), -1.0))
    assert matrix({"wind": [None, math.nan, 2], "x": [1, 2, 3]}, encoder) == [[-1, 1], [-1, 2], [2, 3]]


def test_a_nullable_column_may_be_left_out() -> None:
    columns = {name: values for name, values in GOOD.items() if name not in ("wind", "season")}
    assert same([row[1] for row in matrix(columns)], [math.nan, math.nan])
    assert same(ENCODER.row(columns)[1], math.nan)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": ["warm", 2]}, ["'temperature'", "'warm'", "row 0", "number"]),
        ({"temperature": [1, "2"]}, ["'temperature'", "'2'", "row 1", "number"]),
        ({"temperature": [1, True]}, ["'temperature'", "True", "row 1"]),
        ({"temperature": [1, None]}, ["'temperature'", "missing", "row 1", "nullable"]),
        ({"temperature": [math.nan, 1]}, ["'temperature'", "missing", "row 0"]),
        ({"temperature": [1, math.inf]}, ["'temperature'", "inf", "row 1"]),
        ({"temperature": [1, 10**400]}, ["'temperature'", "row 1", "finite"]),
        ({"temperature": np.array([1.0, math.nan])}, ["'temperature'", "missing", "row 1"]),
        ({"temperature": np.array(["2020-01-01"] * 2, "M8[ns]")}, ["'temperature'", "dates"]),
        ({"temperature": np.ones((2, 2))}, ["'temperature'", "(2, 2)"]),
        ({"temperature": [[1], 2]}, ["'temperature'", "[1]", "row 0"]),
        ({"weather": ["rain", 3]}, ["'weather'", "3", "row 1", "text"]),
        ({"weather": ["rain", None]}, ["'weather'", "missing", "row 1"]),
        ({"season": [1, "1"]}, ["'season'", "'1'", "row 1", "whole number"]),
        ({"holiday": [True, 1]}, ["'holiday'", "1", "row 1", "true or false"]),
        ({"temperature": 3.0}, ["'temperature'", "3.0", "list"]),
        ({"weather": "rain"}, ["'weather'", "'rain'", "list"]),
        ({"temperature": {"a": 1, "b": 2}}, ["'temperature'", "list"]),
        ({"temperature": None}, ["'temperature'", "null"]),
        ({"temperature": [1, 2, 3]}, ["3", "2", "one value for each row"]),
        ({"windy": [1, 2]}, ["'windy'", "Did you mean 'wind'?"]),
    ],
)
def test_a_refusal_names_column_row_and_value(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        matrix({**GOOD, **change})
    for word in words:
        assert word in str(refused.value)


def test_a_missing_column_is_named_with_the_one_that_was_meant() -> None:
    columns = {name if name != "temperature" else "temprature": values for name, values in GOOD.items()}
    with pytest.raises(InvalidInputError, match=r"'temperature' is missing. Is 'temprature' meant"):
        ENCODER.rows(columns)


def test_no_columns_at_all_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="None of the model's columns is given"):
        Encoder(Signature((Column("wind", "number", nullable=True),))).rows({})


def test_unknown_columns_can_be_ignored() -> None:
    assert ENCODER.rows({**GOOD, "windy": [1, 2, 3]}, ignore_unknown=True) == 2


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["clear", "rain"]),
)


def outcome(work: Callable[[], Iterable[float]]) -> object:
    try:
        return [float(value) for value in work()]
    except InvalidInputError as error:
        return str(error)


@given(st.fixed_dictionaries(dict.fromkeys(SIGNATURE.names, VALUES)))
def test_one_row_and_a_matrix_agree_on_any_value(row: dict[str, Any]) -> None:
    columns = {name: [value] for name, value in row.items()}
    one, many = outcome(lambda: ENCODER.row(columns)), outcome(lambda: ENCODER.matrix(columns, 1)[0])
    assert one == many or same(one, many)
    by_name = outcome(lambda: ENCODER.row_of(row))
    assert by_name == many or same(by_name, many)


NUMBERS = Encoder(Signature((Column("a", "number"), Column("b", "number", nullable=True))))


@given(st.dictionaries(st.sampled_from("abc"), VALUES), st.booleans())
def test_a_row_by_name_is_taken_or_refused_as_its_columns_are(row: dict[str, Any], lenient: bool) -> None:
    columns = {name: [value] for name, value in row.items()}

    def as_columns() -> Iterable[float]:
        NUMBERS.rows(columns, ignore_unknown=lenient)
        return NUMBERS.row(columns)

    one, other = outcome(lambda: NUMBERS.row_of(row, ignore_unknown=lenient)), outcome(as_columns)
    assert one == other or same(one, other)


class TestInputs:
    ROWS = pl.DataFrame(
        {
            "weather": ["rain", "clear", None],
            "kind": pl.Series(["b", "a", "b"], dtype=pl.Enum(["b", "a"])),
            "season": [3, 1, 1],
            "temperature": [1.0, math.nan, 2.0],
            "holiday": [True, False, True],
            "cnt": [1, 2, 3],
        }
    )

    def test_kinds_categories_and_holes_are_read_from_the_rows(self) -> None:
        assert inputs(self.ROWS, exclude=["cnt"]).signature.columns == (
            Column("weather", "category", nullable=True, categories=("clear", "rain")),
            Column("kind", "category", categories=("b", "a")),
            Column("season", "number"),
            Column("temperature", "number", nullable=True),
            Column("holiday", "boolean"),
        )

    def test_categories_and_nullable_columns_can_be_declared(self) -> None:
        made = inputs(
            self.ROWS,
            ["season", "weather", "holiday"],
            categories={"weather": ["snow", "rain"], "season": [1, 2, 3, 4]},
            nullable=["holiday"],
        ).signature
        assert made.categorical == ["season", "weather"]
        assert made.columns[1].categories == ("snow", "rain")
        assert made.columns[2].nullable

    def test_numbers_can_be_named_as_categories(self) -> None:
        assert inputs(self.ROWS, ["season"], categories=["season"]).signature.columns[0].categories == (1, 3)

    def test_the_matrix_is_what_a_request_gives(self) -> None:
        declared = inputs(self.ROWS, exclude=["cnt"])
        request = {name: self.ROWS[name].to_list() for name in declared.names}
        encoder = Encoder(declared.signature)
        assert same(declared.matrix(self.ROWS), encoder.matrix(request, encoder.rows(request)))

    def test_dates_are_refused_with_what_to_do(self) -> None:
        rows = pl.DataFrame({"at": pl.date_range(pl.date(2011, 1, 1), pl.date(2011, 1, 2), eager=True)})
        with pytest.raises(InvalidInputError, match=r"'at'.*Derive numbers"):
            inputs(rows)

    def test_a_column_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match=r"'temprature'.*Did you mean 'temperature'"):
            inputs(self.ROWS, ["temprature"])
        with pytest.raises(InvalidInputError, match="'seasons'"):
            inputs(self.ROWS, ["season"], nullable=["seasons"])

    def test_no_rows_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="no rows"):
            inputs(self.ROWS.clear(), ["temperature"])


@pytest.mark.parametrize("nullable", [False, True])
def test_a_closed_column_refuses_what_is_not_among_its_categories(nullable: bool) -> None:
    encoder = Encoder(Signature((Column("weather", "category", nullable, ("clear", "rain"), closed=True),)))
    assert encoder.matrix({"weather": ["rain", "clear"]}, 2).tolist() == [[1.0], [0.0]]
    assert list(encoder.row_of({"weather": "rain"})) == [1.0]
    with pytest.raises(
        InvalidInputError, match="'weather' has 'fog' in row 1, which the model does not know"
    ):
        encoder.matrix({"weather": ["rain", "fog"]}, 2)
    with pytest.raises(InvalidInputError, match="'fog' in row 0"):
        encoder.row_of({"weather": "fog"})
    if nullable:
        assert np.isnan(encoder.matrix({"weather": [None]}, 1)).all()
