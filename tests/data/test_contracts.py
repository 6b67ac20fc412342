from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime
from typing import Any, Literal

import msgspec
import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data.contracts import Contract, check, contract_of, field
from trimtab.data.spec import ColumnSpec, ContractSpec
from trimtab.data.violations import REASON, Judgement, Violation, judge
from trimtab.errors import ContractViolationError, InvalidInputError

AT = datetime(2011, 1, 1, tzinfo=UTC)


class Rentals(Contract):
    at: datetime
    weather: Literal["clear", "mist"] | None
    temp: float = field(ge=-60, le=60)
    station: str = field(regex=r"[A-Z]{2}\d+")
    casual: int = field(ge=0)
    registered: int = field(ge=0)
    cnt: int = field(gt=0)
    open: bool = field(required=False, nullable=True)
    lag: float = field(required=False, nullable=True)

    @check("the parts add up")
    @staticmethod
    def adds_up(rows: pl.DataFrame) -> pl.Expr:
        return pl.col("casual") + pl.col("registered") == pl.col("cnt")


def rentals(**columns: list[Any]) -> pl.DataFrame:
    rows = {
        "at": [AT, AT],
        "weather": ["clear", None],
        "temp": [1.5, 2.0],
        "station": ["DC1", "DC22"],
        "casual": [1, 2],
        "registered": [3, 4],
        "cnt": [4, 6],
        **columns,
    }
    return pl.DataFrame(rows, strict=False)


def judged(rows: pl.DataFrame, contract: type[Contract] = Rentals) -> Judgement:
    return judge(contract.spec(), rows, contract.checks())


def test_good_rows_come_back_in_the_contracts_columns_and_types() -> None:
    rows = rentals(temp=[1, 2]).reverse().select(pl.all().reverse())
    found = Rentals.validate(rows)
    assert found.columns == [column.name for column in Rentals.spec().columns]
    assert found.schema["temp"] == pl.Float64
    assert found["open"].to_list() == [None, None]


@pytest.mark.parametrize(
    ("columns", "column", "rule"),
    [
        ({"temp": [math.nan, 1.0]}, "temp", "not null"),
        ({"temp": [None, 1.0]}, "temp", "not null"),
        ({"temp": [1.0, 2.0], "lag": [-math.inf, 1.0]}, "lag", "finite"),
        ({"temp": [-61.0, 1.0]}, "temp", "ge=-60"),
        ({"temp": [61.0, 1.0]}, "temp", "le=60"),
        ({"weather": ["hail", "mist"]}, "weather", "isin=[clear, mist]"),
        ({"station": ["dc1", "DC1"]}, "station", r"regex=[A-Z]{2}\d+"),
        ({"station": ["DC1\n", "DC1"]}, "station", r"regex=[A-Z]{2}\d+"),
        ({"casual": [0, 2], "cnt": [0, 6], "registered": [0, 4]}, "cnt", "gt=0"),
        ({"casual": [7, 2]}, "", "the parts add up"),
        ({"at": [None, AT]}, "at", "not null"),
    ],
)
def test_a_broken_rule_is_told_with_its_count_and_its_rows(
    columns: dict[str, list[Any]], column: str, rule: str
) -> None:
    judgement = judged(rentals(**columns))
    assert [(found.column, found.rule, found.count) for found in judgement.violations] == [(column, rule, 1)]
    violation = judgement.violations[0]
    assert violation.rows == (0,)
    assert violation.sample[0]["station"] == rentals(**columns)["station"][0]
    assert (judgement.good.height, judgement.bad.height) == (1, 1)
    assert judgement.bad[REASON].to_list() == [f"{column} {rule}".strip()]


def test_a_row_that_breaks_two_rules_is_one_bad_row_with_both_reasons() -> None:
    judgement = judged(rentals(temp=[99.0, 1.0], station=["?", "DC1"]))
    assert judgement.bad[REASON].to_list() == [r"temp le=60; station regex=[A-Z]{2}\d+"]
    assert judgement.good.height == 1


def test_the_error_names_column_rule_count_and_a_row() -> None:
    with pytest.raises(
        ContractViolationError, match=r"1 row .*'Rentals'.*temp: ge=-60 .*row 0 is -99\.0"
    ) as caught:
        Rentals.validate(rentals(temp=[-99.0, 2.0]))
    assert isinstance(caught.value.violations[0], Violation)
    assert b'"temp"' in msgspec.json.encode(caught.value.violations)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (rentals().drop("temp"), "temp: missing column"),
        (rentals().rename({"station": "stations"}), "did you rename it to 'stations'"),
        (rentals(extra=[1, 2]), "extra: unexpected column"),
        (rentals(temp=["1.5", "2.0"]), "temp: type float; it is String, for example '1.5'"),
        (rentals(cnt=[4.0, 6.0]), "cnt: type int"),
        (rentals(at=["2011-01-01", "2011-01-02"]), r"at: type datetime; .*str\.to_datetime"),
        (rentals(casual=[True, False]), "casual: type int"),
        (rentals(open=[1, 0]), "open: type bool"),
    ],
)
def test_wrong_columns_and_types_are_told_and_no_row_is_judged(rows: pl.DataFrame, words: str) -> None:
    with pytest.raises(ContractViolationError, match=words):
        Rentals.validate(rows)
    judgement = judged(rows)
    assert judgement.structural
    assert judgement.good.height == judgement.bad.height == 0


