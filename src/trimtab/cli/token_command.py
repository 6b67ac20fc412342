"""`trimtab token`: bearer tokens for ports beyond loopback."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli.group import command_group
from trimtab.cli.output import AsJson, print_json, print_rows, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.serving.access import Tokens

app = command_group("Bearer tokens for ports beyond loopback.")

Name = Annotated[str, typer.Argument(help="The token's name: who or what uses it.")]


@app.command()
def create(name: Name, project: Project = HERE, as_json: AsJson = False) -> None:
    """Make a token and print it, this once; only its hash is kept."""
    with open_workspace(project) as workspace:
        token = Tokens(workspace).create(name)
    if as_json:
        print_json({"name": name, "token": token})
    else:
        say(token)


@app.command("list")
def list_tokens(project: Project = HERE, as_json: AsJson = False) -> None:
    """List tokens by name; the tokens themselves are not kept."""
    with open_workspace(project) as workspace:
        found = Tokens(workspace).list()
    if as_json:
        print_json(found)
    else:
        print_rows(found, ["name", "created_at", "created_by", "revoked_at"], empty="There is no token.")


@app.command()
def revoke(name: Name, project: Project = HERE) -> None:
    """Let a token open nothing any more."""
    with open_workspace(project) as workspace:
        Tokens(workspace).revoke(name)
    say(f"The token '{name}' is revoked.")
