"""What a request carries comes back as the frame that training had, type for type."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from trimtab.errors import InvalidInputError
from trimtab.models.encoding import Encoder
from trimtab.models.inputs import frame_columns
from trimtab.models.signature import Signature
from trimtab.models.steps.literals import literal, value_of
from trimtab.models.steps.raw_columns import RawColumn, RawColumns, raw_columns, raw_signature


def between(first: str, last: str) -> st.SearchStrategy[datetime]:
    return st.datetimes(datetime.fromisoformat(first), datetime.fromisoformat(last))


def whole_milliseconds(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


MOMENTS = between("1677-10-01", "2262-01-01")
VALUES: dict[str, tuple[pl.DataType, st.SearchStrategy[object]]] = {
    "f8": (pl.Float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "f4": (pl.Float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "i1": (pl.Int8(), st.integers(-128, 127)),
    "i8": (pl.Int64(), st.integers(-(2**53), 2**53)),
    "u8": (pl.UInt64(), st.integers(0, 2**53)),
    "yes": (pl.Boolean(), st.booleans()),
    "text": (pl.String(), st.text()),
    "enum": (pl.Enum(["a", "b"]), st.sampled_from(["a", "b"])),
    "day": (pl.Date(), st.dates(date(1000, 1, 1), date(9999, 12, 31))),
    "us": (pl.Datetime("us"), between("1000-01-01", "9999-12-31")),
    "ms": (pl.Datetime("ms"), MOMENTS.map(whole_milliseconds)),
    "ns": (pl.Datetime("ns"), MOMENTS),
    "utc": (pl.Datetime("us", "UTC"), MOMENTS.map(lambda time: time.replace(tzinfo=UTC))),
    "zone": (pl.Datetime("us", "America/New_York"), MOMENTS.map(lambda time: time.replace(tzinfo=UTC))),
}


def series(name: str, values: list[object]) -> pl.Series:
    dtype = VALUES[name][0]
    if isinstance(dtype, pl.Datetime) and dtype.time_zone not in (None, "UTC"):
        return pl.Series(name, values, pl.Datetime("us", "UTC")).dt.convert_time_zone(dtype.time_zone)
    return pl.Series(name, values, dtype)


def carried(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame as it comes out on the other side."""
    raw = raw_columns(frame, None, (), ())
    signature = raw_signature(raw)
    columns = frame_columns(frame, signature)
    numbers = tuple(column for column in signature.columns if column.kind != "text")
    matrix = np.empty((frame.height, 0))
    if numbers:
        matrix = Encoder(Signature(numbers)).matrix(columns, frame.height)
    texts = [list(columns[column.name]) for column in signature.columns if column.kind == "text"]
    return RawColumns(raw).frame(frame.height, matrix, texts)


@given(st.data())
def test_every_type_comes_back_with_its_values(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4))
    frame = pl.DataFrame(
        [
            series(name, data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)))
            for name, (_, values) in VALUES.items()
        ]
    )
    assert_frame_equal(carried(frame), frame, check_exact=True)


def test_nan_comes_back_as_null() -> None:
    assert carried(pl.DataFrame({"x": [1.0, float("nan")]}))["x"].to_list() == [1.0, None]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("x", [[1]]),
        pl.Series("x", [b"bytes"]),
        pl.Series("x", [None]),
        pl.Series("x", [1], pl.Decimal(10, 2)),
        pl.Series("x", [1], pl.Duration("us")),
    ],
)
def test_a_type_that_no_request_can_carry_is_refused(values: pl.Series) -> None:
    with pytest.raises(InvalidInputError, match="no request can carry"):
        raw_columns(values.to_frame(), None, (), ())


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("Datetime[ns]", "2300-01-01T00:00:00"),
        ("Datetime[ns]", "0001-01-01T00:00:00"),
        ("Datetime[ns,UTC]", "9999-12-31T23:59:59+00:00"),
        ("Datetime[us,UTC]", "0001-01-01T00:00:00+14:00"),
        ("Datetime[ns,UTC]", "0001-01-01T00:00:00+14:00"),
        ("Datetime[ms,Europe/Berlin]", "9999-12-31T23:59:59-14:00"),
    ],
)
def test_a_time_that_its_type_cannot_hold_is_refused_by_its_text(dtype: str, text: str) -> None:
    columns = RawColumns([RawColumn("at", dtype, nullable=True)])
    fine = "2026-01-31T12:00:00+00:00" if "," in dtype else "2026-01-31T12:00:00"
    with pytest.raises(InvalidInputError) as refused:
        columns.frame(3, np.empty((3, 0)), [[None, fine, text]])
    assert repr(text) in refused.value.message


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers() | st.text())
    ),
)


@given(PLAIN)
def test_a_plain_value_comes_back_from_its_literal(value: object) -> None:
    text = literal(value)
    assert text is not None
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


@pytest.mark.parametrize("value", [object(), float("nan"), [object()], {"a": object()}, frozenset(), print])
def test_what_is_not_plain_has_no_literal(value: object) -> None:
    assert literal(value) is None


def test_numbers_of_numpy_become_those_of_python() -> None:
    assert literal(np.float64(1.5)) == "1.5"
    assert literal([np.int32(3), np.bool_(True)]) == "[3, True]"
    assert literal(np.array([1.0])) is None
