"""Judging rows by a contract: which rows break which rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import msgspec
import polars as pl

from trimtab.data.column_types import DTYPES, column_type, in_type, is_safe
from trimtab.data.spec import RESERVED, ColumnSpec, ContractSpec
from trimtab.errors import ContractViolationError, InvalidInputError, unknown

SAMPLE_ROWS = 5
_SHOWN = 5

Scalar = str | int | float | bool | None


class Violation(msgspec.Struct, frozen=True):
    """A rule that rows break.

    `column` is empty for rules over whole rows. `count` is the number of rows, or all of them where a whole
    column is missing, unexpected or of the wrong type. `rows` and `sample` are the positions (from 0) and
    contents of the first few; times are written as text.
    """

    column: str
    rule: str
    count: int
    rows: tuple[int, ...] = ()
    sample: tuple[dict[str, Scalar], ...] = ()
    hint: str = ""

    def __str__(self) -> str:
        told = f"{self.column}: {self.rule}" if self.column else self.rule
        if self.rows:
            value = f" is {self.sample[0].get(self.column)!r}" if self.column in self.sample[0] else ""
            told += f" broken by {_rows(self.count)} (row {self.rows[0]}{value})"
        return f"{told}; {self.hint}" if self.hint else told


@dataclass(frozen=True, slots=True)
class RowCheck:
    """A rule of the user's own over whole rows. `holds` answers an expression or a boolean column that is
    true where the rule holds; null counts as holding."""

    name: str
    holds: Callable[[pl.DataFrame], pl.Expr | pl.Series]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Rows as the contract sees them.

    `good` and `bad` have the contract's columns and types, and in column ROW the place that each row was
    given at; `bad` has the reasons in column REASON. Where a whole column is at fault (`structural`) no row
    can be judged, and both are empty.
    """

    good: pl.DataFrame
    bad: pl.DataFrame
    violations: tuple[Violation, ...]
    structural: bool


ROW = RESERVED + "row"
REASON = RESERVED + "reason"
_BAD = RESERVED + "bad"


def judge(spec: ContractSpec, rows: pl.DataFrame, checks: Sequence[RowCheck] = ()) -> Judgement:
    """Which of `rows` meet the contract, and what the others break."""
    shaped, faults = _shaped(spec, rows)
    if shaped is None:
        return Judgement(rows.clear(), rows.clear(), tuple(faults), structural=True)
    present = [column for column in spec.columns if column.name in shaped.columns]
    broken = _broken(present, shaped, checks)
    violations, reasons = [], []
    for (column, rule), mask in broken:
        count = int(mask.sum())
        if count:
            violations.append(_violation(column, rule, count, mask, rows))
            reasons.append((f"{column} {rule}".strip(), mask))
    if not violations:
        good = shaped.with_columns(_positions(shaped.height))
        bad = good.clear().with_columns(pl.lit(None, pl.String).alias(REASON))
        return Judgement(good, bad, (), structural=False)
    said = pl.concat_str(
        [pl.when(mask).then(pl.lit(reason)) for reason, mask in reasons], separator="; ", ignore_nulls=True
    )
    marked = shaped.with_columns(
        _positions(shaped.height),
        pl.any_horizontal([mask for _, mask in reasons]).alias(_BAD),
        said.alias(REASON),
    )
    good = marked.filter(~pl.col(_BAD)).drop(_BAD, REASON)
    return Judgement(good, marked.filter(_BAD).drop(_BAD), tuple(violations), structural=False)


def violated(spec: ContractSpec, dataset: str, judgement: Judgement) -> ContractViolationError:
    """The error that says what `judgement` found."""
    found = judgement.violations
    told = "; ".join(str(violation) for violation in found[:_SHOWN])
    if len(found) > _SHOWN:
        told += f"; and {len(found) - _SHOWN} more"
    about = f" of dataset '{dataset}'" if dataset else ""
    if judgement.structural:
        message = f"The columns do not meet the contract '{spec.name}'{about}: {told}."
        hint = "Give the columns the names and types that the contract has."
    else:
        message = f"{_rows(judgement.bad.height)} break the contract '{spec.name}'{about}: {told}."
        hint = "Correct them, or append with on_violation='quarantine' to keep them aside."
    return ContractViolationError(message, hint=hint, violations=found)


def _positions(height: int) -> pl.Series:
    return pl.int_range(height, dtype=pl.Int64, eager=True).alias(ROW)


def _shaped(spec: ContractSpec, rows: pl.DataFrame) -> tuple[pl.DataFrame | None, list[Violation]]:
    """`rows` with the contract's columns in its order and types, or what stands against that."""
    faults = []
    known = {column.name for column in spec.columns}
    strangers = [name for name in rows.columns if name not in known]
    for column in spec.columns:
        if column.name not in rows.columns:
            if column.required:
                near = _near(column.name, strangers)
                faults.append(Violation(column.name, "missing column", rows.height, hint=near))
        elif not is_safe(rows.get_column(column.name), column.type):
            faults.append(_wrong_type(column, rows))
    for name in strangers:
        if spec.unexpected == "refuse":
            faults.append(Violation(name, "unexpected column", rows.height))
        elif spec.unexpected == "keep":
            column_type(rows.get_column(name))  # raises for a type that cannot be kept
    if faults:
        return None, faults
    kept = [in_type(column.name, column.type) for column in spec.columns if column.name in rows.columns]
    absent = [
        pl.lit(None, DTYPES[column.type]).alias(column.name)
        for column in spec.columns
        if column.name not in rows.columns
    ]
    extra = strangers if spec.unexpected == "keep" else []
    kept += [in_type(name, column_type(rows.get_column(name))) for name in extra]
    shaped = rows.select(kept).with_columns(absent)
    shaped = shaped.select([column.name for column in spec.columns] + extra)
    nullable = [column.name for column in spec.columns if column.nullable and column.type == "float"]
    return shaped.with_columns(pl.col(nullable).fill_nan(None)) if nullable else shaped, []


