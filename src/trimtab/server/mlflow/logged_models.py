"""MLflow's endpoints of logged models."""

# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

import msgspec

from trimtab.errors import InvalidInputError
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.protocol import Caller, endpoint
from trimtab.server.mlflow.validation import page_size
from trimtab.server.mlflow.wire import Int64, KeyValue, Text, experiment_number
from trimtab.store.database import Transaction
from trimtab.tracking import logged_models
from trimtab.tracking.logged_models import Status
from trimtab.tracking.run_names import random_name

LONGEST_NAME = 500
LARGEST_PAGE = 50_000

_STATUSES: dict[str | int, Status] = {
    "LOGGED_MODEL_PENDING": "PENDING", "LOGGED_MODEL_READY": "READY", "LOGGED_MODEL_UPLOAD_FAILED": "FAILED",
    1: "PENDING", 2: "READY", 3: "FAILED",
}  # fmt: skip
_WORDS: dict[Status, str] = {
    "PENDING": "LOGGED_MODEL_PENDING",
    "READY": "LOGGED_MODEL_READY",
    "FAILED": "LOGGED_MODEL_UPLOAD_FAILED",
}


class Create(msgspec.Struct):
    experiment_id: Text
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[KeyValue] | None = None
    tags: list[KeyValue] | None = None


class One(msgspec.Struct):
    model_id: Text
    allow_deleted: bool | None = None


class Finalize(msgspec.Struct):
    model_id: Text
    status: str | int


class LogParams(msgspec.Struct):
    model_id: Text
    params: list[KeyValue] | None = None


class SetTags(msgspec.Struct):
    model_id: Text
    tags: list[KeyValue] | None = None


class DeleteTag(msgspec.Struct):
    model_id: Text
    tag_key: Text


class OrderBy(msgspec.Struct):
    field_name: Text
    ascending: bool | None = None


class OnDataset(msgspec.Struct):
    dataset_name: Text
    dataset_digest: str | None = None


class Search(msgspec.Struct):
    experiment_ids: list[str] | None = None
    filter: str | None = None
    datasets: list[OnDataset] | None = None
    max_results: Int64 | None = None
    order_by: list[OrderBy] | None = None
    page_token: str | None = None


class Info(msgspec.Struct, omit_defaults=True):
    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    model_type: str | None = None
    source_run_id: str | None = None
    tags: list[KeyValue] = []


class Data(msgspec.Struct, omit_defaults=True):
    params: list[KeyValue] = []
    metrics: list[wire.Metric] = []


class Model(msgspec.Struct):
    info: Info
    data: Data


class Found(msgspec.Struct):
    model: Model


class Page(msgspec.Struct, omit_defaults=True):
    models: list[Model] = []
    next_page_token: str = ""


def create(caller: Caller, request: Create) -> Found:
    """Make a logged model."""
    name = request.name or random_name()
    if len(name) > LONGEST_NAME or any(sign in name for sign in "/:.%\"'"):
        raise InvalidInputError(
            f"Invalid model name ({name!r:.80}) provided. Model name must be a non-empty string and cannot "
            "contain the following characters: ('/', ':', '.', '%', '\"', \"'\")."
        )
    experiment = experiment_number(request.experiment_id)
    tags = _pairs(request.tags)
    params = _pairs(request.params)

    def work(tx: Transaction) -> str:
        return logged_models.create(
            tx,
            experiment,
            name=name,
            type=request.model_type or "",
            run=request.source_run_id or None,
            params=params,
            tags=tags,
        )

    return _found(caller, caller.workspace.write(work))


def get(caller: Caller, request: One) -> Found:
    """One logged model."""
    return _found(caller, request.model_id, deleted=bool(request.allow_deleted))


