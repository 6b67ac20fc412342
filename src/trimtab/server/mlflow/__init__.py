"""MLflow's REST protocol over the workspace: its own paths, messages and errors.

Clients get the answers that MLflow's own server gives, but for these differences on purpose:

- Where artifacts are is for this server to say: `artifact_location` is refused. A path is a file or a folder.
- Infinities and NaN are kept as they are; MLflow's SQL store makes the largest float of an infinity.
- A time lies between 1970 and the year 9999. No text has a NUL or half a character in it.
- A batch is written as a whole or not at all.
- Restoring, deleting or renaming an experiment that is not in the state for it, and other conflicts, are
  answered with status 400 or 404, never with 500.
- A model version is a snapshot of its files, and is fetched from that; it can be made from what was logged
  here or from a remote address, never from a path of the server's machine. Of a remote address only the
  address is kept. `run_link` is not kept, and a version's last update is its creation.
- No version number is given twice, and no model takes a name that another one had.
- What a governed model's gates do not allow is refused with PERMISSION_DENIED.
- Names in messages are spelled as in MLflow's own messages (snake_case); protobuf's camelCase is not read.
- Traces, webhooks, prompts, assessments, scorers and evaluation datasets are not there yet: they answer
  ENDPOINT_NOT_FOUND.
- The parts of a multipart upload come to this server. Downloads in ranges are not announced, since they cost
  each file a request more; a client that is told to fetch so can.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import JSONResponse, PlainTextResponse, Response

from trimtab.server.mlflow import (
    artifacts,
    experiments,
    logged_models,
    metrics,
    model_versions,
    registry,
    runs,
)
from trimtab.server.mlflow.artifacts import Artifacts
from trimtab.server.mlflow.protocol import Door, Protocol
from trimtab.workspace import Workspace

PROTOCOL_VERSION = "3.17.2"
"""The version of MLflow whose protocol this speaks, which clients ask for."""

ENDPOINTS = (
    *experiments.ENDPOINTS,
    *runs.ENDPOINTS,
    *metrics.ENDPOINTS,
    *logged_models.ENDPOINTS,
    *artifacts.ENDPOINTS,
    *registry.ENDPOINTS,
    *model_versions.ENDPOINTS,
)

STREAMED = tuple(
    f"{api}/2.0/mlflow-artifacts/{path}" for api in ("/api", "/ajax-api") for path in artifacts.STREAMED
)


def mount(app: FastAPI, workspace: Workspace) -> None:
    """Let the application answer MLflow's clients."""
    door = Door(workspace)

    @app.get("/version", include_in_schema=False)
    def version() -> Response:
        return PlainTextResponse(PROTOCOL_VERSION)

    for api in ("/api", "/ajax-api"):

        @app.get(f"{api}/3.0/mlflow/server-info", include_in_schema=False)
        def server_info() -> Response:
            return JSONResponse(
                {
                    "store_type": "SqlStore",
                    "workspaces_enabled": False,
                    "trace_archival_enabled": False,
                    "multipart_uploads_enabled": True,
                    "multipart_downloads_enabled": False,
                }
            )

        app.mount(f"{api}/2.0/mlflow-artifacts", Artifacts(door, f"{api}/2.0/mlflow-artifacts"))
        for number in ("2.0", "3.0", "4.0"):
            prefix = f"{api}/{number}/mlflow"
            app.mount(prefix, Protocol(door, prefix, ENDPOINTS if number == "2.0" else ()))


def is_streamed(path: str) -> bool:
    """Whether what is sent to this path is a file, which goes to the store as it arrives."""
    return path.startswith(STREAMED)
