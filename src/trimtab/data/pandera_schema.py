"""Contracts from and to pandera: the only module that loads it.

Rules that a contract can say are translated, so that they travel with the dataset; all others of a pandera
schema become checks that pandera itself runs where the schema is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pandera.polars as pa
import polars as pl

from trimtab.data.column_types import DTYPES, column_type
from trimtab.data.spec import ColumnSpec, ContractSpec, Unexpected
from trimtab.data.violations import RowCheck
from trimtab.errors import InvalidInputError

_BOUNDS = {
    "greater_than_or_equal_to": ("ge", "min_value"),
    "greater_than": ("gt", "min_value"),
    "less_than_or_equal_to": ("le", "max_value"),
    "less_than": ("lt", "max_value"),
}


def of_spec(spec: ContractSpec, checks: Sequence[RowCheck] = ()) -> pa.DataFrameSchema:
    """The contract as a pandera schema, for rows of the contract's own types."""
    return pa.DataFrameSchema(
        {column.name: _column(column) for column in spec.columns},
        checks=[_whole_rows(check) for check in checks],
        strict="filter" if spec.unexpected == "drop" else spec.unexpected == "refuse",
        name=spec.name,
    )


def is_pandera(contract: object) -> bool:
    """Whether `contract` is a schema or a model of pandera.polars."""
    return isinstance(contract, pa.DataFrameSchema) or (
        isinstance(contract, type) and issubclass(contract, pa.DataFrameModel)
    )


def to_spec(contract: Any) -> tuple[ContractSpec, tuple[RowCheck, ...]]:
    """A pandera schema or model as a contract, and what of it only pandera can check."""
    schema = contract if isinstance(contract, pa.DataFrameSchema) else contract.to_schema()
    name = schema.name or getattr(contract, "__name__", "") or "pandera schema"
    columns, checks = [], []
    for column in schema.columns.values():
        if column.regex:
            raise InvalidInputError(
                f"Column '{column.name}' of {name} stands for many columns by a pattern.",
                hint="Name the columns.",
            )
        rules, rest = _translated(column.checks)
        columns.append(
            ColumnSpec(
                column.name,
                column_type(pl.Series(column.name, dtype=_dtype(column))),
                nullable=column.nullable,
                required=column.required,
                unique=column.unique,
                finite=False,
                **rules,
            )
        )
        checks += [_by_pandera(f"{column.name} {_named(check)}", column.name, check) for check in rest]
    checks += [_by_pandera(_named(check), None, check) for check in schema.checks]
    unexpected: Unexpected = "keep"
    if schema.strict:
        unexpected = "drop" if schema.strict == "filter" else "refuse"
    names = tuple(check.name for check in checks)
    return ContractSpec(name, tuple(columns), unexpected, names), tuple(checks)


def _column(column: ColumnSpec) -> pa.Column:
    checks = []
    for rule in ("ge", "gt", "le", "lt"):
        bound = getattr(column, rule)
        if bound is not None:
            checks.append(getattr(pa.Check, rule)(_native(bound, column)))
    if column.isin is not None:
        checks.append(pa.Check.isin(list(column.isin)))
    if column.regex is not None:
        checks.append(pa.Check.str_matches(f"^(?:{column.regex})$"))
    if column.type == "float" and column.finite:
        checks.append(
            pa.Check(lambda data: data.lazyframe.select(~pl.col(data.key).is_infinite()), name="finite")
        )
    return pa.Column(
        DTYPES[column.type],
        checks=checks,
        nullable=column.nullable,
        required=column.required,
        unique=column.unique,
        report_duplicates="exclude_first",
        description=column.description or None,
    )


def _native(bound: int | float | datetime, column: ColumnSpec) -> object:
    return bound.date() if isinstance(bound, datetime) and column.type == "date" else bound


def _whole_rows(check: RowCheck) -> pa.Check:
    def holds(data: pa.PolarsData) -> pl.LazyFrame:
        answer = check.holds(data.lazyframe.collect())
        return data.lazyframe.select(answer.alias("holds") if isinstance(answer, pl.Expr) else pl.lit(answer))

    return pa.Check(holds, name=check.name)


def _translated(checks: Sequence[pa.Check]) -> tuple[dict[str, Any], list[pa.Check]]:
    """The rules that a contract can say, and the checks that it cannot."""
    rules: dict[str, Any] = {}
    rest = []
    for check in checks:
        rule, value = _rule(check)
        if rule is None or rule in rules:
            rest.append(check)
        else:
            rules[rule] = value
    return rules, rest


def _rule(check: pa.Check) -> tuple[str | None, Any]:
    statistics = check.statistics or {}
    if check.name in _BOUNDS:
        rule, key = _BOUNDS[check.name]
        value = statistics.get(key)
        if isinstance(value, datetime):
            value = value.replace(tzinfo=value.tzinfo or UTC)
        if isinstance(value, int | float | datetime) and not isinstance(value, bool):
            return rule, value
    if check.name == "isin":
        return "isin", tuple(statistics["allowed_values"])
    return None, None


def _by_pandera(name: str, column: str | None, check: pa.Check) -> RowCheck:
    def holds(rows: pl.DataFrame) -> pl.Series:
        schema = (
            pa.DataFrameSchema(checks=[check])
            if column is None
            else pa.DataFrameSchema({column: pa.Column(checks=[check], nullable=True)})
        )
        try:
            schema.validate(rows, lazy=True)
        except pa.errors.SchemaErrors as error:
            positions = error.failure_cases.get_column("index")
            broken = pl.int_range(rows.height, eager=True).is_in(positions.drop_nulls().implode())
            return ~broken if not positions.has_nulls() else pl.repeat(False, rows.height, eager=True)
        return pl.repeat(True, rows.height, eager=True)

    return RowCheck(name, holds)


def _named(check: pa.Check) -> str:
    return str(check.error or check.name or "check")


def _dtype(column: pa.Column) -> pl.DataType:
    if column.dtype is None:
        raise InvalidInputError(f"Column '{column.name}' has no type.", hint="Give it one.")
    found: pl.DataType = column.dtype.type
    return found
