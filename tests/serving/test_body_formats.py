from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InvalidInputError
from trimtab.serving.body_formats import (
    SplitFrame,
    from_csv,
    from_inputs,
    from_instances,
    from_records,
    from_rows,
    from_split,
)

NAMES = ["x", "y"]
TABLE = {"x": [1, 3], "y": [2, None]}


def test_one_table_has_the_same_columns_in_every_format() -> None:
    rows: list[list[Any]] = [[1, 2], [3, None]]
    records = [{"x": 1, "y": 2}, {"x": 3}]
    assert from_split(SplitFrame(rows, ["x", "y"], [7, 8]), []) == TABLE
    assert from_split(SplitFrame(rows), NAMES) == TABLE
    assert from_records(records) == TABLE
    for read in (from_instances, from_inputs):
        assert read(rows, NAMES) == TABLE
        assert read(records, NAMES) == TABLE
        assert read(TABLE, NAMES) == TABLE
        assert read({"x": [[1], [3]], "y": [[2], [None]]}, NAMES) == TABLE
    assert from_inputs({"x": 1, "y": "a"}, NAMES) == {"x": [1], "y": ["a"]}
    assert from_instances([1, 2], ["x"]) == from_instances([[1], [2]], ["x"]) == {"x": [1, 2]}
    assert from_instances([{"b64": "YQ=="}, {"b64": "w7w="}], ["x"]) == {"x": ["a", "ü"]}
    assert from_instances([{"x": {"b64": "YQ=="}}], ["x"]) == {"x": ["a"]}


@given(st.lists(st.lists(st.integers() | st.none(), min_size=2, max_size=2), min_size=1, max_size=20))
def test_rows_and_records_of_the_same_values_are_the_same_columns(rows: list[list[int | None]]) -> None:
    records = [dict(zip(NAMES, row, strict=True)) for row in rows]
    assert from_rows(rows, NAMES) == from_records(records) == from_instances(records, NAMES)


def test_csv_is_read_by_its_header_or_by_position() -> None:
    text = '\ufeff,x,"y"\r\n0,1,"a, ""b"""\r\n\r\n1,2,\r\n'
    assert from_csv(text, NAMES, header=True) == {"x": ["1", "2"], "y": ['a, "b"', ""]}
    assert from_csv("1,a\n2,b", NAMES, header=False) == {"x": ["1", "2"], "y": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "CSV text is empty"),
        ("x,y\n", "no rows"),
        ("x,x\n1,2\n", "'x' is given twice"),
        ("x,y\n1,2\n\n1\n", "Line 4 of the CSV text has 1 values, and there are 2 columns"),
        ('x,y\n1,"2\n', "is not CSV"),
        ("x,y\n1," + "9" * 2**21, "is not CSV"),
    ],
)
def test_what_is_no_csv_table_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        from_csv(text, NAMES, header=True)


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (from_split, SplitFrame([]), "no rows"),
        (from_split, SplitFrame([[1, 2], [3]]), "Row 1 has 1 values, and there are 2 columns"),
        (from_split, SplitFrame([[1, 2]], ["x", "x"]), "'x' is given twice"),
        (from_split, SplitFrame([[1, 2]], index=[1, 2]), "index has 2 values for 1 rows"),
        (from_instances, [], "no rows"),
        (from_instances, 5, "'instances' is a number"),
        (from_instances, [5], "takes 2 columns"),
        (from_instances, [None], "Row 0 is null"),
        (from_instances, [[1, 2], {"x": 1}], "Row 1 is an object"),
        (from_instances, [{"x": 1}, [1, 2]], "Row 1 is a list"),
        (from_instances, [{"x": [1]}, {"x": [1, 2]}], "'x' has in row 1 no single value"),
        (from_instances, [{"x": [1]}, {"x": 1}], "'x' has in row 1 no single value"),
        (from_instances, [{"x": []}], "'x' has in row 0 no single value"),
        (from_inputs, {}, "no columns"),
        (from_inputs, {"x": [], "y": []}, "no rows"),
        (from_inputs, {"x": [1], "y": [1, 2]}, "'y' has 2 values where others have 1"),
        (from_inputs, {"x": [1], "y": 1}, "'y' is a number"),
        (from_inputs, {"x": [{"b64": "?"}], "y": ["a"]}, "no base64"),
    ],
)
def test_what_is_no_table_is_refused_with_its_row(read: Any, value: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        read(value, NAMES)


@pytest.mark.parametrize(("records", "words"), [([], "no rows"), ([{"x": 1}, 5], "Row 1 is a number")])
def test_records_are_objects(records: list[Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        from_records(records)
