"""`trimtab model`: registered models."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from trimtab.cli.group import command_group
from trimtab.cli.output import AsJson, print_fields, print_json, print_rows, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.clock import parse_time
from trimtab.loop.validation import validate_version
from trimtab.models.policy import Override
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport

app = command_group("Models: versions, aliases, gates, validation.")

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[int, typer.Argument(min=1, help="The version's number.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the journal.")]


@app.command("list")
def list_models(project: Project = HERE, as_json: AsJson = False) -> None:
    """List all models."""
    with open_workspace(project) as workspace:
        found = Registry(workspace).models()
    if as_json:
        print_json(found)
    else:
        print_rows(found, ["name", "aliases", "governed_by", "created_at"], empty="There is no model yet.")


@app.command()
def show(name: Name, project: Project = HERE, as_json: AsJson = False) -> None:
    """Show a model and its versions, the newest first."""
    with open_workspace(project) as workspace:
        registry = Registry(workspace)
        model, versions = registry.model(name), list(reversed(registry.versions(name)))
    if as_json:
        print_json({"model": model, "versions": versions})
        return
    print_fields({"name": model.name, "aliases": model.aliases, "governed by": model.governed_by})
    columns = ["version", "aliases", "digest", "run_id", "actor", "created_at", "description"]
    print_rows(versions, columns, empty="It has no version yet.")


@app.command()
def history(
    name: Name,
    project: Project = HERE,
    alias: Annotated[str, typer.Option(help="The alias.")] = "champion",
    at: Annotated[str | None, typer.Option(help="What it named at this event time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an alias named, when and on what ground."""
    with open_workspace(project) as workspace:
        registry = Registry(workspace)
        if at is None:
            found = registry.history(name, alias)
        else:
            event = registry.alias_at(name, alias, parse_time(at))
            found = [] if event is None else [event]
    if as_json:
        print_json(found)
    else:
        columns = ["number", "at", "kind", "version", "digest", "actor", "reason"]
        print_rows(found, columns, empty=f"The alias '{alias}' named nothing.")


@app.command()
def gates(name: Name, version: Version, project: Project = HERE, as_json: AsJson = False) -> None:
    """Show the gate reports of a version."""
    with open_workspace(project) as workspace:
        found = Registry(workspace).gate_reports(name, version=version)
    if as_json:
        print_json([_judged(report) for report in found])
        return
    if not found:
        say(f"Version {version} of '{name}' has no gate report. Run: trimtab model validate {name} {version}")
    for report in found:
        say(f"{'passed' if report.passed else 'NOT passed'}, {report.created_at:%Y-%m-%d %H:%M}")
        print_rows(report.results, ["gate", "passed", "reason"], empty="")


@app.command()
def validate(name: Name, version: Version, project: Project = HERE, as_json: AsJson = False) -> None:
    """Run the gates of a governed model on a version; exit status 1 if it does not pass."""
    with open_workspace(project) as workspace:
        report = validate_version(workspace, name, version)
    if as_json:
        print_json(_judged(report))
    else:
        print_rows(report.results, ["gate", "passed", "reason"], empty="")
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias, for example champion.")],
    version: Version,
    project: Project = HERE,
    reason: Reason = "",
    override_by: Annotated[
        str | None, typer.Option(help="Your name, to set it without a passing gate report; needs --reason.")
    ] = None,
) -> None:
    """Let an alias name a version. For the champion of a governed model its gates must have passed."""
    override = None if override_by is None else Override(override_by, reason)
    with open_workspace(project) as workspace:
        registry = Registry(workspace)
        workspace.write(
            lambda tx: registry.set_alias(tx, name, alias, version, reason=reason, override=override)
        )
    say(f"'{alias}' of '{name}' is version {version}.")


def _judged(report: GateReport) -> dict[str, Any]:
    """A report as JSON, with its verdict."""
    return {"passed": report.passed, **msgspec.to_builtins(report)}
