"""MLflow's REST protocol over the workspace: its own paths, messages and errors."""

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

STREAMED = ("/api/2.0/mlflow-artifacts/artifacts/", "/ajax-api/2.0/mlflow-artifacts/artifacts/")


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
                    "multipart_uploads_enabled": False,
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
