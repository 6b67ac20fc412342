"""`trimtab init --data`: a project that works on a user's own table, as code that they then own.

The written `loop.py` is meant to be read and changed; nothing reads it but Python.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl

from trimtab.data.datasets import Datasets
from trimtab.digest import digest_file
from trimtab.errors import ConflictError, InvalidInputError, unknown
from trimtab.workspace import Workspace

MOST_CATEGORIES = 200
"""A text column with more different values than this is left out of the inputs."""

LEAST_ROWS = 50


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a user's table: `inputs` are the columns that a model may use, `left_out`
    those that it may not, each with the reason."""

    name: str
    target: str
    time: str | None
    key: str | None
    binary: bool
    inputs: tuple[str, ...]
    left_out: dict[str, str]
    rows: int
    span: timedelta | None


def describe(rows: pl.DataFrame, *, name: str, target: str, time: str | None, key: str | None) -> Table:
    """Look at a table and decide what can be learned from it how.

    Raises NotFoundError for a column that is not there, InvalidInputError for a table that nothing can be
    learned from: too few rows, a target that is neither a number nor true/false, a time that is not one.
    """
    for column in (target, time, key):
        if column is not None and column not in rows.columns:
            raise unknown("column", column, rows.columns)
    if rows.height < LEAST_ROWS:
        raise InvalidInputError(f"The table has {rows.height} rows; a loop needs at least {LEAST_ROWS}.")
    kind = rows.schema[target]
    if not (kind.is_numeric() or kind == pl.Boolean):
        raise InvalidInputError(
            f"The target '{target}' holds {kind}, not numbers or true/false.",
            hint="Turn it into 0 and 1, or into a number, first.",
        )
    if time is not None and not isinstance(rows.schema[time], pl.Datetime | pl.Date):
        raise InvalidInputError(f"The column '{time}' holds {rows.schema[time]}, not times.")
    left_out = {target: "the target"}
    if time is not None:
        left_out[time] = "the time"
    if key is not None:
        left_out[key] = "the key"
    for column in rows.columns:
        reason = None if column in left_out else _unusable(rows[column])
        if reason is not None:
            left_out[column] = reason
    inputs = tuple(column for column in rows.columns if column not in left_out)
    if not inputs:
        raise InvalidInputError(f"No column of the table but '{target}' can be an input of a model.")
    values = rows[target].drop_nulls().unique()
    return Table(
        name=name,
        target=target,
        time=time,
        key=key,
        binary=kind == pl.Boolean or set(values.to_list()) <= {0, 1},
        inputs=inputs,
        left_out=left_out,
        rows=rows.height,
        span=None if time is None else _span(rows[time]),
    )


def start_project(
    folder: Path, rows: pl.DataFrame, source: Path, *, target: str, time: str | None, key: str | None
) -> list[Path]:
    """Write a project that learns `target` from these rows of the file `source`, with a workspace that holds
    them; answers the files written. See `describe` for what is refused; then nothing is written."""
    table = describe(rows, name=dataset_name(source), target=target, time=time, key=key)
    files = write_project(folder, rows, table)
    with Workspace.create(folder) as workspace:
        datasets = Datasets(workspace)
        datasets.create(table.name, time=time, key=[key] if key else [])
        datasets.append(table.name, rows, key=digest_file(source))
    return files


def dataset_name(path: Path) -> str:
    """A name for the dataset of a file: its own name, in the letters that names may have."""
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")
    return name or "rows"


