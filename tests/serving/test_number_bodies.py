"""Bodies of numbers read straight into a matrix: either as the long way reads them, or not at all."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import InvalidInputError
from trimtab.models.encoding import Columns, Encoder
from trimtab.models.signature import Column, Signature
from trimtab.serving.body_formats import SplitFrame, from_inputs, from_instances, from_records, from_split
from trimtab.serving.number_bodies import NumberBodies

NAMES = ["a", "b b", "ç"]
SIGNATURES = [
    Signature(tuple(Column(name, "number", nullable=name in nullable) for name in NAMES), missing=missing)
    for nullable, missing in (("", None), (["a"], None), (NAMES, -999.0))
]

odd: Any = st.sampled_from(["1", True, [1.0], {"x": 1}, 10**400, 2**70, ""])
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none()
cells = st.integers(0, 40).flatmap(lambda turn: odd if turn == 40 else numbers)
names = st.sampled_from([*NAMES, *NAMES, *NAMES, "d"])
records = st.integers(0, 9).flatmap(
    lambda turn: (
        st.dictionaries(names, cells) if turn == 9 else st.fixed_dictionaries(dict.fromkeys(NAMES, cells))
    )
)
by_place = st.integers(0, 9).flatmap(
    lambda turn: st.lists(cells, max_size=4) if turn == 9 else st.tuples(*[cells] * 3).map(list)
)
many_records = st.lists(records, min_size=1, max_size=4)
many_rows = st.lists(by_place, min_size=1, max_size=4)
by_column = st.integers(1, 4).flatmap(
    lambda rows: (
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys([*NAMES, "d"], st.lists(cells, min_size=rows, max_size=rows) | cells)
        )
        | st.fixed_dictionaries(dict.fromkeys(NAMES, st.lists(cells, min_size=rows, max_size=rows)))
    )
)
split = st.fixed_dictionaries(
    {"data": many_rows}, optional={"columns": st.permutations(NAMES) | st.lists(names, max_size=4)}
)


def said(signature: Signature, columns: Columns) -> list[list[float]] | str:
    """What an encoder makes of columns, or the words of its refusal."""
    encoder = Encoder(signature)
    try:
        made: list[list[float]] = encoder.matrix(columns, encoder.rows(columns)).tolist()
    except InvalidInputError as error:
        return str(error)
    return made


def told(signature: Signature, matrix: np.ndarray[Any, Any]) -> list[list[float]] | str:
    """The same of a matrix."""
    try:
        made: list[list[float]] = Encoder(signature).checked(matrix).tolist()
    except InvalidInputError as error:
        return str(error)
    return made


def same(one: list[list[float]] | str, other: list[list[float]] | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return np.array_equal(one, other, equal_nan=True)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SIGNATURES), st.data())
def test_what_is_read_straight_is_what_the_long_way_reads(signature: Signature, data: st.DataObject) -> None:
    bodies = NumberBodies(signature)
    field, value, long = data.draw(
        st.one_of(
            st.tuples(st.just("rows"), many_records, st.just(from_records)),
            st.tuples(st.just("columns"), by_column, st.just(lambda columns: columns)),
            st.tuples(st.just("dataframe_records"), many_records, st.just(from_records)),
            st.tuples(
                st.just("dataframe_split"),
                split,
                st.just(lambda frame: from_split(msgspec.convert(frame, SplitFrame), NAMES)),
            ),
            st.tuples(
                st.just("instances"),
                many_records | many_rows,
                st.just(lambda instances: from_instances(instances, NAMES)),
            ),
            st.tuples(
                st.just("inputs"),
                many_records | many_rows | by_column,
                st.just(lambda inputs: from_inputs(inputs, NAMES)),
            ),
        )
    )
    body = json.dumps({field: value}).encode()
    read = bodies.plain(body) if field in {"rows", "columns"} else bodies.invocation(body)
    if read is None:
        return
    given = getattr(read, field)
    matrix = bodies.matrix(*((given.data, given.columns) if field == "dataframe_split" else (given,)))
    if matrix is not None:
        assert same(told(signature, matrix), said(signature, long(value)))


ROWS = [[1.5, 2, -3e300], [0.0, 5e-324, 2**53]]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", [dict(zip(NAMES, row, strict=True)) for row in ROWS]),
        ("columns", dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True))),
        ("instances", ROWS),
        ("inputs", ROWS),
        ("dataframe_split", {"columns": NAMES, "data": ROWS, "index": [7, 8]}),
        ("dataframe_split", {"columns": NAMES[::-1], "data": [row[::-1] for row in ROWS]}),
        ("dataframe_records", [dict(zip(NAMES[::-1], row[::-1], strict=True)) for row in ROWS]),
    ],
)
def test_bodies_as_most_are_read_straight(field: str, value: Any) -> None:
    bodies = NumberBodies(SIGNATURES[0])
    body = json.dumps({field: value}).encode()
    read = bodies.plain(body) if field in {"rows", "columns"} else bodies.invocation(body)
    given = getattr(read, field)
    matrix = bodies.matrix(*((given.data, given.columns) if field == "dataframe_split" else (given,)))
    assert matrix is not None
    assert matrix.tolist() == ROWS


def test_null_is_read_straight_as_a_missing_number() -> None:
    bodies = NumberBodies(SIGNATURES[1])
    by_row = bodies.tensorflow(b'{"instances": [[1, 2, 3], [null, 5, 6]]}')
    by_column = bodies.tensorflow('{"inputs": {"b b": [1, 2], "ç": [3, 4]}}'.encode())
    np.testing.assert_array_equal(bodies.matrix(by_row.instances), [[1, 2, 3], [np.nan, 5, 6]])
    np.testing.assert_array_equal(bodies.matrix(by_column.inputs), [[np.nan, 1, 3], [np.nan, 2, 4]])
