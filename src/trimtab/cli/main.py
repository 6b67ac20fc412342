"""The `trimtab` command: finds the command's module, runs it, and turns errors into words and statuses.

Exit statuses: 0 done · 1 it ran and failed (a pipeline step, a broken journal, a failed check) ·
2 wrong usage or input · 3 no such thing · 4 in conflict or refused · 5 something needed does not answer.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

import trimtab
from trimtab.cli.output import show_error
from trimtab.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    TrimtabError,
    UnauthorizedError,
    UnavailableError,
)

COMMANDS = {
    "init": "Write a project: for your own table, or an example.",
    "up": "Run the four roles and restart what dies.",
    "serve": "Serve one model at once.",
    "run": "Run a pipeline once, now.",
    "predict": "Predict a whole table.",
    "demo": "Replay two years of bike rentals through a real loop.",
    "data": "Datasets: create, append, list, read, sources.",
    "loop": "Loops: apply, watch, trigger, approve, pause, roll back.",
    "model": "Models: versions, aliases, gates, validation.",
    "endpoint": "Endpoints: routes, predictions, labels.",
    "import": "Bring in what MLflow has kept.",
    "journal": "The record of every change: list, verify.",
    "why": "The evidence behind a loop's decisions.",
    "gc": "Give back the space of what was deleted.",
    "token": "Bearer tokens for ports beyond loopback.",
    "doctor": "Check this machine and this workspace.",
}

_STATUSES: tuple[tuple[type[TrimtabError], int], ...] = (
    (InvalidInputError, 2),
    (NotFoundError, 3),
    (ConflictError, 4),
    (RefusedError, 4),
    (UnauthorizedError, 4),
    (UnavailableError, 5),
)


class LazyCommands(TyperGroup):
    """The commands by name; a module is imported when its command is called, not for the help page."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All commands, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"trimtab.cli.{cmd_name}_command")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The help page's list, written without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(trimtab.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
    ),
) -> None:
    """Keep models on course in production."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit with its status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, prog_name="trimtab")
    except TrimtabError as error:
        show_error(error, as_json="--json" in given)
        sys.exit(next((status for kind, status in _STATUSES if isinstance(error, kind)), 1))
    except OSError as error:  # a file or folder that was named and cannot be used
        place = f"{error.filename}: " if error.filename else ""
        failure = InvalidInputError(f"{place}{error.strerror or error}.")
        show_error(failure, as_json="--json" in given)
        sys.exit(2)
    sys.exit(0)
