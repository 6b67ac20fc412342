"""`trimtab predict`: a whole table through a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from trimtab.cli.group import single_command
from trimtab.cli.output import AsJson, cell, print_json, print_rows, say
from trimtab.cli.project import HERE, Project
from trimtab.config import FILE_NAME
from trimtab.data.profiles import Profile
from trimtab.errors import InvalidInputError
from trimtab.loop.training_profile import training_profile
from trimtab.monitoring.drift import effects
from trimtab.serving.batch_job import ANSWER_COLUMN, ROWS, Ask, Report, predict_table
from trimtab.serving.batch_job import Progress as Told
from trimtab.serving.batch_model import ChosenModel, model_at, model_of_endpoint
from trimtab.workspace import Workspace

app = single_command()

DRIFTED = 5
"""Features that are shown, those that changed most."""


class Drift(msgspec.Struct, frozen=True):
    """By how much a feature differs from what the model was trained on, from 0 (not) to 1."""

    feature: str
    effect: float


@app.command()
def predict(
    given: Annotated[
        str,
        typer.Option(
            "--input", help="dataset:NAME, dataset:NAME@VERSION, a file, a folder or a pattern in quotes."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            help="dataset:NAME, a .parquet, .arrow, .csv or .ndjson file, or a folder (of Parquet files)."
        ),
    ],
    endpoint: Annotated[str | None, typer.Option(help="The endpoint whose version answers.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Or a model: a folder, models:/NAME/VERSION, models:/NAME@ALIAS or runs:/ID/PATH."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Another version of the endpoint's model than it answers with.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of the input to keep beside the prediction, with commas between them (default: the "
            "key, or all if there is none)."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The column that says what a row is about; it is kept.")
    ] = None,
    answer: Annotated[str, typer.Option("--as", help="The prediction's column.")] = ANSWER_COLUMN,
    on_error: Annotated[
        str, typer.Option(help="fail, or skip: a row that the model does not take goes to a file of rejects.")
    ] = "fail",
    restart: Annotated[
        bool,
        typer.Option(
            "--restart/--resume", help="Throw away what a job that was cut off left, or go on with it."
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes (default: one for each processor).")
    ] = None,
    batch_rows: Annotated[int, typer.Option(min=1, max=10_000_000, help="Rows of one model call.")] = ROWS,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Predict a whole table, larger than memory if need be, as the endpoint would answer it row by row.

    The output appears whole or not at all (a dataset gets one append for each part, at the end). The same
    command again, after it was cut off, goes on where it was; after it was done, it changes nothing.
    """
    how = _on_error(on_error)
    if (endpoint is None) == (model is None):
        raise InvalidInputError("A model is needed.", hint="Name either --endpoint or --model.")
    if version is not None and endpoint is None:
        raise InvalidInputError(
            "--version goes with --endpoint.", hint="Write --model models:/NAME/VERSION instead."
        )
    with _workspace(project, needed=endpoint is not None or project != HERE) as workspace:
        chosen = _chosen(workspace, endpoint, model, version)
        asked = Ask(
            input=given,
            output=output,
            columns=None if columns is None else tuple(filter(None, map(str.strip, columns.split(",")))),
            key=key,
            answer=answer,
            on_error=how,
            rows=batch_rows,
            workers=workers,
            restart=restart,
        )
        with _progress_bar() as progress:
            report = predict_table(workspace, chosen, asked, progress)
        drift = _drift(workspace, chosen, report)
    if as_json:
        shown = {name: getattr(report, name) for name in report.__struct_fields__ if name != "profile"}
        print_json({**shown, "drift": drift})
    else:
        _tell(report, drift)


def _on_error(given: str) -> Literal["fail", "skip"]:
    if given == "fail":
        return "fail"
    if given == "skip":
        return "skip"
    raise InvalidInputError(f"--on-error is '{given}'.", hint="Write fail or skip.")


@contextmanager
def _workspace(project: Path, *, needed: bool) -> Iterator[Workspace | None]:
    """The project's workspace; None where there is no project and none is needed."""
    if not needed and not (project / FILE_NAME).exists():
        yield None
        return
    with Workspace.open(project) as workspace:
        yield workspace


def _chosen(
    workspace: Workspace | None, endpoint: str | None, model: str | None, version: int | None
) -> ChosenModel:
    if endpoint is not None:
        assert workspace is not None
        return model_of_endpoint(workspace, endpoint, version)
    assert model is not None
    return model_at(workspace, model)


@contextmanager
def _progress_bar() -> Iterator[Told]:
    """A bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=1.0, rows=0)
        yield lambda share, rows: bar.update(task, completed=share, rows=rows)


def _drift(workspace: Workspace | None, chosen: ChosenModel, report: Report) -> list[Drift] | None:
    """The features that changed most first; None if it is not known what the model was trained on."""
    if workspace is None or chosen.version is None:
        return None
    reference = training_profile(workspace, chosen.model, chosen.version)
    if reference is None:
        return None
    found = effects(reference, Profile.from_bytes(report.profile))
    return [Drift(feature, effect) for feature, effect in sorted(found.items(), key=lambda item: -item[1])]


def _tell(report: Report, drift: list[Drift] | None) -> None:
    if report.already:
        say(f"{report.output} holds these predictions already: nothing was done.")
    else:
        resumed = f" ({report.resumed} of {report.parts} parts from before)" if report.resumed else ""
        say(f"{report.output}: {report.answered:,} rows of {report.input}, by {report.model}{resumed}.")
    if report.rejected:
        say(f"{report.rejected:,} rows were not taken; the reasons are in {report.rejects}")
    answers = report.statistics[-1]
    quantiles = answers.quantiles
    if quantiles:
        say(
            f"Predictions: mean {cell(answers.mean)}, 5 % below {cell(quantiles['0.05'])}, half below "
            f"{cell(quantiles['0.5'])}, 5 % above {cell(quantiles['0.95'])} (of {report.profiled:,} rows)."
        )
    if drift is None:
        return
    say("Against what the model was trained on (0: alike, 1: nothing in common), the most changed:")
    print_rows(drift[:DRIFTED], ["feature", "effect"], empty="no features in common")
