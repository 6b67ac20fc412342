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
- Of the values of a logged model's metric, the latest of each run and dataset is told. A param that it has
  already stays, and what a run reads or makes is noted once: saying it again is no error. Its name has 500
  characters at most, and the key of a param or tag 250.
- The models of a run come in the order of their ids. The source of a version that was made of a logged model
  is the address of its files. A run may be created with an empty name in its tags, and gets one of ours.
- Logged models are found by their status; MLflow's SQL store compares its number with the word, which never
  match. A logged model without a run has none to search for; MLflow's server makes it an empty text.
- Searches take a few spellings more, `attributes.name` for experiments among them, and compare a time with
  any number. An empty file has the size 0. Beside its code and message an error has no other field.
- What a governed model's gates do not allow is refused with PERMISSION_DENIED.
- Names in messages are spelled as in MLflow's own messages (snake_case); protobuf's camelCase is not read.
- Traces, webhooks, prompts, assessments, scorers and evaluation datasets are not there yet: they answer
  ENDPOINT_NOT_FOUND.
- Uploads in parts and downloads in ranges are answered, and not announced: to one server a file goes faster
  in one piece, and the client sends that again where it is broken off. A client that is told to, by
  MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD and _DOWNLOAD, sends and fetches so.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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


SERVER_INFO = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False,
}


class Front:
    """Answers MLflow's clients, and passes all other requests on."""

    def __init__(self, workspace: Workspace, otherwise: ASGIApp) -> None:
        self._otherwise = otherwise
        self._doors: dict[str, ASGIApp] = {}
        self._plain: dict[str, ASGIApp] = {"/version": PlainTextResponse(PROTOCOL_VERSION)}
        door = Door(workspace)
        for api in ("/api", "/ajax-api"):
            self._plain[f"{api}/3.0/mlflow/server-info"] = JSONResponse(SERVER_INFO)
            artifacts_below = f"{api}/2.0/mlflow-artifacts"
            self._doors[artifacts_below] = Artifacts(door, artifacts_below)
            for number in ("2.0", "3.0", "4.0"):
                prefix = f"{api}/{number}/mlflow"
                self._doors[prefix] = Protocol(door, prefix, ENDPOINTS if number == "2.0" else ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        app = self._otherwise
        if scope["type"] == "http":
            path = scope["path"]
            if scope["method"] == "GET" and path in self._plain:
                app = self._plain[path]
            else:
                # "/api/2.0/mlflow/runs/get" is answered by the door of "/api/2.0/mlflow".
                app = self._doors.get("/".join(path.split("/", 4)[:4]), app)
        await app(scope, receive, send)


def is_streamed(path: str) -> bool:
    """Whether what is sent to this path is a file, which goes to the store as it arrives."""
    return path.startswith(STREAMED)
