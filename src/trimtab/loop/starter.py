"""`trimtab init --data`: a project that works on a user's own table, as code that they then own.

The written `loop.py` is meant to be read and changed; nothing reads it but Python.
"""

from __future__ import annotations

import json
import keyword
import re
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from trimtab.config import FILE_NAME, STATE_FOLDER
from trimtab.data.datasets import Datasets
from trimtab.data.spec import ColumnSpec, ContractSpec
from trimtab.data.window import Window
from trimtab.digest import digest_file
from trimtab.errors import ConflictError
from trimtab.loop.machine import Mode
from trimtab.loop.user_table import UserTable, describe
from trimtab.workspace import Workspace

_LONGEST_NAME = 100
_TAKEN = frozenset({"bool", "date", "datetime", "float", "int", "str", "tt"})
"""Names that the contract's own annotations need."""


def start_project(
    folder: Path,
    rows: pl.DataFrame,
    source: Path,
    *,
    target: str,
    time: str | None = None,
    key: str | None = None,
    mode: Mode = "approve",
) -> list[Path]:
    """Write a project that learns `target` from these rows of the file `source`, with a workspace that holds
    them; answers the files written.

    See `describe` for what is refused; raises ConflictError if the folder holds a project. Where anything
    fails, nothing stays.
    """
    table = describe(rows, target=target, time=time, key=key, now=datetime.now(UTC))
    name = dataset_name(source)
    files = {
        FILE_NAME: '# The loop that `trimtab up` applies.\nloop = "loop:loop"\n',
        "loop.py": loop_source(name, table, mode),
        "README.md": _readme(name, table, mode),
    }
    for taken in (*files, STATE_FOLDER):
        if (folder / taken).exists():
            raise ConflictError(f"{folder / taken} is already there.", hint="Name another folder with --dir.")
    with ExitStack() as undo:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            undo.callback((folder / file).unlink, missing_ok=True)
            (folder / file).write_text(text)
        undo.callback(shutil.rmtree, folder / STATE_FOLDER, ignore_errors=True)
        with Workspace.create(folder) as workspace:
            datasets = Datasets(workspace)
            datasets.create(name, contract=table.contract, time=time, key=[key] if key else [])
            datasets.append(name, rows, key=digest_file(source))
        undo.pop_all()
    return [folder / file for file in files]


def dataset_name(path: Path) -> str:
    """A name for the dataset of a file, and its loop: its own name, in the letters that names may have."""
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")
    return name[:_LONGEST_NAME].strip("-") or "rows"


def loop_source(name: str, table: UserTable, mode: Mode) -> str:
    """The text of `loop.py`."""
    kinds = {column.type for column in table.contract.columns}
    dates = sorted(kinds & {"date", "datetime"})
    learned = _words(table.target)
    return f'''"""Learns {learned} from the other columns of the dataset `{name}`. Yours to change."""

{f"from datetime import {', '.join(dates)}" + chr(10) * 2 if dates else ""}import lightgbm as lgb
import polars as pl

import trimtab as tt

TARGET = {_literal(table.target)}
INPUTS = [
{_listed(table.inputs)}
]
LIGHTGBM = {{
    "objective": "{"binary" if table.binary else "regression"}",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "seed": 0,
    "deterministic": True,
    "verbose": -1,
}}


{_contract_source(table.contract)}


@tt.step
def prepare(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows to learn from: those whose target is known."""
    return rows.filter(pl.col(TARGET).cast(pl.Float64).is_finite())


@tt.step
def train(rows: pl.DataFrame) -> tt.Model:
    """Gradient-boosted trees."""
    inputs = tt.inputs(rows, INPUTS, nullable=True)
    labels = rows[TARGET].cast(pl.Float64).to_numpy()
    categorical = [inputs.names.index(column) for column in inputs.categorical]
    data = lgb.Dataset(inputs.matrix(rows), labels, categorical_feature=categorical)
    booster = lgb.train(LIGHTGBM, data, num_boost_round=200)
    tt.log(rows=rows.height, mean_target=labels.mean())
    return tt.Model.lightgbm(booster, inputs, target=TARGET)


@tt.pipeline
def training(window: tt.Window = {_window(table.window)}) -> tt.Model:
    """From the rows of the window to a model."""
    return train(prepare(tt.dataset({_literal(name)}, contract=Rows).window(window)))


{_declaration(name, table, mode)}'''


