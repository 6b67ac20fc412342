"""MLflow's endpoints of registered models and their aliases.

A model that a loop or a policy governs keeps its promise here too: what its gates do not allow is refused.
"""
# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models import registry_search
from trimtab.models.registry import STAGES, Registry
from trimtab.models.versions import ModelVersion, RegisteredModel
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.model_versions import FoundVersion, Version, version_message, version_number
from trimtab.server.mlflow.protocol import Caller, endpoint
from trimtab.server.mlflow.validation import LONGEST_MODEL_TAG, key_of, limited_tags, page_size
from trimtab.server.mlflow.wire import Int64, KeyValue, Text
from trimtab.store.database import Transaction

LARGEST_PAGE = 1000


class Create(msgspec.Struct):
    name: Text
    tags: list[KeyValue] | None = None
    description: str | None = None


class One(msgspec.Struct):
    name: Text


class Rename(msgspec.Struct):
    name: Text
    new_name: Text


class Describe(msgspec.Struct):
    name: Text
    description: str | None = None


class Search(msgspec.Struct):
    filter: str | None = None
    max_results: Int64 | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class Latest(msgspec.Struct):
    name: Text
    stages: list[str] | None = None


class SetTag(msgspec.Struct):
    name: Text
    key: Text
    value: str | None = None


class DeleteTag(msgspec.Struct):
    name: Text
    key: Text


class SetAlias(msgspec.Struct):
    name: Text
    alias: Text
    version: Text


class Alias(msgspec.Struct):
    name: Text
    alias: Text


class AliasOf(msgspec.Struct):
    alias: str
    version: str


class Model(msgspec.Struct, omit_defaults=True):
    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str = ""
    latest_versions: list[Version] = []
    tags: list[KeyValue] = []
    aliases: list[AliasOf] = []


class Found(msgspec.Struct):
    registered_model: Model


class Page(msgspec.Struct, omit_defaults=True):
    registered_models: list[Model] = []
    next_page_token: str = ""


class Versions(msgspec.Struct, omit_defaults=True):
    model_versions: list[Version] = []


def create(caller: Caller, request: Create) -> Found:
    """Make a model."""
    tags = limited_tags(request.tags or [], LONGEST_MODEL_TAG)
    registry = Registry(caller.workspace)
    description = request.description or ""
    made = caller.workspace.write(
        lambda tx: registry.create_model(tx, request.name, description=description, tags=tags)
    )
    return Found(_message(made, []))


def get(caller: Caller, request: One) -> Found:
    """One model with the newest version in each stage."""
    registry = Registry(caller.workspace)
    return Found(_message(registry.model(request.name), registry.newest_in_stages(request.name)))


def rename(caller: Caller, request: Rename) -> Found:
    """Give a model another name."""
    registry = Registry(caller.workspace)
    if not request.new_name.strip():
        raise InvalidInputError("Missing value for required parameter 'new_name'.")
    caller.workspace.write(lambda tx: registry.rename_model(tx, request.name, request.new_name))
    return get(caller, One(request.new_name))


def describe(caller: Caller, request: Describe) -> Found:
    """Replace the description of a model."""
    registry = Registry(caller.workspace)
    caller.workspace.write(lambda tx: registry.describe(tx, request.name, request.description or ""))
    return get(caller, One(request.name))


def delete(caller: Caller, request: One) -> None:
    """Delete a model with its versions."""
    registry = Registry(caller.workspace)
    caller.workspace.write(lambda tx: registry.delete_model(tx, request.name))


def search(caller: Caller, request: Search) -> Page:
    """Models that meet a filter, a page at a time."""
    with caller.workspace.read() as connection:
        page = registry_search.search_models(
            connection,
            filter=request.filter or "",
            order_by=request.order_by or [],
            limit=page_size(100 if request.max_results is None else request.max_results, LARGEST_PAGE),
            page_token=request.page_token or "",
        )
    return Page([_message(each.model, each.newest) for each in page.models], page.next_page_token)


