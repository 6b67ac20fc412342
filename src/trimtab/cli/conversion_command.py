"""`trimtab model convert`: from a model that only its own code can load to one that any gateway serves."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from trimtab.cli.output import AsJson, print_json, say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.models.converting import convert_version

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[int, typer.Argument(min=1, help="The version's number.")]


def convert(
    name: Name,
    version: Version,
    project: Project = HERE,
    data: Annotated[
        str | None, typer.Option(help="A dataset to compare on; best of rows that training has not seen.")
    ] = None,
    answer: Annotated[
        Literal["probability", "label"] | None,
        typer.Option(help="What of a classifier is served (default: what it was logged to answer)."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest relative difference that is allowed (default 1e-9).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version that is served without its own code, of one that MLflow's clients logged.

    scikit-learn becomes ONNX; XGBoost, LightGBM and ONNX keep their own files. The original is loaded in a
    process of its own. Nothing is registered unless both answer alike.
    """
    with open_workspace(project) as workspace:
        made, told = convert_version(
            workspace, name, version, dataset=data, answer=answer, tolerance=tolerance
        )
    if as_json:
        print_json({"version": made, "conversion": told})
        return
    say(f"Version {made.version} of '{name}' is {made.description}.")
    for what, value in told.notes.items():
        say(f"  {what.replace('_', ' ')}: {value}")
