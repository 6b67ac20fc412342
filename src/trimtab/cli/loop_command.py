"""`trimtab loop`: what loops do, and a person's orders to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import typer

from trimtab.cli.group import command_group
from trimtab.cli.output import AsJson, print_fields, print_json, print_rows, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.errors import InvalidInputError
from trimtab.loop.applying import apply_reference
from trimtab.loop.cycle import Cycle
from trimtab.loop.loops import Loops
from trimtab.loop.machine import Mode
from trimtab.models.policy import Override
from trimtab.monitoring.alerts import Alerts

app = command_group("Loops: apply, watch, trigger, approve, pause, roll back.")

Name = Annotated[str, typer.Argument(help="The loop's name.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the journal.")]
Limit = Annotated[int, typer.Option(min=1, help="How many, the newest first.")]

CYCLE_COLUMNS = ["number", "state", "trigger", "triggered_at", "finished_at", "candidate", "why"]


@app.command()
def apply(
    reference: Annotated[
        str | None, typer.Argument(help="The loop as module:name (by default the setting 'loop').")
    ] = None,
    project: Project = HERE,
    reason: Reason = "",
    override_by: Annotated[
        str | None, typer.Option(help="Your name, to take away or change gates; needs --reason.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a declaration into force; applying the same again changes nothing."""
    override = None if override_by is None else Override(override_by, reason)
    with open_workspace(project) as workspace:
        applied = apply_reference(workspace, reference, override=override)
    if as_json:
        print_json(applied)
    else:
        say(f"The loop '{applied.declaration.name}' is in force, version {applied.version}.")


@app.command("list")
def list_loops(project: Project = HERE, as_json: AsJson = False) -> None:
    """List all loops."""
    with open_workspace(project) as workspace:
        found = Loops(workspace).list()
    if as_json:
        print_json(found)
    else:
        print_rows(found, ["name", "version", "mode", "paused", "created_at"], empty="There is no loop yet.")


@app.command()
def show(name: Name, project: Project = HERE, as_json: AsJson = False) -> None:
    """Show how a loop stands: champion, the cycle under way, what came before."""
    with open_workspace(project) as workspace:
        status = Loops(workspace).status(name)
        endings = Loops(workspace).endings(name)
        alerts = Alerts(workspace).alerts(name, only_open=True)
    if as_json:
        print_json({"status": status, "open_alerts": alerts})
        return
    declared = status.declaration
    print_fields(
        {
            "loop": status.loop.name,
            "mode": "paused" if status.loop.paused else status.loop.mode,
            "champion": None if status.champion is None else f"version {status.champion.version}",
            "endpoint": declared.endpoint,
            "dataset": declared.dataset,
            "cycle": "none under way" if status.cycle is None else _line(status.cycle),
            "open alerts": "none" if not alerts else "; ".join(alert.reason for alert in alerts),
        }
    )
    print_rows(_told(status.finished, endings), CYCLE_COLUMNS, empty="It has finished no cycle yet.")


@app.command()
def cycles(name: Name, project: Project = HERE, limit: Limit = 30, as_json: AsJson = False) -> None:
    """List a loop's cycles."""
    with open_workspace(project) as workspace:
        found = Loops(workspace).cycles(name, limit=limit)
        endings = Loops(workspace).endings(name)
    if as_json:
        print_json(found)
    else:
        print_rows(_told(found, endings), CYCLE_COLUMNS, empty="It has had no cycle yet.")


@app.command()
def findings(name: Name, project: Project = HERE, limit: Limit = 30, as_json: AsJson = False) -> None:
    """List what a loop's monitors found, quiet or not, with the numbers."""
    with open_workspace(project) as workspace:
        Loops(workspace).status(name)
        found = Alerts(workspace).findings(name, limit=limit)
    if as_json:
        print_json(found)
    else:
        print_rows(
            found, ["at", "monitor", "status", "numbers"], empty="Its monitors have found nothing yet."
        )


