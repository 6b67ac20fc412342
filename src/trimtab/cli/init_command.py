"""`trimtab init`: write a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.group import single_command
from trimtab.cli.loop_command import mode_of
from trimtab.cli.output import AsJson, print_json, say
from trimtab.data.row_formats import read_rows_file
from trimtab.data.spec import ColumnType
from trimtab.demo.example import start_example
from trimtab.errors import InvalidInputError
from trimtab.loop.starter import dataset_name, start_project

app = single_command()


@app.command()
def init(
    project: Annotated[Path, typer.Option("--dir", help="The folder to write.", file_okay=False)] = Path(),
    example: Annotated[str | None, typer.Option(help="Write this example: bikes.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Your table: a Parquet, Arrow, CSV, JSON or NDJSON file.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The column to learn: numbers, or true and false.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="The column with each row's event time.")] = None,
    key: Annotated[str | None, typer.Option(help="The column that says what a row is about.")] = None,
    mode: Annotated[
        str, typer.Option(help="How much the loop does by itself: auto, approve or advise.")
    ] = "approve",
    as_json: AsJson = False,
) -> None:
    """Write a project: for your own table (--data, --target) or an example (--example)."""
    if (example is None) == (data is None):
        raise InvalidInputError(
            "Say what the project is for.", hint="Give --data FILE --target COLUMN, or --example bikes."
        )
    if example is not None:
        files, loop = start_example(example, project), example
    else:
        assert data is not None
        if target is None:
            raise InvalidInputError("Say which column is to be learned.", hint="Add --target COLUMN.")
        types: dict[str, ColumnType] = {} if time is None else {time: "datetime"}
        rows = read_rows_file(data, types)
        wanted = mode_of(mode)
        files = start_project(project, rows, data, target=target, time=time, key=key, mode=wanted)
        loop = dataset_name(data)
    if as_json:
        print_json({"loop": loop, "files": [str(path) for path in files]})
        return
    for path in files:
        say(f"wrote {path}")
    where = "" if project == Path() else f" --dir {project}"
    say(f"Now run: trimtab up{where}")