def finalize(caller: Caller, request: Finalize) -> Found:
    """Say that a logged model is whole, or failed."""
    status = _STATUSES.get(request.status)
    if status is None:
        raise InvalidInputError(f"Invalid model status: {request.status!r:.80}. Expected READY or FAILED.")
    caller.workspace.write(lambda tx: logged_models.finalize(tx, request.model_id, status))
    return _found(caller, request.model_id, deleted=True)


def delete(caller: Caller, request: One) -> None:
    """Delete a logged model."""
    caller.workspace.write(lambda tx: logged_models.remove(tx, request.model_id))


def log_params(caller: Caller, request: LogParams) -> None:
    """Set params of a logged model."""
    params = _pairs(request.params)
    caller.workspace.write(lambda tx: logged_models.log_params(tx, request.model_id, params))


def set_tags(caller: Caller, request: SetTags) -> Found:
    """Set tags of a logged model."""
    tags = _pairs(request.tags)
    caller.workspace.write(lambda tx: logged_models.set_tags(tx, request.model_id, tags))
    return _found(caller, request.model_id)


def delete_tag(caller: Caller, request: DeleteTag) -> None:
    """Take a tag off a logged model."""
    caller.workspace.write(lambda tx: logged_models.delete_tag(tx, request.model_id, request.tag_key))


def search(caller: Caller, request: Search) -> Page:
    """Logged models that meet a filter, a page at a time."""
    with caller.workspace.read() as connection:
        page = logged_models.search(
            connection,
            [experiment_number(each) for each in request.experiment_ids or []],
            filter=request.filter or "",
            order_by=[
                logged_models.order(each.field_name, ascending=each.ascending is not False)
                for each in request.order_by or []
            ],
            datasets=[(each.dataset_name, each.dataset_digest) for each in request.datasets or []],
            limit=page_size(100 if request.max_results is None else request.max_results, LARGEST_PAGE),
            page_token=request.page_token or "",
        )
    return Page([_message(each) for each in page.models], page.next_page_token)


def artifact_root(row_id: str, experiment_id: int) -> str:
    """Where the artifacts of a logged model are, as clients address them."""
    return f"{wire.experiment_root(experiment_id)}/models/{row_id}/artifacts"


def _found(caller: Caller, model_id: str, *, deleted: bool = False) -> Found:
    with caller.workspace.read() as connection:
        return Found(_message(logged_models.get(connection, model_id, deleted=deleted)))


def _message(model: logged_models.LoggedModel) -> Model:
    row = model.row
    info = Info(
        row.id,
        str(row.experiment_id),
        row.name,
        wire.milliseconds(row.created_at),
        wire.milliseconds(row.updated_at),
        artifact_root(row.id, row.experiment_id),
        _WORDS[row.status],
        row.type or None,
        row.run,
        wire.key_values(model.tags),
    )
    metrics = [
        wire.Metric(
            metric.key,
            wire.double(metric.value),
            metric.at // 1000,
            metric.step,
            metric.run,
            metric.model,
            metric.dataset or None,
            metric.dataset_digest or None,
        )
        for metric in model.metrics
    ]
    return Model(info, Data(wire.key_values(model.params), metrics))


def _pairs(given: list[KeyValue] | None) -> dict[str, str]:
    """Params or tags by key: of a logged model, unlike of a run, MLflow takes any key, and values of any
    length. The last of a key counts."""
    return {each.key: each.value for each in given or []}


ENDPOINTS = (
    endpoint("POST", "logged-models", Create, create),
    endpoint("POST", "logged-models/search", Search, search),
    endpoint("GET", "logged-models/{model_id}", One, get),
    endpoint("PATCH", "logged-models/{model_id}", Finalize, finalize),
    endpoint("DELETE", "logged-models/{model_id}", One, delete),
    endpoint("POST", "logged-models/{model_id}/params", LogParams, log_params),
    endpoint("PATCH", "logged-models/{model_id}/tags", SetTags, set_tags),
    endpoint("DELETE", "logged-models/{model_id}/tags/{tag_key}", DeleteTag, delete_tag),
)