def latest(caller: Caller, request: Latest) -> Versions:
    """The newest version in each stage, or in those asked for."""
    found = Registry(caller.workspace).newest_in_stages(request.name)
    stages = {canonical_stage(stage) for stage in request.stages or STAGES}
    return Versions([version_message(each) for each in found if each.stage in stages])


def set_tag(caller: Caller, request: SetTag) -> None:
    """Set a tag of a model."""
    registry = Registry(caller.workspace)
    limited_tags([KeyValue(request.key, request.value or "")], LONGEST_MODEL_TAG)
    caller.workspace.write(lambda tx: registry.set_tag(tx, request.name, request.key, request.value or ""))


def delete_tag(caller: Caller, request: DeleteTag) -> None:
    """Take a tag off a model."""
    registry = Registry(caller.workspace)
    key_of(request.key)
    caller.workspace.write(lambda tx: registry.delete_tag(tx, request.name, request.key))


def set_alias(caller: Caller, request: SetAlias) -> None:
    """Let an alias name a version; `champion` of a governed model takes a passing gate report."""
    registry = Registry(caller.workspace)
    number = version_number(request.version)

    def work(tx: Transaction) -> None:
        registry.set_alias(tx, request.name, request.alias, number, reason="set by an MLflow client")

    caller.workspace.write(work)


def delete_alias(caller: Caller, request: Alias) -> None:
    """Take an alias away."""
    registry = Registry(caller.workspace)
    caller.workspace.write(lambda tx: registry.delete_alias(tx, request.name, request.alias))


def get_by_alias(caller: Caller, request: Alias) -> FoundVersion:
    """The version that an alias names; `latest` is the newest."""
    registry = Registry(caller.workspace)
    model = registry.model(request.name)
    if request.alias.lower() == "latest":
        newest = max(registry.newest_in_stages(request.name), key=lambda each: each.version, default=None)
        if newest is None:
            raise NotFoundError(f"Latest version not found for model {request.name}.")
        return FoundVersion(version_message(newest))
    if request.alias not in model.aliases:
        raise InvalidInputError(f"Registered model alias {request.alias:.300} not found.")
    return FoundVersion(version_message(registry.alias(request.name, request.alias)))


def canonical_stage(stage: str) -> str:
    """A stage as it is spelled; raises InvalidInputError for one that is not there."""
    for known in STAGES:
        if stage.lower() == known.lower():
            return known
    raise InvalidInputError(f"Invalid Model Version stage: {stage:.80}. Value must be one of {STAGES}.")


def _message(model: RegisteredModel, newest: list[ModelVersion]) -> Model:
    return Model(
        model.name,
        wire.milliseconds(model.created_at),
        wire.milliseconds(model.updated_at),
        model.description,
        # As in MLflow, these say nothing of their aliases: the model itself does.
        [msgspec.structs.replace(version_message(each), aliases=[]) for each in newest],
        wire.key_values(model.tags),
        [AliasOf(alias, str(version)) for alias, version in model.aliases.items()],
    )


ENDPOINTS = (
    endpoint("POST", "registered-models/create", Create, create),
    endpoint("GET", "registered-models/get", One, get),
    endpoint("POST", "registered-models/rename", Rename, rename),
    endpoint("PATCH", "registered-models/update", Describe, describe),
    endpoint("DELETE", "registered-models/delete", One, delete),
    endpoint("GET", "registered-models/search", Search, search),
    endpoint("POST", "registered-models/get-latest-versions", Latest, latest),
    endpoint("GET", "registered-models/get-latest-versions", Latest, latest),
    endpoint("POST", "registered-models/set-tag", SetTag, set_tag),
    endpoint("DELETE", "registered-models/delete-tag", DeleteTag, delete_tag),
    endpoint("POST", "registered-models/alias", SetAlias, set_alias),
    endpoint("DELETE", "registered-models/alias", Alias, delete_alias),
    endpoint("GET", "registered-models/alias", Alias, get_by_alias),
)
