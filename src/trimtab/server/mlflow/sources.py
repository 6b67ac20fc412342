"""Where the content of a model version comes from, and its digest.

Whatever is on this server when a version is made becomes a tree of the blob store: the version is a snapshot,
which gates can judge and a gateway can load. Of a source elsewhere (s3://...), or one that is empty, only the
address is kept: such a version can be listed and loaded by clients, and passes no gate.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models.registry import Registry
from trimtab.models.versions import ModelVersion
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.artifacts import tree_of, tree_uri
from trimtab.server.mlflow.logged_models import artifact_root
from trimtab.server.mlflow.protocol import Caller
from trimtab.store.blobs import Manifest, TreeFile
from trimtab.tracking import logged_models
from trimtab.tracking.run_details import run_row

ADDRESS_FILE = "SOURCE"
"""The one file of the tree of a version whose content is elsewhere: it holds the address."""


class Source(msgspec.Struct, frozen=True):
    """What a new version is made from."""

    uri: str
    digest: str
    run_id: str | None


def source_of(caller: Caller, source: str, run_id: str | None, model_id: str | None) -> Source:
    """The content at a source as clients name it; raises InvalidInputError for a path on this machine or
    one that leads elsewhere, NotFoundError for a model that is not there."""
    text = source
    while (decoded := unquote(text)) != text:
        text = decoded
    try:
        parts = urlsplit(source)
        scheme = parts.scheme
    except ValueError:
        scheme = ""
    if scheme in {"", "file"} or "\0" in text or ".." in text.replace("\\", "/").split("/"):
        raise InvalidInputError(
            f"Invalid model version source: '{source:.300}'. A version is made from what was logged to this "
            "server (runs:/, models:/, mlflow-artifacts:/) or from a remote address, not from a local path."
        )
    if scheme == "models" and not parts.path.lstrip("/").startswith("m-"):
        version = _version_at(caller, parts.path.lstrip("/"))
        return Source(source, version.digest, run_id or version.run_id)
    uri = source
    if scheme == "models":
        model_id = parts.path.strip("/")
    if model_id:
        with caller.workspace.read() as connection:
            row = logged_models.find(connection, model_id)
        run_id = run_id or row.run
        if scheme == "models":
            uri = artifact_root(row.id, row.experiment_id)
    if scheme == "runs":
        uri = uri_of_run_source(caller, source) or source
    digest = tree_of(caller, uri) if uri.startswith("mlflow-artifacts:/") and not parts.netloc else None
    # What a client registers as models:/m-... is known by where its files are, as in MLflow.
    return Source(uri if scheme == "models" else source, digest or _address(caller, source), run_id)


def download_uri(caller: Caller, version: ModelVersion) -> str:
    """Where the content of a version is fetched from: the snapshot, or the address elsewhere."""
    files = caller.workspace.blobs.manifest(version.digest).files
    if set(files) != {ADDRESS_FILE}:
        return tree_uri(version.digest)
    if version.source.startswith("runs:"):
        return uri_of_run_source(caller, version.source) or version.source
    return version.source


def uri_of_run_source(caller: Caller, source: str) -> str | None:
    """The artifact URI of "runs:/RUN/PATH", or None if there is no such run."""
    run_id, _, path = urlsplit(source).path.strip("/").partition("/")
    with caller.workspace.read() as connection:
        row = run_row(connection, run_id)
    return None if row is None else f"{wire.run_info(row).artifact_uri}/{path}".rstrip("/")


def _version_at(caller: Caller, path: str) -> ModelVersion:
    registry = Registry(caller.workspace)
    name, slash, number = path.rpartition("/")
    if slash and number.isdecimal() and len(number) < 10:
        return registry.get_version(name, int(number))
    name, sign, alias = path.rpartition("@")
    if sign:
        return registry.alias(name, alias)
    raise NotFoundError(f"There is no model version at 'models:/{path:.200}'.")


def _address(caller: Caller, source: str) -> str:
    blobs = caller.workspace.blobs
    content = source.encode()
    file = TreeFile(blobs.put(content), len(content))
    return blobs.put(msgspec.json.encode(Manifest({ADDRESS_FILE: file}), order="deterministic"))
