"""`trimtab serve`: serve one model at once."""

from __future__ import annotations

import json
import logging
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.group import single_command
from trimtab.cli.output import say
from trimtab.config import FILE_NAME, load_settings
from trimtab.models.confined.confinement import Confinement
from trimtab.server.standalone import (
    Standing,
    check_folder,
    is_model_address,
    open_project,
    project_for,
    stand,
)
from trimtab.serving.access import access_for, check_binding, token_hashes
from trimtab.serving.gateway import run_gateway
from trimtab.serving.grpc_port import check_grpc, hold_port
from trimtab.serving.listener import listen

app = single_command()

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  (looked up, not bound)
"""What to call an address by that stands for all of this machine."""


@app.command()
def serve(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder in MLmodel format, models:/NAME/VERSION, models:/NAME@ALIAS or runs:/ID/PATH."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="The endpoint's name (default: the model's).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0: any (default 8601).")] = None,
    grpc_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port for gRPC.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Worker processes (default 1).")] = None,
    confined: Annotated[
        bool,
        typer.Option(
            "--confined",
            help="Let a model that only its own code can load (a pickle) run it, in a process of its own.",
        ),
    ] = False,
    project: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="The project's folder, made if need be. By default the current one if it is a project, else "
            "a temporary one.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Serve one model at once, with no loop and no server role, until SIGTERM or Ctrl-C.

    It stands behind an endpoint of the project and answers every protocol of the gateway, logged like any
    other. In a project the endpoint stays; `trimtab endpoint delete` takes it away.
    """
    if confined:
        # The gateway, which this process becomes, reads it there as well.
        os.environ["TRIMTAB_CONFINED_MODELS"] = '["*"]'
    folder = project_for(model, project)
    settings = load_settings(folder or Path())
    if not is_model_address(model):
        check_folder(Path(model), name, Confinement.of(settings))
    host = settings.host if host is None else host
    port = settings.gateway_port if port is None else port
    grpc_port = settings.gateway_grpc_port if grpc_port is None else grpc_port
    # All is looked at before anything is changed; the gateway looks again.
    if folder is None or not (folder / FILE_NAME).exists():
        check_binding(host, access_for(settings, host, ()))
    listen(host, port, who="gateway", option="--port").close()
    if grpc_port is not None:
        check_grpc()
        hold_port(host, grpc_port).close()
    with open_project(folder) as workspace:
        with workspace.read() as connection:
            check_binding(host, access_for(settings, host, token_hashes(connection)))
        standing = stand(workspace, model, name)
        home, state = workspace.project, workspace.root
    say(f"Version {standing.version} of '{standing.model}' stands behind the endpoint '{standing.endpoint}'.")
    say(f"Its log is in {state}{'' if folder else ' (temporary: name another folder with --dir)'}.")
    logging.basicConfig(format="%(asctime)s gateway %(levelname)s %(message)s", level=logging.WARNING)
    run_gateway(
        home,
        host,
        port,
        workers,
        grpc_port=grpc_port,
        listening=lambda address: _tell(address, grpc_port, standing),
    )


def _tell(address: str, grpc_port: int | None, standing: Standing) -> None:
    host, _, port = address.rpartition(":")
    here = EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{here}:{port}"
    if grpc_port is not None:
        say(f"Serving gRPC at {here}:{grpc_port}.")
    row = json.dumps({"row": standing.row}, ensure_ascii=False)
    say(f"Serving at {url} (its columns: {url}/v1/endpoints/{standing.endpoint}/docs). Try:")
    say(f"curl -s {shlex.quote(f'{url}/v1/endpoints/{standing.endpoint}/predict')} -d {shlex.quote(row)}")
