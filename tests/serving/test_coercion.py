from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.tiny_models import ROW, write_model

from trimtab.models.runtimes.predictor import load_predictor
from trimtab.models.signature import Column
from trimtab.serving.coercion import (
    _NUMBER,
    _WHOLE,
    Coercion,
    _all_numbers,
    boolean,
    coercion_of,
    number,
    whole_number,
)
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.routes import single


@pytest.mark.parametrize(
    ("coerce", "given_", "made"),
    [
        (number, 1, 1),
        (number, 1.5, 1.5),
        (number, True, 1.0),
        (number, "1", 1.0),
        (number, " -1.5e3 ", -1500.0),
        (number, "\x1e.5", 0.5),
        (number, None, None),
        (number, "1_000", "1_000"),
        (number, "inf", "inf"),
        (number, "one", "one"),
        (number, "", ""),
        (boolean, True, True),
        (boolean, 0, False),
        (boolean, 1.0, True),
        (boolean, "False", False),
        (boolean, "true", True),
        (boolean, 2, 2),
        (boolean, 0.5, 0.5),
        (boolean, "no", "no"),
        (boolean, None, None),
        (whole_number, "5", 5),
        (whole_number, "-5.0", -5),
        (whole_number, "5.5", "5.5"),
        (whole_number, True, True),
        (whole_number, 5.0, 5.0),
    ],
)
def test_a_value_is_changed_only_where_nothing_is_lost(coerce: Any, given_: Any, made: Any) -> None:
    found = coerce(given_)
    assert found == made
    assert type(found) is type(made)


@given(st.from_regex(_NUMBER, fullmatch=True), st.from_regex(_WHOLE, fullmatch=True))
def test_whatever_looks_like_a_number_is_one(text: str, whole: str) -> None:
    assert type(number(text)) is float
    assert type(whole_number(whole)) is int


def test_nan_in_a_text_is_a_missing_number() -> None:
    assert math.isnan(number("NaN"))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_being_written_as_a_text(value: float) -> None:
    assert number(repr(value)) == value


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_no_value_makes_a_coercion_fail(value: Any) -> None:
    for coerce in (number, boolean, whole_number):
        coerce(value)


cells = (
    st.none() | st.floats().map(repr) | st.integers().map(str) | st.text("0123456789.eE+-_ nai", max_size=6)
)


@given(st.lists(cells, min_size=1))
def test_a_column_of_texts_is_read_as_each_of_them(values: list[str | None]) -> None:
    made = _all_numbers(values)
    if made is not None:
        assert made == [number(value) for value in values]


def test_a_row_fits_only_if_nothing_had_to_be_done_to_it(tmp_path: Path) -> None:
    write_model(tmp_path / "model", 3, extra="leak")
    predictor = load_predictor(tmp_path / "model")
    coercion = Coercion(LoadedEndpoint("rides", single("m", 1, "b3:" + "0" * 64), (predictor,)))
    whole = {**ROW, "leak": None}
    assert coercion.fits(whole)
    assert coercion.columns({name: [value] for name, value in whole.items()}) == (
        {name: [value] for name, value in whole.items()},
        [],
    )
    for other in (ROW, {**whole, "y": 1}, {**whole, "x": "1"}, {**whole, "x": True}, {**whole, "holiday": 1}):
        assert not coercion.fits(other)


def test_texts_are_left_alone() -> None:
    assert coercion_of(Column("a", "category", categories=("1", "2"))) is None
