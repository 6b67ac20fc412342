"""`trimtab import`: what other tools have kept, into this workspace."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from trimtab.cli.group import command_group
from trimtab.cli.output import AsJson, print_json, print_rows, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.models.migration.migration import import_mlflow
from trimtab.models.migration.report import Counts, ImportReport, Tell

app = command_group("Bring in what another tool has kept.")

SHOWN = 20
"""Problems and differences that a person is told; --json tells all."""


@app.callback()
def root() -> None:
    """Bring in what another tool has kept."""


@app.command()
def mlflow(
    source: Annotated[
        str, typer.Argument(help="A server's address, a SQLite file (mlflow.db), or a folder mlruns.")
    ],
    project: Project = HERE,
    experiment: Annotated[
        list[str] | None, typer.Option(help="An experiment's name (by default all); may be given again.")
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            help="Where the server of this store keeps what it calls mlflow-artifacts:/, if it does not run."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then compare source and copy, every point and every byte.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be copied; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy experiments, runs, artifacts and models from MLflow; run again, it goes on where it was.

    Exit status 1 if something could not be copied, or differs.
    """
    with open_workspace(project) as workspace, _progress() as tell:
        report = import_mlflow(
            workspace,
            source,
            experiments=experiment or (),
            artifacts=artifacts,
            verify=verify,
            dry_run=dry_run,
            tell=tell,
        )
    if as_json:
        print_json(report)
    else:
        _tell_person(report)
    if not report.good:
        raise typer.Exit(1)


@contextlib.contextmanager
def _progress() -> Iterator[Tell]:
    """One line that changes while the work goes on; nothing where nobody watches."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda _what, _counts: None
        return
    with console.status("reading") as status:

        def tell(what: str, counts: Counts) -> None:
            status.update(
                f"{escape(what)}: {counts.runs:,} runs, {counts.metric_points:,} points, "
                f"{counts.artifacts:,} files, {counts.model_versions:,} versions"
            )

        yield tell


def _tell_person(report: ImportReport) -> None:
    copied, here = (msgspec.structs.asdict(counts) for counts in (report.copied, report.here))
    verified = msgspec.structs.asdict(report.verified)
    rows = [
        {"what": name.replace("_", " "), "copied": f"{copied[name]:,}", "already here": f"{here[name]:,}"}
        | ({"compared": f"{verified[name]:,}"} if report.differences is not None else {})
        for name in copied
        if copied[name] or here[name] or verified[name]
    ]
    say(f"{'Would be copied' if report.dry_run else 'Imported'} from {report.source}")
    columns = ["what", "copied", "already here", *(["compared"] if report.differences is not None else [])]
    print_rows(rows, columns, empty="There is nothing to copy.")
    moved = [each for each in report.experiments if each.source_id != str(each.id) and each.id is not None]
    if moved:
        say("These experiments have another id here:")
        print_rows(moved, ["name", "source_id", "id"], empty="")
    for kind, count in report.left_out.items():
        say(f"Left out: {count:,} {kind}, which Trimtab has no place for.")
    for note in report.notes[:SHOWN]:
        say(f"Note: {note}")
    _tell_some("Not copied", report.problems)
    if report.differences is not None:
        _tell_some("Differs", report.differences)
        if not report.differences:
            say("Source and copy are the same.")
    seconds = max(report.seconds, 0.01)
    compared = f"; {report.verified_seconds:,.1f} s to compare" if report.differences is not None else ""
    say(f"{seconds:,.1f} s, {report.copied.metric_points / seconds:,.0f} points a second{compared}")


def _tell_some(what: str, found: list[str]) -> None:
    for each in found[:SHOWN]:
        say(f"{what}: {each}")
    if len(found) > SHOWN:
        say(f"... and {len(found) - SHOWN:,} more; --json tells all.")
