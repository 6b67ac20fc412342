"""`trimtab init`: write a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.group import single_command
from trimtab.cli.output import say
from trimtab.data.row_formats import read_rows_file
from trimtab.demo.example import write_example
from trimtab.errors import InvalidInputError
from trimtab.loop.starter import start_project

app = single_command()


@app.command()
def init(
    project: Annotated[Path, typer.Option("--dir", help="The folder to write.", file_okay=False)] = Path(),
    example: Annotated[str | None, typer.Option(help="Write this example: bikes.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your table: a .parquet or .csv file.")] = None,
    target: Annotated[str | None, typer.Option(help="The column to learn.")] = None,
    time: Annotated[str | None, typer.Option(help="The column with each row's event time.")] = None,
    key: Annotated[str | None, typer.Option(help="The column that says what a row is about.")] = None,
) -> None:
    """Write a project: for your own table (--data, --target) or an example (--example)."""
    if (example is None) == (data is None):
        raise InvalidInputError(
            "Say what the project is for.", hint="Give --data FILE --target COLUMN, or --example bikes."
        )
    if example is not None:
        files = write_example(example, project)
    else:
        assert data is not None
        if target is None:
            raise InvalidInputError("Say which column is to be learned.", hint="Add --target COLUMN.")
        files = start_project(project, read_rows_file(data), data, target=target, time=time, key=key)
    for path in files:
        say(f"wrote {path}")
    where = "" if project == Path() else f" --dir {project}"
    say(f"Now run: trimtab up{where}")