@app.command()
def alerts(name: Name, project: Project = HERE, limit: Limit = 30, as_json: AsJson = False) -> None:
    """List a loop's alerts."""
    with open_workspace(project) as workspace:
        Loops(workspace).status(name)
        found = Alerts(workspace).alerts(name, limit=limit)
    if as_json:
        print_json(found)
    else:
        print_rows(
            found, ["id", "opened_at", "resolved_at", "name", "reason"], empty="There was no alert yet."
        )


@app.command()
def trigger(
    name: Name,
    project: Project = HERE,
    param: Annotated[
        list[str] | None, typer.Option(help="name=value for the training pipeline (JSON, or else text).")
    ] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Start a cycle now, whatever the budget says."""
    with open_workspace(project) as workspace:
        cycle = Loops(workspace).trigger(name, params=parse_params(param or []), reason=reason)
    _show_cycle(cycle, as_json)


@app.command()
def approve(name: Name, project: Project = HERE, reason: Reason = "", as_json: AsJson = False) -> None:
    """Approve the cycle that waits for it."""
    with open_workspace(project) as workspace:
        cycle = Loops(workspace).approve(name, reason=reason)
    _show_cycle(cycle, as_json)


@app.command()
def cancel(name: Name, project: Project = HERE, reason: Reason = "", as_json: AsJson = False) -> None:
    """End the cycle under way before its challenger is out, and the work for it; the champion stays."""
    with open_workspace(project) as workspace:
        cycle = Loops(workspace).cancel(name, reason=reason)
    _show_cycle(cycle, as_json)


@app.command()
def pause(name: Name, project: Project = HERE, reason: Reason = "") -> None:
    """Let a loop only watch; a rollout stays where it is."""
    with open_workspace(project) as workspace:
        Loops(workspace).pause(name, reason=reason)
    say(f"The loop '{name}' is paused.")


@app.command()
def resume(name: Name, project: Project = HERE, reason: Reason = "") -> None:
    """Let a paused loop go on."""
    with open_workspace(project) as workspace:
        Loops(workspace).resume(name, reason=reason)
    say(f"The loop '{name}' goes on.")


@app.command()
def mode(
    name: Name,
    mode: Annotated[str, typer.Argument(help="auto, approve or advise.")],
    project: Project = HERE,
    reason: Reason = "",
) -> None:
    """Say how much a loop may do by itself."""
    with open_workspace(project) as workspace:
        Loops(workspace).set_mode(name, mode_of(mode), reason=reason)
    say(f"The loop '{name}' is in mode {mode}.")


@app.command()
def rollback(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; it stands in the journal.")],
    project: Project = HERE,
) -> None:
    """Undo what was last let onto the endpoint, at once."""
    with open_workspace(project) as workspace:
        cycle = Loops(workspace).rollback(name, reason=reason)
        champion = Loops(workspace).status(name).champion
    ended = "" if cycle is None else f"Cycle {cycle.number} is {cycle.state.value.replace('_', ' ')}. "
    say(f"{ended}The champion is {'none' if champion is None else f'version {champion.version}'}.")


def mode_of(given: str) -> Mode:
    """The mode of this name; raises InvalidInputError."""
    try:
        mode: Mode = msgspec.convert(given, Mode)
    except msgspec.ValidationError:
        raise InvalidInputError(f"'{given}' is not a mode.", hint="Give auto, approve or advise.") from None
    return mode


def parse_params(given: list[str]) -> dict[str, Any]:
    """Parameters written name=value, each value as JSON if it is that, else as text."""
    params: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InvalidInputError(f"'{item}' is not a parameter.", hint="Write it as name=value.")
        try:
            params[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            params[name] = value
    return params


def _told(cycles: Sequence[Cycle], endings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Cycles as rows, each with why it stands where it does."""
    return [{**msgspec.structs.asdict(cycle), "why": endings.get(cycle.id, cycle.reason)} for cycle in cycles]


def _show_cycle(cycle: Cycle, as_json: bool) -> None:
    if as_json:
        print_json(cycle)
    else:
        say(_line(cycle))


def _line(cycle: Cycle) -> str:
    return f"cycle {cycle.number}: {cycle.state.value.replace('_', ' ')} ({cycle.trigger}: {cycle.reason})"
