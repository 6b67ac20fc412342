"""`trimtab journal`: the record of every change."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli.group import command_group
from trimtab.cli.output import AsJson, print_fields, print_json, print_rows
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.store import journal

app = command_group("The record of every change.")


@app.command("list")
def list_entries(
    project: Project = HERE,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 30,
    kind: Annotated[
        str | None, typer.Option(help="Only entries about this kind of thing, e.g. model.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only entries about the thing of this name.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, e.g. cycle.moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """List entries, the newest first."""
    with open_workspace(project) as workspace, workspace.read() as connection:
        found = list(
            journal.entries(connection, kind=kind, name=name, action=action, limit=limit, newest_first=True)
        )
    if as_json:
        print_json(found)
    else:
        print_rows(
            found, ["seq", "at", "actor", "action", "kind", "name", "reason"], empty="The journal is empty."
        )


@app.command()
def verify(project: Project = HERE, as_json: AsJson = False) -> None:
    """Check the whole hash chain; exit status 1 if it does not hold."""
    with open_workspace(project) as workspace, workspace.read() as connection:
        verification = journal.verify(connection)
    if as_json:
        print_json(verification)
    else:
        print_fields({"entries": verification.entries, "head": verification.head, "verified": True})
