"""`trimtab demo`: replay two years of bike rentals through a real loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trimtab.cli.group import single_command
from trimtab.cli.output import console, print_json, print_rows, say
from trimtab.demo import driver
from trimtab.demo.events import line
from trimtab.demo.report import Report
from trimtab.demo.run import run_demo

app = single_command()


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where to make the project.", file_okay=False)] = Path(
        "trimtab-demo"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json at the end.")] = False,
) -> None:
    """Run the demo, sixteen months in some two minutes; exit status 1 if it shows less than it promises."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("requests"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=as_json) as progress:
        task = progress.add_task("2011-09-01", total=None)

        def tell(seen: driver.Progress, requests: int) -> None:
            progress.update(task, description=f"{seen.at:%Y-%m-%d}", completed=seen.requests, total=requests)
            for entry in seen.entries:
                if (words := line(entry)) is not None:
                    progress.console.print(escape(words), soft_wrap=True)

        def stage(words: str) -> None:
            progress.console.print(f"[dim]{escape(words)}[/]", soft_wrap=True)

        report = run_demo(folder, say=stage, tell=tell)
    if as_json:
        print_json(report)
    else:
        _show(report, folder)
    failures = report.failures()
    for failure in failures:
        typer.echo(f"Not as promised: {failure}.", err=True)
    if failures:
        raise typer.Exit(1)


def _show(report: Report, folder: Path) -> None:
    errors = report.rmsle_by_month
    rows = [
        {"month": month, **{name: f"{errors[name][month]:.3f}" for name in errors}}
        for month in errors["served"]
    ]
    rows.append(
        {"month": "mean, months 10-24", **{name: f"{value:.3f}" for name, value in report.rmsle_mean.items()}}
    )
    print_rows(rows, ["month", "frozen", "served", "monthly_refit"], empty="")
    say(
        f"\n{report.promotions} promotions, {report.rejections} rejected by a gate, "
        f"{report.rollbacks} rolled back; "
        f"{report.predictions_logged:,} of {report.predictions_acknowledged:,} predictions logged, "
        f"{report.labels_joined:,} of {report.labels_due:,} joined to their label; "
        f"{report.journal_entries:,} journal entries, {'verified' if report.journal_verified else 'BROKEN'}."
    )
    say(
        f"The controller was killed in the middle of a cycle and finished it: "
        f"{report.cycle_finished_after_kill}.\n"
        f"{report.seconds:.0f} s, at most {report.peak_rss_mb:.0f} MB.\n"
    )
    say(f"Picture and tables  {folder / 'report.html'}")
    say(f"Every decision      trimtab why bikes --dir {folder}")
    say(f"Open it again       trimtab up --dir {folder}")
