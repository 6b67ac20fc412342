"""MLflow's endpoints of model versions."""
# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models import registry_search
from trimtab.models.addresses import tree_on_a_server
from trimtab.models.governance import PRODUCTION
from trimtab.models.registry import STAGES, Registry
from trimtab.models.sources import logged_model_in
from trimtab.models.versions import ModelVersion
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.protocol import Caller, endpoint
from trimtab.server.mlflow.sources import download_uri, source_of
from trimtab.server.mlflow.validation import LONGEST_MODEL_TAG, key_of, limited_tags, page_size
from trimtab.server.mlflow.wire import Int64, KeyValue, Text

LARGEST_PAGE = 200_000


class Create(msgspec.Struct):
    name: Text
    source: Text
    run_id: str | None = None
    tags: list[KeyValue] | None = None
    description: str | None = None
    model_id: str | None = None


class One(msgspec.Struct):
    name: Text
    version: Text


class Describe(msgspec.Struct):
    name: Text
    version: Text
    description: str | None = None


class Transition(msgspec.Struct):
    name: Text
    version: Text
    stage: Text
    archive_existing_versions: bool | None = None


class Search(msgspec.Struct):
    filter: str | None = None
    max_results: Int64 | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class SetTag(msgspec.Struct):
    name: Text
    version: Text
    key: Text
    value: str | None = None


class DeleteTag(msgspec.Struct):
    name: Text
    version: Text
    key: Text


class Version(msgspec.Struct, omit_defaults=True):
    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    user_id: str
    current_stage: str
    source: str
    status: str
    description: str
    run_id: str
    model_id: str | None = None
    tags: list[KeyValue] = []
    aliases: list[str] = []


class FoundVersion(msgspec.Struct):
    model_version: Version


class Page(msgspec.Struct, omit_defaults=True):
    model_versions: list[Version] = []
    next_page_token: str = ""


class Uri(msgspec.Struct):
    artifact_uri: str


def create(caller: Caller, request: Create) -> FoundVersion:
    """Make a version from what was logged; it keeps that content whatever becomes of the run."""
    registry = Registry(caller.workspace)
    tags = limited_tags(request.tags or [], LONGEST_MODEL_TAG)
    source = source_of(caller, request.source, request.run_id or None, request.model_id or None)
    made = caller.workspace.write(
        lambda tx: registry.register(
            tx,
            request.name,
            source.digest,
            run_id=source.run_id,
            source=source.uri,
            description=request.description or "",
            tags=tags,
        )
    )
    return FoundVersion(version_message(made))


def get(caller: Caller, request: One) -> FoundVersion:
    """One version."""
    return FoundVersion(version_message(_version(caller, request.name, request.version)))


def get_download_uri(caller: Caller, request: One) -> Uri:
    """Where the content of a version is."""
    return Uri(download_uri(caller, _version(caller, request.name, request.version)))


def describe(caller: Caller, request: Describe) -> FoundVersion:
    """Replace the description of a version."""
    registry, number = Registry(caller.workspace), version_number(request.version)
    caller.workspace.write(
        lambda tx: registry.describe(tx, request.name, request.description or "", version=number)
    )
    return get(caller, One(request.name, request.version))


def delete(caller: Caller, request: One) -> None:
    """Delete a version; what a governed model relies on is kept."""
    registry, number = Registry(caller.workspace), version_number(request.version)
    caller.workspace.write(lambda tx: registry.delete_version(tx, request.name, number))


def transition(caller: Caller, request: Transition) -> FoundVersion:
    """Put a version into a stage; Production of a governed model takes what `champion` takes."""
    stage = next((known for known in STAGES if known.lower() == request.stage.lower()), "")
    if not stage:
        raise InvalidInputError(
            f"Invalid Model Version stage: {request.stage:.80}. Value must be one of {', '.join(STAGES)}."
        )
    archive = bool(request.archive_existing_versions)
    if archive and stage not in {"Staging", PRODUCTION}:
        raise InvalidInputError(
            f"Model version transition cannot archive existing model versions because '{stage:.80}' is not "
            "an Active stage."
        )
    registry, number = Registry(caller.workspace), version_number(request.version)
    moved = caller.workspace.write(
        lambda tx: registry.set_stage(tx, request.name, number, stage, archive_existing=archive)
    )
    return FoundVersion(version_message(moved))


def search(caller: Caller, request: Search) -> Page:
    """Versions that meet a filter, a page at a time."""
    with caller.workspace.read() as connection:
        page = registry_search.search_versions(
            connection,
            filter=request.filter or "",
            order_by=request.order_by or [],
            limit=page_size(10_000 if request.max_results is None else request.max_results, LARGEST_PAGE),
            page_token=request.page_token or "",
        )
    # As in MLflow, what is found says nothing of its aliases.
    found = [msgspec.structs.replace(version_message(each), aliases=[]) for each in page.versions]
    return Page(found, page.next_page_token)


def set_tag(caller: Caller, request: SetTag) -> None:
    """Set a tag of a version."""
    limited_tags([KeyValue(request.key, request.value or "")], LONGEST_MODEL_TAG)
    registry, number = Registry(caller.workspace), version_number(request.version)
    caller.workspace.write(
        lambda tx: registry.set_tag(tx, request.name, request.key, request.value or "", version=number)
    )


def delete_tag(caller: Caller, request: DeleteTag) -> None:
    """Take a tag off a version."""
    key_of(request.key)
    registry, number = Registry(caller.workspace), version_number(request.version)
    caller.workspace.write(lambda tx: registry.delete_tag(tx, request.name, request.key, version=number))


def version_number(text: str) -> int:
    """A version's number; raises InvalidInputError if it cannot be one, NotFoundError for 0."""
    if not text.isdecimal() or not text.isascii() or len(text) > 9:
        raise InvalidInputError(f"Parameter 'version' must be an integer, got '{text:.80}'.")
    if int(text) == 0:
        raise NotFoundError("No model has a version 0: they are counted from 1.")
    return int(text)


def version_message(version: ModelVersion) -> Version:
    """A version as MLflow tells of it."""
    created = wire.milliseconds(version.created_at)
    return Version(
        version.model,
        str(version.version),
        created,
        created,
        version.actor,
        version.stage,
        version.source or tree_on_a_server(version.digest),
        "READY",
        version.description,
        version.run_id or "",
        logged_model_in(version.source),
        wire.key_values(version.tags),
        list(version.aliases),
    )


def _version(caller: Caller, name: str, version: str) -> ModelVersion:
    return Registry(caller.workspace).get_version(name, version_number(version))


ENDPOINTS = (
    endpoint("POST", "model-versions/create", Create, create),
    endpoint("GET", "model-versions/get", One, get),
    endpoint("GET", "model-versions/get-download-uri", One, get_download_uri),
    endpoint("PATCH", "model-versions/update", Describe, describe),
    endpoint("DELETE", "model-versions/delete", One, delete),
    endpoint("POST", "model-versions/transition-stage", Transition, transition),
    endpoint("GET", "model-versions/search", Search, search),
    endpoint("POST", "model-versions/set-tag", SetTag, set_tag),
    endpoint("DELETE", "model-versions/delete-tag", DeleteTag, delete_tag),
)
