"""`trimtab endpoint`: endpoints, their routes, predictions and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from trimtab.cli import deployment_commands
from trimtab.cli.group import command_group
from trimtab.cli.output import AsJson, print_fields, print_json, print_rows, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.data.row_formats import read_rows_file
from trimtab.monitoring.outcomes import Outcomes
from trimtab.serving.endpoints import Endpoints
from trimtab.serving.labels import NAMES, labels_from_rows, tell_labels, watch_labels

app = command_group("Endpoints: routes, labels.")
app.command()(deployment_commands.deploy)
app.command()(deployment_commands.rollback)
app.command()(deployment_commands.delete)

Name = Annotated[str, typer.Argument(help="The endpoint's name.")]


@app.command("list")
def list_endpoints(project: Project = HERE, as_json: AsJson = False) -> None:
    """List all endpoints."""
    with open_workspace(project) as workspace:
        found = Endpoints(workspace).list()
    if as_json:
        print_json(found)
    else:
        print_rows(found, ["name", "model", "generation", "created_at"], empty="There is no endpoint yet.")


@app.command()
def show(name: Name, project: Project = HERE, as_json: AsJson = False) -> None:
    """Show which versions answer, and how many predictions are labelled."""
    with open_workspace(project) as workspace:
        endpoint = Endpoints(workspace).get(name)
        route = Endpoints(workspace).route(name)
        predictions, labelled, waiting = Outcomes(workspace).counts(name)
    if as_json:
        counts = {"recent": predictions, "labelled": labelled, "labels_waiting": waiting}
        print_json({"endpoint": endpoint, "route": route, "predictions": counts})
        return
    print_fields(
        {
            "endpoint": name,
            "model": endpoint.model,
            "generation": endpoint.generation,
            "recent predictions": f"{predictions:,}, {labelled:,} of them labelled",
            "labels waiting": f"{waiting:,}",
        }
    )
    print_rows(
        route.arms if route else (), ["version", "role", "share", "digest"], empty="It has no route yet."
    )


@app.command()
def history(name: Name, project: Project = HERE, as_json: AsJson = False) -> None:
    """List the routes that an endpoint has had."""
    with open_workspace(project) as workspace:
        changes = Endpoints(workspace).history(name)
    if as_json:
        print_json(changes)
        return
    rows = [
        {
            "generation": change.route.generation,
            "at": change.at,
            "by": change.actor,
            "versions": ", ".join(f"{arm.version} {arm.role} {arm.share:g} %" for arm in change.route.arms),
            "reason": change.reason,
        }
        for change in changes
    ]
    print_rows(rows, ["generation", "at", "by", "versions", "reason"], empty="It has had no route yet.")


@app.command()
def label(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Rows with `id` and `label`, or `key`, `at` and `label`.")],
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Tell the labels of predictions out of a file, by prediction id or by key and time."""
    with open_workspace(project) as workspace:
        Endpoints(workspace).get(name)
        rows = read_rows_file(file, NAMES)
        counts = tell_labels(workspace, labels_from_rows(name, rows, workspace.clock.now()))
    if as_json:
        print_json(counts)
    else:
        say(
            f"{counts.joined:,} labels joined, {counts.pending:,} wait for their prediction, "
            f"{counts.repeated:,} were known, {counts.revised:,} were revised."
        )


@app.command()
def watch(
    name: Name,
    folder: Annotated[
        Path, typer.Argument(help="A folder that new files of labels are dropped into.", file_okay=False)
    ],
    project: Project = HERE,
) -> None:
    """Let the loop look into a folder for new files of labels (columns: id, label; or key, at, label)."""
    with open_workspace(project) as workspace:
        watch_labels(workspace, name, folder.resolve())
    say(f"New files in {folder} will be told to '{name}' as labels.")


@app.command("set")
def set_options(
    name: Name,
    project: Project = HERE,
    max_wait_ms: Annotated[
        float | None, typer.Option(help="How long a row may wait for others to share a model call with.")
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="Requests that a gateway worker takes on at once.")
    ] = None,
    timeout_ms: Annotated[
        int | None, typer.Option(help="After so long a request is not begun any more; 0: never.")
    ] = None,
    log_share: Annotated[float | None, typer.Option(help="Share of the requests that are logged.")] = None,
    redact: Annotated[
        list[str] | None, typer.Option(help="A column to keep out of the log (repeatable); '' for none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change how an endpoint is served: limits, and what of its predictions is logged."""
    given = {
        "max_wait_ms": max_wait_ms,
        "max_in_flight": max_in_flight,
        "timeout_ms": timeout_ms,
        "log_share": log_share,
        "redact": None if redact is None else tuple(filter(None, redact)),
    }
    changes = {option: value for option, value in given.items() if value is not None}
    with open_workspace(project) as workspace:
        endpoints = Endpoints(workspace)
        options = msgspec.structs.replace(endpoints.get(name).options, **changes)
        workspace.write(lambda tx: endpoints.set_options(tx, name, options))
    if as_json:
        print_json(options)
    else:
        print_fields(msgspec.structs.asdict(options))