def _declaration(name: str, table: UserTable, mode: Mode) -> str:
    metric = "log_loss" if table.binary else "rmse"
    lean = "0.1" if table.binary else f"{table.spread / 5:.2g}"
    drop = "0.1" if table.binary else f"{table.spread / 10:.2g}"
    ratio = "" if table.positive else ", answer_ratio=None"
    comment = {
        "auto": "  # everything by itself",
        "approve": '  # a person lets each version go live; "auto" lets the loop decide',
        "advise": "  # each cycle is only proposed",
    }[mode]
    return f"""loop = tt.Loop(
    {_literal(name)},
    train=training,
    target=TARGET,
    holdout={_window(table.holdout)},  # kept from training, for the gates
    gates=[tt.gates.Signature(), tt.gates.BeatsChampion("{metric}"), tt.gates.Latency(p99_ms=100)],
    rollout=tt.Canary(steps=[5, 25, 100], max_bias={lean}{ratio}),
    monitors=[tt.Drift(), tt.Performance("{metric}", drop={drop})],
    triggers=[tt.OnDrift(), tt.OnPerformance(), tt.OnNewData(rows={max(50, table.rows // 5)})],
    budget=tt.Budget(cycles_per_day=1, cooldown="1d"),
    mode="{mode}",{comment}
)
"""


def _contract_source(contract: ContractSpec) -> str:
    unexpected = "" if contract.unexpected == "refuse" else f', unexpected="{contract.unexpected}"'
    lines = [
        f"class {contract.name}(tt.Contract{unexpected}):",
        '    """What every row must be; add rules with tt.field(ge=0, isin=[...], ...)."""',
        "",
    ]
    used: set[str] = set()
    for column in contract.columns:
        attribute = _attribute(column.name, used)
        used.add(attribute)
        lines.append(f"    {attribute}: {_annotation(column)}{_rules(column, attribute)}")
    return "\n".join(lines)


def _annotation(column: ColumnSpec) -> str:
    return f"{column.type} | None" if column.nullable else column.type


def _rules(column: ColumnSpec, attribute: str) -> str:
    rules = [f"name={_literal(column.name)}"] if attribute != column.name else []
    rules += [] if column.finite else ["finite=False"]
    return f" = tt.field({', '.join(rules)})" if rules else ""


def _attribute(column: str, used: set[str]) -> str:
    """A name in Python for a column: its own where that can be."""
    if (
        re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", column)
        and not keyword.iskeyword(column)
        and column not in _TAKEN
    ):
        wanted = column
    else:
        wanted = "column_" + (re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_").lower() or "unnamed")
    name, count = wanted, 1
    while name in used:
        count += 1
        name = f"{wanted}_{count}"
    return name


def _literal(text: str) -> str:
    """A text as Python writes it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _words(text: str) -> str:
    """A column's name within a docstring or a README."""
    return f"`{text}`" if re.fullmatch(r"[\w .-]+", text) else "the target"


def _listed(names: Iterable[str]) -> str:
    lines, line = [], "   "
    for name in names:
        item = f" {_literal(name)},"
        if len(line) + len(item) > 100 and line.strip():
            lines.append(line)
            line = "   "
        line += item
    return "\n".join([*lines, line])


def _window(window: Window) -> str:
    """A window as a user writes it."""
    if window.part is not None:
        return f"tt.share({window.part[1]:g})"
    if not window.timed:
        return "tt.everything()"
    return f"tt.last(days={window.days:g})" if window.days else f"tt.last(hours={window.hours:.6g})"


def _readme(name: str, table: UserTable, mode: Mode) -> str:
    commands = {
        "trimtab up": "run it: the first model is trained and checked at once",
        f"trimtab loop show {name}": "what it is doing",
        f"trimtab why {name}": "and on what evidence",
        f"trimtab loop approve {name}": "let the version that passed the gates go live",
        f"trimtab data append {name} FILE": "new rows",
    }
    if mode == "auto":
        del commands[f"trimtab loop approve {name}"]
    width = max(map(len, commands))
    told = "\n".join(f"    {command:<{width}}  # {words}" for command, words in commands.items())
    left_out = "\n".join(f"- `{column}`: {reason}" for column, reason in table.left_out.items())
    return f"""# A loop that learns {_words(table.target)}

{told}

`loop.py` is yours: inputs, contract, training, gates, rollout, monitors, triggers. Look for inputs that are \
not known yet when a prediction is asked for, and take them out.

Not among the inputs:

{left_out}
"""