def write_project(folder: Path, rows: pl.DataFrame, table: Table) -> list[Path]:
    """Write `trimtab.toml`, `loop.py` and a README; raises ConflictError if the folder holds one of them."""
    files = {
        "trimtab.toml": '# The loop that `trimtab up` applies.\nloop = "loop:loop"\n',
        "loop.py": _loop_source(rows, table),
        "README.md": _readme(table),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (folder / name).exists():
            raise ConflictError(f"{folder / name} is already there.", hint="Name another folder with --dir.")
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def _unusable(column: pl.Series) -> str | None:
    kind = column.dtype
    if kind.is_numeric() or kind == pl.Boolean:
        return "it has one value only" if column.n_unique() == 1 else None
    if kind in (pl.String, pl.Categorical, pl.Enum):
        distinct = column.n_unique()
        if distinct == 1:
            return "it has one value only"
        return f"it has {distinct} different texts" if distinct > MOST_CATEGORIES else None
    return f"a model cannot use {kind}: derive numbers from it in `prepare`"


def _span(times: pl.Series) -> timedelta:
    first, last = times.min(), times.max()
    if first is None or last is None:
        raise InvalidInputError(f"The column '{times.name}' holds no time at all.")
    span = last - first  # type: ignore[operator]  # both are dates or both are times
    assert isinstance(span, timedelta)
    return span


def _annotation(column: pl.Series) -> str:
    kind = column.dtype
    if kind.is_integer():
        name = "int"
    elif kind.is_numeric():
        name = "float"
    elif kind == pl.Boolean:
        name = "bool"
    elif isinstance(kind, pl.Datetime):
        name = "datetime"
    elif kind == pl.Date:
        name = "date"
    else:
        name = "str"
    holes = column.null_count() > 0 or (kind.is_float() and bool(column.is_nan().any()))
    return f"{name} | None" if holes else name


def _contract_lines(rows: pl.DataFrame) -> list[str]:
    lines = []
    for name in rows.columns:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise InvalidInputError(
                f"The column '{name}' has a name that Python cannot use.", hint="Rename it in the file first."
            )
        lines.append(f"    {name}: {_annotation(rows[name])}")
    return lines


def _quoted(names: Sequence[str]) -> str:
    lines, line = [], "   "
    for name in names:
        item = f' "{name}",'
        if len(line) + len(item) > 100:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join([*lines, line])


def _loop_source(rows: pl.DataFrame, table: Table) -> str:
    metric = "log_loss" if table.binary else "rmse"
    objective = "binary" if table.binary else "regression"
    contract = "\n".join(_contract_lines(rows))
    imports = sorted(
        {"datetime" for column in rows.columns if isinstance(rows.schema[column], pl.Datetime)}
        | {"date" for column in rows.columns if rows.schema[column] == pl.Date}
    )
    first_line = f"from datetime import {', '.join(imports)}\n\n" if imports else ""
    window, holdout = _windows(table)
    target = table.target
    monitors = f'tt.Drift(), tt.Performance("{metric}", drop=0.1)'
    return f'''"""Learns `{target}` from the other columns of the dataset `{table.name}`. Yours to change."""

{first_line}import lightgbm as lgb
import polars as pl

import trimtab as tt

INPUTS = [
{_quoted(table.inputs)}
]


class Rows(tt.Contract):
    """What every row must be; add rules with tt.field(ge=0, isin=[...], ...)."""

{contract}


@tt.step
def prepare(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows to learn from: those whose target is known."""
    return rows.drop_nulls("{target}")


@tt.step
def train(rows: pl.DataFrame) -> tt.Model:
    """Gradient-boosted trees."""
    inputs = tt.inputs(rows, INPUTS, nullable=True)
    labels = rows["{target}"].cast(pl.Float64).to_numpy()
    data = lgb.Dataset(
        inputs.matrix(rows),
        labels,
        feature_name=inputs.names,
        categorical_feature=inputs.categorical,
    )
    parameters = {{"objective": "{objective}", "learning_rate": 0.05, "num_leaves": 15, "verbose": -1}}
    booster = lgb.train(parameters, data, num_boost_round=200)
    tt.log(rows=rows.height, mean_target=labels.mean())
    return tt.Model.lightgbm(booster, inputs, target="{target}")


@tt.pipeline
def training(window: tt.Window = {window}) -> tt.Model:
    """From the rows of the window to a model."""
    return train(prepare(tt.dataset("{table.name}", contract=Rows).window(window)))


loop = tt.Loop(
    "{table.name}",
    train=training,
    target="{target}",
    holdout={holdout},
    gates=[tt.gates.Signature(), tt.gates.BeatsChampion("{metric}"), tt.gates.Latency(p99_ms=100)],
    rollout=tt.Canary(steps=[5, 25, 100]),
    monitors=[{monitors}],
    triggers=[tt.OnDrift(), tt.OnPerformance()],
    budget=tt.Budget(cycles_per_day=1, cooldown="1d"),
    mode="approve",  # a person approves each rollout; "auto" lets the loop decide
)
'''


def _windows(table: Table) -> tuple[str, str]:
    """The training window and the hold-out: a tenth of the table's span, and all of it but that."""
    days = 100.0 if table.span is None else max(table.span / timedelta(days=1), 1 / 24)
    if days >= 10:
        return f"tt.last(days={round(days * 1.1) + 1})", f"tt.last(days={max(1, round(days / 10))})"
    hours = days * 24
    return f"tt.last(hours={round(hours * 1.1) + 1})", f"tt.last(hours={max(1, round(hours / 10))})"


def _readme(table: Table) -> str:
    left_out = "\n".join(f"- `{name}`: {reason}" for name, reason in table.left_out.items())
    return f"""# A loop that learns `{table.target}`

    trimtab up                         # run it; the first model is trained, checked and deployed
    trimtab loop show {table.name}     # what it is doing
    trimtab why {table.name}           # and on what evidence
    trimtab data append {table.name} FILE

`loop.py` is yours: inputs, contract, training, gates, rollout, monitors, triggers.

Not among the inputs:

{left_out}
"""
