"""What can be learned from a user's table, and how: found out by looking at it before anything is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl

from trimtab.data.column_types import column_type
from trimtab.data.spec import ColumnSpec, ColumnType, ContractSpec
from trimtab.data.violations import judge, violated
from trimtab.data.window import Window, everything, last, share
from trimtab.errors import InvalidInputError, unknown
from trimtab.loop.intake import data_time

MOST_CATEGORIES = 200
"""A text column with more different values than this is left out of the inputs."""

MOSTLY_MISSING = 0.95
"""A column of which more than this share is missing is left out of the inputs."""

LEAST_ROWS = 50
HELD_OUT = 0.1
"""The share of the rows that is held out, the last ones where there is time."""

MICROSECOND = timedelta(microseconds=1)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class UserTable(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a table.

    `inputs` are the columns that a model may use, `left_out` those that it may not, each with the reason.
    `spread` is the target's standard deviation. `window`, what to train on, ends where `holdout` begins.
    """

    target: str
    time: str | None
    key: str | None
    contract: ContractSpec
    binary: bool
    positive: bool
    spread: float
    inputs: tuple[str, ...]
    left_out: Mapping[str, str]
    rows: int
    window: Window
    holdout: Window


def describe(
    rows: pl.DataFrame, *, target: str, time: str | None, key: str | None, now: datetime
) -> UserTable:
    """Look at a table and decide what can be learned from it, and how.

    Raises NotFoundError for a column that is not there, and InvalidInputError for a table that nothing can
    be learned from: a target or a time that is none, missing times or keys, too few rows before `now`.
    """
    named = [column for column in (target, time, key) if column is not None]
    for column in named:
        if column not in rows.columns:
            raise unknown("column", column, rows.columns)
    if target in named[1:]:
        raise InvalidInputError(f"The column '{target}' cannot be both the target and something else.")
    _check_complete(rows, time, key)
    contract, dropped = _contract(rows, target, time, key)
    judgement = judge(contract, rows)
    if judgement.violations:
        raise violated(contract, "", judgement)
    labels = _labels(rows, target)
    usable = labels.is_finite().fill_null(False)
    if time is not None:
        usable &= judgement.good[time] < now
    if usable.sum() < LEAST_ROWS:
        past = "" if time is None else " and a time before now"
        raise InvalidInputError(
            f"{usable.sum()} rows of the table have a value of '{target}'{past}; a loop needs {LEAST_ROWS}."
        )
    labels = labels.filter(usable)
    if labels.n_unique() == 1:
        raise InvalidInputError(
            f"The target '{target}' is {labels[0]:g} in all rows: nothing can be learned."
        )
    left_out = {target: "the target"} | dropped
    left_out |= {name: "the time" for name in [time] if name is not None}
    left_out |= {name: "the key" for name in [key] if name is not None}
    for name in rows.columns:
        if name not in left_out and (reason := _unusable(rows[name])):
            left_out[name] = reason
    inputs = tuple(name for name in rows.columns if name not in left_out)
    if not inputs:
        reasons = "; ".join(f"'{name}': {why}" for name, why in left_out.items() if name not in named)
        raise InvalidInputError(f"No column of the table can be an input of a model. {reasons}".strip())
    window, holdout = _windows(None if time is None else judgement.good[time].filter(usable), labels, now)
    if time is not None:
        _check_reach(judgement.good[time], holdout, now)
    spread = labels.std()
    return UserTable(
        target=target,
        time=time,
        key=key,
        contract=contract,
        binary=labels.is_in([0.0, 1.0]).all(),
        positive=bool((labels > 0).all()),
        spread=spread if isinstance(spread, float) else 0.0,
        inputs=inputs,
        left_out=left_out,
        rows=rows.height,
        window=window,
        holdout=holdout,
    )


def _check_complete(rows: pl.DataFrame, time: str | None, key: str | None) -> None:
    """Raises InvalidInputError for a time that is none, and for rows without a time or a key."""
    if time is not None and not isinstance(rows.schema[time], pl.Datetime | pl.Date):
        raise InvalidInputError(
            f"The column '{time}' holds {rows.schema[time]}, not times.",
            hint="Convert it first, or leave --time out: then a random share of the rows is held out.",
        )
    for what, column in (("a time", time), ("a key", key)):
        missing = 0 if column is None else rows[column].null_count()
        if missing:
            raise InvalidInputError(
                f"{missing} rows have no value in '{column}', which says {what} for each row.",
                hint="Drop or fill these rows first.",
            )


