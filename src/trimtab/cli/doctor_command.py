"""`trimtab doctor`: check this machine and this workspace."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from trimtab.cli.group import single_command
from trimtab.cli.output import AsJson, console, print_json, print_rows
from trimtab.cli.project import HERE, Project
from trimtab.config import FILE_NAME, Settings, load_settings
from trimtab.errors import NotFoundError
from trimtab.server.checkup import examine

app = single_command()

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@app.command()
def doctor(
    project: Project = HERE,
    settings: Annotated[
        bool, typer.Option("--settings", help="Show every setting and its value instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine and this workspace; exit status 1 if there is a problem."""
    if settings:
        _show_settings(project, as_json)
        return
    findings = list(examine(project))
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            colour = _COLOURS[finding.status]
            console.print(
                f"[{colour}]{finding.status:<8}[/] {finding.check:<10} {escape(finding.found)}",
                soft_wrap=True,
            )
            if finding.advice:
                console.print(f"{'':<20}{escape(finding.advice)}", soft_wrap=True)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def _show_settings(project: Project, as_json: bool) -> None:
    if not (project / FILE_NAME).exists():
        raise NotFoundError(f"There is no Trimtab project in {project} (no {FILE_NAME}).")
    values = load_settings(project).shown()
    if as_json:
        print_json(values)
        return
    print_rows(
        [
            {"setting": name, "value": values[name], "meaning": field.description}
            for name, field in Settings.model_fields.items()
        ],
        ["setting", "value", "meaning"],
        empty="",
    )
