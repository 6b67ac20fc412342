"""Where the content of a model version comes from, and its digest.

Whatever is on this server when a version is made becomes a tree of the blob store: the version is a snapshot,
which gates can judge and a gateway can load. Of a source elsewhere (s3://...), or one that is empty, only the
address is kept: such a version can be listed and loaded by clients, and passes no gate.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models.addresses import Place, tree_on_a_server
from trimtab.models.contents import address_of, is_address, tree_at, tree_of_address
from trimtab.models.registry import Registry
from trimtab.models.sources import place_of_source, version_in
from trimtab.models.versions import ModelVersion
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.logged_models import artifact_root
from trimtab.server.mlflow.protocol import Caller
from trimtab.tracking import logged_models
from trimtab.tracking.run_details import run_row


class Source(msgspec.Struct, frozen=True):
    """What a new version is made from."""

    uri: str
    digest: str
    run_id: str | None


def source_of(caller: Caller, source: str, run_id: str | None, model_id: str | None) -> Source:
    """The content at a source as clients name it; raises InvalidInputError for a path on this machine or
    one that leads elsewhere, NotFoundError for a model that is not there."""
    _check_remote(source)
    workspace, uri = caller.workspace, source
    registry = Registry(workspace)
    if (version := version_in(registry, source)) is not None:
        return Source(source, version.digest, run_id or version.run_id)
    place = place_of_source(registry, workspace.project, source)
    if source.startswith("models:"):
        if place is None:
            raise NotFoundError(f"There is no model version at '{source:.200}'.")
        model_id = place.owner
    if model_id:
        with workspace.read() as connection:
            row = logged_models.find(connection, model_id)
        run_id = run_id or row.run
        if source.startswith("models:"):
            # What a client registers as models:/m-... is known by where its files are, as in MLflow.
            uri = artifact_root(row.id, row.experiment_id)
    digest = None if place is None else _tree(caller, place)
    return Source(uri, digest or tree_of_address(workspace, source), run_id)


def download_uri(caller: Caller, version: ModelVersion) -> str:
    """Where the content of a version is fetched from: the snapshot, or the address elsewhere."""
    if not is_address(caller.workspace, version.digest):
        return tree_on_a_server(version.digest)
    address = address_of(caller.workspace, version.digest)  # also that of a copy, whose source is a version
    return (address.startswith("runs:") and _uri_of_run_source(caller, address)) or address


def _check_remote(source: str) -> None:
    text = source
    while (decoded := unquote(text)) != text:
        text = decoded
    try:
        scheme = urlsplit(source).scheme
    except ValueError:
        scheme = ""
    if scheme in {"", "file"} or "\0" in text or ".." in text.replace("\\", "/").split("/"):
        raise InvalidInputError(
            f"Invalid model version source: '{source:.300}'. A version is made from what was logged to this "
            "server (runs:/, models:/, mlflow-artifacts:/) or from a remote address, not from a local path."
        )


def _tree(caller: Caller, place: Place) -> str | None:
    try:
        return tree_at(caller.workspace, place)
    except NotFoundError:
        if place.kind == "runs":
            return None  # MLflow asks nobody whether the run is there
        raise


def _uri_of_run_source(caller: Caller, source: str) -> str | None:
    """The artifact URI of "runs:/RUN/PATH", or None if there is no such run."""
    run_id, _, path = urlsplit(source).path.strip("/").partition("/")
    with caller.workspace.read() as connection:
        row = run_row(connection, run_id)
    return None if row is None else f"{wire.run_info(row).artifact_uri}/{path}".rstrip("/")