def _check_reach(times: pl.Series, holdout: Window, now: datetime) -> None:
    """Raises InvalidInputError where rows to come make windows count from now, long after all others end."""
    begin, end = holdout.bounds(data_time(now, newest := _newest(times), holdout))
    if not times.is_between(begin, end, closed="left").any():
        raise InvalidInputError(
            f"{(times >= now).sum()} rows lie after now, up to {newest:%Y-%m-%d} in '{times.name}', and the "
            "others end long before, so that there are no recent rows to judge by.",
            hint="Leave rows to come out, or leave --time out.",
        )


def _newest(times: pl.Series) -> datetime:
    newest = times.max()
    assert isinstance(newest, datetime)
    return newest


def _labels(rows: pl.DataFrame, target: str) -> pl.Series:
    """The target as numbers, null or not finite where there is none."""
    values = rows[target]
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return values.cast(pl.Float64)
    distinct = values.drop_nulls().unique().sort().head(3)
    hint = "Turn it into numbers first."
    if values.dtype in (pl.String, pl.Categorical, pl.Enum) and len(distinct) == 2:
        hint = f"Turn it into true and false first: pl.col({target!r}) == {distinct[1]!r}."
    raise InvalidInputError(
        f"The target '{target}' holds {values.dtype}, not numbers or true/false.", hint=hint
    )


def _contract(
    rows: pl.DataFrame, target: str, time: str | None, key: str | None
) -> tuple[ContractSpec, dict[str, str]]:
    """The contract that these rows meet, and the columns that no dataset can hold, with the reason.

    The target may always be missing: rows whose outcome is not known yet are welcome.
    """
    columns, dropped = [], {}
    for name in rows.columns:
        values = rows[name]
        try:
            kind: ColumnType = "datetime" if name == time else column_type(values)
        except InvalidInputError as error:
            if name in (target, key):
                raise
            dropped[name] = _reason(error)
            continue
        floats = values.dtype.is_float()
        holes = values.null_count() > 0 or (floats and bool(values.is_nan().any()))
        columns.append(
            ColumnSpec(
                name,
                kind,
                nullable=name == target or holes,
                finite=not (floats and bool(values.is_infinite().any())),
            )
        )
    return ContractSpec("Rows", tuple(columns), "drop" if dropped else "refuse"), dropped


def _reason(error: InvalidInputError) -> str:
    """Why a dataset cannot hold a column, within a list of columns."""
    return "it has no value" if "no value" in error.message else "a dataset cannot hold such values"


def _unusable(column: pl.Series) -> str:
    """Why a model cannot use a column; "" if it can."""
    kind = column.dtype
    text = kind in (pl.String, pl.Categorical, pl.Enum)
    if not (text or kind.is_numeric() or kind == pl.Boolean):
        return "a date or time: derive numbers from it in `prepare`"
    known = column.fill_nan(None).drop_nulls() if kind.is_float() else column.drop_nulls()
    missing = 1 - len(known) / len(column)
    distinct = known.n_unique()
    if distinct <= 1 and (missing == 0 or not len(known)):
        return "it has one value only" if len(known) else "it has no value"
    if missing > MOSTLY_MISSING:
        return f"it is missing in {missing:.0%} of the rows"
    if text:
        return f"it has {distinct} different texts" if distinct > MOST_CATEGORIES else ""
    if kind.is_float() and known.is_infinite().any():
        return "some of its values are infinite"
    if kind.is_integer() and distinct == len(column) and known.max() - known.min() == distinct - 1:  # type: ignore[operator]  # integers
        return "it numbers the rows"
    return ""


def _windows(times: pl.Series | None, labels: pl.Series, now: datetime) -> tuple[Window, Window]:
    """What to train on and what to hold out: about a tenth of the rows, the last ones where there is time.

    Windows count from now, or where the data ended before the hold-out would begin, from its end: see
    `trimtab.loop.intake.data_time`.
    """
    if times is None:
        return everything(), share(0.2 if len(labels) < 1000 else HELD_OUT)
    moments = times.value_counts().sort(times.name)
    after = moments["count"].cum_sum(reverse=True)
    place = max(1, int((after >= HELD_OUT * len(times)).sum()) - 1)
    if len(moments) < 2:
        raise InvalidInputError(
            f"All rows have the same time in '{times.name}'.", hint="Leave --time out: it says nothing."
        )
    first, before, begin, newest = (moments[times.name][at] for at in (0, place - 1, place, -1))
    end = newest + MICROSECOND
    if newest >= now - (end - begin):
        end = now.astimezone(UTC)
    return _last(1.1 * (begin - first), 2 * (begin - first)), _last(end - begin, end - before)


def _last(least: timedelta, most: timedelta) -> Window:
    """A window of at least `least` and less than `most`, in the largest unit of which it is a multiple."""
    for unit, name in ((DAY, "days"), (HOUR, "hours")):
        count = math.ceil(least / unit)
        if count * unit < most:
            return last(**{name: count})
    return last(hours=(least + most) / 2 / HOUR)
