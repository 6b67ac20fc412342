"""`trimtab run`: run a pipeline once, now."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli.group import single_command
from trimtab.cli.loop_command import parse_params
from trimtab.cli.output import AsJson, print_fields, print_json
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.clock import parse_time
from trimtab.pipelines.run import run_pipeline

app = single_command()


@app.command()
def run(
    pipeline: Annotated[str, typer.Argument(help="The pipeline as module:name.")],
    project: Project = HERE,
    param: Annotated[list[str] | None, typer.Option(help="name=value (JSON, or else text).")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Event time that windows end at (by default now).")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="The experiment that the run belongs to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline; what is done already comes from the cache. Exit status 1 if a step failed."""
    with open_workspace(project) as workspace:
        result = run_pipeline(
            workspace,
            pipeline,
            params=parse_params(param or []),
            as_of=None if as_of is None else parse_time(as_of),
            experiment=experiment,
            project=workspace.project,
        )
    if as_json:
        print_json(result)
    else:
        print_fields(
            {
                "run": result.run_id,
                "status": result.status,
                **{f"output {name}" if name != "output" else name: of for name, of in result.outputs.items()},
                **({"failed step": result.failed_step, "error": result.error} if result.failed_step else {}),
            }
        )
    if result.status == "failed":
        raise typer.Exit(1)