def test_all_that_is_wrong_with_the_columns_is_told_at_once() -> None:
    judgement = judged(rentals(temp=["a", "b"], extra=[1, 2]).drop("cnt"))
    assert {violation.column for violation in judgement.violations} == {"temp", "extra", "cnt"}


def test_safe_casts_are_made() -> None:
    class Casts(Contract):
        x: float
        n: int
        w: str
        at: datetime
        later: datetime

    rows = pl.DataFrame(
        {
            "x": pl.Series([1], dtype=pl.Int32),
            "n": pl.Series([2], dtype=pl.UInt64),
            "w": pl.Series(["a"], dtype=pl.Categorical),
            "at": [date(2011, 1, 1)],
            "later": pl.Series([datetime(2011, 1, 1)], dtype=pl.Datetime("ns")),  # noqa: DTZ001
        }
    )
    found = Casts.validate(rows)
    assert found.row(0) == (1.0, 2, "a", AT, AT)
    assert found.schema["at"] == pl.Datetime("us", "UTC")
    too_large = rows.with_columns(n=pl.lit(2**63, dtype=pl.UInt64))
    with pytest.raises(ContractViolationError, match="n: type int"):
        Casts.validate(too_large)


def test_of_rows_that_should_be_unique_the_first_is_good() -> None:
    class Keys(Contract):
        id: int | None = field(unique=True)

    judgement = judged(pl.DataFrame({"id": [1, 2, 1, None, None, 1]}), Keys)
    assert judgement.good["id"].to_list() == [1, 2, None, None]
    assert judgement.violations[0].rows == (2, 5)


def test_a_missing_value_that_is_allowed_breaks_no_other_rule_and_nan_becomes_null() -> None:
    class Holes(Contract):
        x: float | None = field(ge=0, isin=[1.0, 2.0])

    judgement = judged(pl.DataFrame({"x": [None, math.nan, 1.0]}), Holes)
    assert judgement.violations == ()
    assert judgement.good["x"].to_list() == [None, None, 1.0]


@pytest.mark.parametrize(("policy", "columns"), [("drop", ["x"]), ("keep", ["x", "more"])])
def test_a_contract_may_drop_or_keep_unexpected_columns(
    policy: Literal["drop", "keep"], columns: list[str]
) -> None:
    class Loose(Contract, unexpected=policy):
        x: float

    assert Loose.validate(pl.DataFrame({"x": [1.0], "more": ["a"]})).columns == columns


def test_contracts_inherit_and_may_have_columns_that_python_cannot_spell() -> None:
    class More(Rentals):
        wind_speed: float = field(ge=0, name="wind speed")

    assert [column.name for column in More.spec().columns][-1] == "wind speed"
    assert len(More.checks()) == 1
    assert len(Rentals.spec().columns) == 9


def test_columns_may_be_called_as_the_methods_of_a_contract() -> None:
    members = {"__annotations__": {"spec": float, "validate": float}, "spec": field(ge=0)}
    spec, _ = contract_of(type("Named", (Contract,), members))
    assert [column.name for column in spec.columns] == ["spec", "validate"]
    assert spec.columns[0].ge == 0


def test_a_contract_travels_as_json_and_judges_alike() -> None:
    spec = Rentals.spec()
    there = msgspec.json.decode(msgspec.json.encode(spec), type=ContractSpec)
    assert there == spec
    assert there.checks == ("the parts add up",)
    rows = rentals(temp=[99.0, 1.0])
    assert judge(there, rows).violations == judge(spec, rows).violations


def test_a_bound_of_a_time_travels_too() -> None:
    class Dated(Contract):
        at: datetime = field(ge=date(2011, 1, 1))
        day: date = field(lt=date(2012, 1, 1))

    spec = msgspec.json.decode(msgspec.json.encode(Dated.spec()), type=ContractSpec)
    rows = pl.DataFrame(
        {"at": [AT, datetime(2010, 12, 31, tzinfo=UTC)], "day": [date(2012, 1, 1), date(2011, 1, 1)]}
    )
    assert [violation.column for violation in judge(spec, rows).violations] == ["at", "day"]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"type": "str", "ge": 1}, "ge is for"),
        ({"type": "float", "regex": "a"}, "regex is for str"),
        ({"type": "str", "regex": "("}, "not a pattern"),
        ({"type": "str", "isin": [1]}, "not of that type"),
        ({"type": "int", "isin": []}, "at least one"),
        ({"type": "float", "ge": math.nan}, "NaN"),
        ({"type": "datetime", "ge": 1}, "not of that type"),
    ],
)
def test_rules_that_do_not_fit_their_column_are_refused(column: dict[str, Any], words: str) -> None:
    with pytest.raises((InvalidInputError, msgspec.ValidationError), match=words):
        msgspec.convert({"name": "x", **column}, ColumnSpec)


