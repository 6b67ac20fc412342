"""`trimtab model`: registered models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from trimtab.cli import conversion_command
from trimtab.cli.group import command_group
from trimtab.cli.output import AsJson, print_fields, print_json, print_rows, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.clock import parse_time
from trimtab.data.window import last
from trimtab.errors import InvalidInputError, RefusedError
from trimtab.loop.validation import validate_version
from trimtab.models.gate_notation import GateFile, gate_file, gate_of
from trimtab.models.gates import policy_of
from trimtab.models.governance import standing_versions
from trimtab.models.policy import Override, Policy, PolicyRows
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport
from trimtab.models.serving_notes import how_served
from trimtab.models.validation import check_rows
from trimtab.statistics.metrics import metric
from trimtab.workspace import Workspace

app = command_group("Models: versions, aliases, gates, validation.")
app.command()(conversion_command.convert)

POLICY = "a policy"
"""In whose name models are governed that no loop governs."""

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[int, typer.Argument(min=1, help="The version's number.")]
Data = Annotated[str | None, typer.Option(help="The dataset whose rows the gates are judged on.")]
Target = Annotated[str | None, typer.Option(help="The column of the labels in it.")]
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
        model, versions = registry.model(name), registry.versions(name)
        policy = registry.policy(name)
        served = {version.version: how_served(workspace, version.digest) for version in versions}
    if as_json:
        print_json({"model": model, "policy": policy, "versions": versions})
        return
    fields: dict[str, Any] = {"name": model.name, "aliases": model.aliases, "governed by": model.governed_by}
    if policy is not None:
        fields["gates"] = policy.names
        if policy.rows is not None:
            fields["judged on"] = _rows(policy.rows)
    print_fields(fields)
    columns = ["version", "aliases", "digest", "run_id", "actor", "created_at", "description"]
    print_rows(versions, columns, empty="It has no version yet.")
    for number, how in served.items():
        say(f"Version {number} is served {how}.")


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
        _print_results(report)


@app.command()
def validate(
    name: Name,
    version: Version,
    project: Project = HERE,
    data: Data = None,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Run the gates of a governed model on a version; exit status 1 if it does not pass.

    The version may have come from any MLflow client. It is loaded in a process of its own.
    """
    with open_workspace(project) as workspace:
        report = validate_version(workspace, name, version, dataset=data, target=target)
    if as_json:
        print_json(_judged(report))
    else:
        _print_report(report)
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def govern(
    name: Name,
    project: Project = HERE,
    gates: Annotated[
        Path | None, typer.Option(help="A file of gates (.toml or .json).", dir_okay=False)
    ] = None,
    gate: Annotated[
        list[str] | None, typer.Option(help='One gate, such as "metric rmse max=10"; may be repeated.')
    ] = None,
    data: Data = None,
    target: Target = None,
    last_days: Annotated[
        float | None, typer.Option(help="Judge on the last so many days of event time only.", min=0)
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="Free the model from its gates.")] = False,
    reason: Reason = "",
    override_by: Annotated[
        str | None,
        typer.Option(help="Your name, to do what takes a person's word; needs --reason."),
    ] = None,
) -> None:
    """Let only versions that pass these gates become champion, whichever way they come.

    If there is a champion already, it is judged first.
    """
    override = None if override_by is None else Override(override_by, reason)
    with open_workspace(project) as workspace:
        if release:
            if gates or gate:
                raise InvalidInputError("Gates and --release do not go together.")
            _release(workspace, name, override, reason)
            return
        policy = _policy(gates, gate or [], data, target, last_days)
        registry = Registry(workspace)
        model = registry.model(name)
        assert policy.rows is not None
        check_rows(workspace, policy.rows)
        if model.policy != policy.digest and override is None:
            _judge_standing(workspace, name, policy)
        workspace.write(
            lambda tx: registry.govern(tx, name, policy, by=POLICY, reason=reason, override=override)
        )
    say(f"'{name}' is governed: {', '.join(policy.names)}.")


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


def _policy(
    path: Path | None, lines: list[str], dataset: str | None, target: str | None, last_days: float | None
) -> Policy:
    written = GateFile() if path is None else gate_file(path)
    gates = (*written.gates, *(gate_of(line) for line in lines))
    if not gates:
        raise InvalidInputError(
            "No gates are given.", hint="Give --gates FILE, or --gate 'metric rmse max=10', say."
        )
    for gate in gates:
        reference = getattr(gate, "metric", "")
        if reference and ":" not in reference:
            metric(reference)  # that of a project is looked up where its code may run
    dataset, target = dataset or written.dataset, target or written.target
    if dataset is None or target is None:
        raise InvalidInputError(
            "It is not said on which rows the gates are judged.", hint="Give --data DATASET --target COLUMN."
        )
    window = written.window if last_days is None else last(days=last_days)
    return Policy(policy_of(gates).gates, PolicyRows(dataset, target, window))


def _judge_standing(workspace: Workspace, name: str, policy: Policy) -> None:
    """Run the gates on what stands as champion, which must pass before the model can be governed."""
    with workspace.read() as connection:
        standing = standing_versions(connection, name)
    for version in standing:
        say(f"Judging version {version}, which stands as champion:")
        report = validate_version(workspace, name, version, policy=policy)
        _print_report(report)


def _release(workspace: Workspace, name: str, override: Override | None, reason: str) -> None:
    registry = Registry(workspace)
    model = registry.model(name)
    if model.governed_by is None:
        say(f"Nobody governs '{name}'.")
        return
    if model.governed_by != POLICY and override is None:
        raise RefusedError(
            f"'{name}' is governed by {model.governed_by}, whose rollouts rely on its gates.",
            hint="Give your name and a reason to do it all the same: --override-by NAME --reason WHY.",
        )
    if not reason.strip():
        raise InvalidInputError("To free a model from its gates takes a reason.", hint="Give --reason WHY.")
    word = override or Override(workspace.actor, reason)
    workspace.write(lambda tx: registry.ungovern(tx, name, override=word))
    say(f"'{name}' is free of its gates.")


def _print_report(report: GateReport) -> None:
    """The verdict, and each gate with its numbers."""
    about = f"version {report.version} of '{report.model}'"
    rows = f", on '{report.dataset}' version {report.dataset_version}" if report.dataset else ""
    say(f"{about} {'passed' if report.passed else 'did NOT pass'}{rows}:")
    _print_results(report)


def _print_results(report: GateReport) -> None:
    rows = [
        {
            **msgspec.structs.asdict(result),
            "numbers": {k: v for k, v in result.numbers.items() if v is not None},
        }
        for result in report.results
    ]
    print_rows(rows, ["gate", "passed", "reason", "numbers"], empty="")


def _judged(report: GateReport) -> dict[str, Any]:
    """A report as JSON, with its verdict."""
    return {"passed": report.passed, **msgspec.to_builtins(report)}


def _rows(rows: PolicyRows) -> str:
    window = f", the last {rows.window.length}" if rows.window.length else ""
    return f"dataset '{rows.dataset}', target '{rows.target}'{window}"