def _broken(
    columns: Sequence[ColumnSpec], rows: pl.DataFrame, checks: Sequence[RowCheck]
) -> list[tuple[tuple[str, str], pl.Series]]:
    """For each rule, where it is broken."""
    rules = [((column.name, rule), broken) for column in columns for rule, broken in _rules(column)]
    try:
        masks = rows.select(broken.fill_null(False).alias(str(i)) for i, (_, broken) in enumerate(rules))
    except pl.exceptions.ComputeError as error:
        raise InvalidInputError(f"A rule of the contract cannot be applied: {error}.") from error
    found = [(label, masks.get_column(str(i))) for i, (label, _) in enumerate(rules)]
    return found + [(("", check.name), _fails(check, rows)) for check in checks]


def _rules(column: ColumnSpec) -> Iterable[tuple[str, pl.Expr]]:
    """Each rule of a column, by the words that a contract says it in, and the expression for "broken"."""
    value = pl.col(column.name)
    is_float = column.type == "float"
    if not column.nullable:
        yield "not null", (value.is_null() | value.is_nan()) if is_float else value.is_null()
    present = value.is_not_nan() if is_float else pl.lit(True)
    if is_float and column.finite:
        yield "finite", value.is_infinite()
    for rule, bound, within in (
        ("ge", column.ge, value.ge),
        ("gt", column.gt, value.gt),
        ("le", column.le, value.le),
        ("lt", column.lt, value.lt),
    ):
        if bound is not None:
            yield f"{rule}={_shown(bound)}", present & ~within(_literal(bound, column))
    if column.isin is not None:
        choices = pl.Series(list(column.isin), dtype=DTYPES[column.type])
        yield f"isin=[{', '.join(map(str, column.isin))}]", present & ~value.is_in(choices.implode())
    if column.regex is not None:
        yield f"regex={column.regex}", ~value.str.contains(f"^(?:{column.regex})$")
    if column.unique:
        yield "unique", present & value.is_not_null() & ~value.is_first_distinct()


def _literal(bound: int | float | datetime, column: ColumnSpec) -> pl.Expr:
    if isinstance(bound, datetime):
        return pl.lit(bound.date() if column.type == "date" else bound)
    return pl.lit(bound)


def _fails(check: RowCheck, rows: pl.DataFrame) -> pl.Series:
    try:
        holds: object = check.holds(rows)
        if isinstance(holds, pl.Expr):
            holds = rows.select(holds.alias("holds")).get_column("holds")
    except pl.exceptions.PolarsError as error:
        raise InvalidInputError(f"The check '{check.name}' cannot be applied: {error}.") from error
    if not isinstance(holds, pl.Series) or holds.dtype != pl.Boolean or len(holds) != rows.height:
        raise InvalidInputError(
            f"The check '{check.name}' must answer one boolean for each row.",
            hint="Return a Polars expression such as pl.col('a') < pl.col('b').",
        )
    return ~holds.fill_null(True)


def _violation(column: str, rule: str, count: int, mask: pl.Series, rows: pl.DataFrame) -> Violation:
    positions = tuple(mask.arg_true().head(SAMPLE_ROWS).to_list())
    return Violation(column, rule, count, positions, _sample(rows[list(positions)]))


def _wrong_type(column: ColumnSpec, rows: pl.DataFrame) -> Violation:
    values = rows.get_column(column.name)
    hint = f"it is {values.dtype}"
    if column.type in ("datetime", "date") and values.dtype == pl.String:
        hint += ", so parse it first (in Polars: str.to_datetime)"
    example = values.drop_nulls().head(1).to_list()
    if example:
        hint += f", for example {example[0]!r}"[:120]
    return Violation(column.name, f"type {column.type}", rows.height, hint=hint)


def _sample(rows: pl.DataFrame) -> tuple[dict[str, Scalar], ...]:
    return tuple({name: _scalar(value) for name, value in row.items()} for row in rows.to_dicts())


def _scalar(value: object) -> Scalar:
    if value is None or isinstance(value, str | int | float):  # a bool is an int
        return value
    return value.isoformat() if isinstance(value, date) else str(value)


def _near(name: str, others: Sequence[str]) -> str:
    hint = unknown("column", name, others).hint
    return "did you rename it to " + hint.removeprefix("Did you mean ") if "Did you mean" in hint else ""


def _shown(bound: int | float | datetime) -> str:
    return bound.isoformat() if isinstance(bound, datetime) else str(bound)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
