"""What commands print: a table for people, JSON for scripts, errors in words."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimtab.errors import TrimtabError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

WIDTH_OF_A_PIPE = 240
"""Where nobody sees it wrapped, a table is as wide as it needs to be."""

console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE)
_errors = Console(stderr=True)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()


def print_rows(
    rows: Iterable[Mapping[str, Any] | msgspec.Struct], columns: Sequence[str], *, empty: str
) -> None:
    """A table with these columns (keys or fields) of each row, or the sentence `empty`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    count = 0
    for row in rows:
        count += 1
        fields = row if isinstance(row, Mapping) else msgspec.structs.asdict(row)
        table.add_row(*(escape(cell(fields.get(column))) for column in columns))
    if count:
        console.print(table)
    else:
        console.print(escape(empty))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values, one a line."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        console.print(
            f"[bold]{escape(name.replace('_', ' ')):<{width}}[/]  {escape(cell(value))}", soft_wrap=True
        )


def say(text: str) -> None:
    """One line for a person."""
    console.print(escape(text), soft_wrap=True)


def cell(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S" if value.second else "%Y-%m-%d %H:%M")
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={cell(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value)
    return str(value)


def show_error(error: TrimtabError, *, as_json: bool) -> None:
    """What went wrong and what to do, on standard error; as JSON where JSON was asked for."""
    if as_json:
        document = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
        sys.stderr.write(msgspec.json.encode(document).decode() + "\n")
        return
    _errors.print(f"[bold red]Error:[/] {escape(error.message)}", soft_wrap=True)
    if error.hint:
        _errors.print(escape(error.hint), soft_wrap=True)