def test_a_pattern_that_polars_cannot_apply_is_the_users_error() -> None:
    class Looking(Contract):
        x: str = field(regex="a(?=b)")

    with pytest.raises(InvalidInputError, match="cannot be applied"):
        Looking.validate(pl.DataFrame({"x": ["ab"]}))


def test_annotations_and_defaults_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no type of a column"):

        class Lists(Contract):
            x: list[int]

    with pytest.raises(InvalidInputError, match=r"tt\.field"):

        class Defaults(Contract):
            x: float = 1.0

    with pytest.raises(InvalidInputError, match="no columns"):
        contract_of(type("Empty", (Contract,), {}))

    with pytest.raises(InvalidInputError, match="upper and lower case"):
        ContractSpec("Trips", (ColumnSpec("city", "str"), ColumnSpec("City", "str")))
    with pytest.raises(InvalidInputError, match="twice"):
        ContractSpec("Twice", (ColumnSpec("x", "int"), ColumnSpec("x", "int")))


def test_a_check_that_does_not_answer_booleans_is_refused() -> None:
    class Odd(Contract):
        x: float

        @check("odd")
        @staticmethod
        def odd(rows: pl.DataFrame) -> pl.Expr:
            return pl.col("x")

    with pytest.raises(InvalidInputError, match="'odd' must answer one boolean"):
        Odd.validate(pl.DataFrame({"x": [1.0]}))


class Everything(Contract):
    x: float = field(ge=-1, lt=5)
    n: int | None = field(gt=0, le=3)
    w: str | None = field(isin=["a", "bb"])
    r: str = field(regex="a+b?")
    u: int = field(unique=True)
    o: bool | None


everything = st.lists(
    st.fixed_dictionaries(
        {
            "x": st.one_of(st.none(), st.floats(-3, 7), st.sampled_from([math.nan, math.inf])),
            "n": st.one_of(st.none(), st.integers(-1, 5)),
            "w": st.one_of(st.none(), st.sampled_from(["a", "bb", "c"])),
            "r": st.one_of(st.none(), st.text("ab", max_size=3)),
            "u": st.integers(0, 6),
            "o": st.one_of(st.none(), st.booleans()),
        }
    ),
    min_size=1,
    max_size=6,
)
DTYPES = {"x": pl.Float64, "n": pl.Int64, "w": pl.String, "r": pl.String, "u": pl.Int64, "o": pl.Boolean}


@given(everything)
@settings(max_examples=80, deadline=None)
def test_rows_break_a_contract_exactly_where_they_break_its_pandera_schema(
    rows: list[dict[str, Any]],
) -> None:
    frame = pl.DataFrame(rows, schema=DTYPES)
    ours = {violation.column for violation in judge(Everything.spec(), frame).violations}
    schema = Everything.to_pandera()
    try:
        schema.validate(frame, lazy=True)
        theirs: set[str] = set()
    except pa.errors.SchemaErrors as error:
        theirs = set(error.failure_cases["column"].to_list())
    assert ours == theirs


def test_a_contracts_check_goes_along_to_pandera() -> None:
    schema = Rentals.to_pandera()
    good = Rentals.validate(rentals())
    schema.validate(good)
    with pytest.raises(pa.errors.SchemaError, match="the parts add up"):
        schema.validate(good.with_columns(casual=pl.lit(9, pl.Int64)))


def test_a_pandera_model_is_a_contract_too() -> None:
    class Model(pa.DataFrameModel):
        x: float = pa.Field(ge=0, le=10)
        w: str = pa.Field(isin=["a", "b"], nullable=True)
        n: int = pa.Field(unique=True, str_length=None)

        @pa.check("n")
        def even(cls, data: pa.PolarsData) -> pl.LazyFrame:  # noqa: N805
            return data.lazyframe.select(pl.col(data.key) % 2 == 0)

        class Config:
            strict = True

    spec, checks = contract_of(Model)
    assert spec.unexpected == "refuse"
    column = spec.column("x")
    assert column is not None
    assert (column.ge, column.le, column.nullable) == (0, 10, False)
    assert len(checks) == 1
    rows = pl.DataFrame({"x": [1.0, -1.0, 2.0], "w": ["a", None, "c"], "n": [2, 4, 5]})
    judgement = judge(spec, rows, checks)
    assert [(found.column, found.rows) for found in judgement.violations] == [
        ("x", (1,)),
        ("w", (2,)),
        ("", (2,)),
    ]


def test_what_is_no_contract_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="is not a contract"):
        contract_of(dict)


def test_judging_by_a_contract_loads_neither_pandera_nor_pandas() -> None:
    code = (
        "import sys, polars as pl\n"
        "from trimtab.data.contracts import Contract, field\n"
        "class C(Contract):\n    x: float = field(ge=0)\n"
        "C.validate(pl.DataFrame({'x': [1.0]}))\n"
        "print(sorted({'pandera', 'pandas', 'pydantic', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
