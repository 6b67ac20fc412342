"""How every command group is set up."""

from __future__ import annotations

import typer


def command_group(help: str) -> typer.Typer:
    """A group of commands with plain help pages, which are shown if no command is named."""
    return typer.Typer(
        help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )  # fmt: skip


def single_command() -> typer.Typer:
    """A command without subcommands."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
