"""MLflow's endpoints of runs, their params, tags, inputs and outputs."""

# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.protocol import Caller, endpoint
from trimtab.server.mlflow.validation import LONGEST_PARAM, LONGEST_TAG, key_of, page_size, tags_of
from trimtab.server.mlflow.wire import Int64, KeyValue, Text, experiment_number, time_of
from trimtab.store.database import Transaction
from trimtab.tracking import inputs, params_and_tags, run_search, runs
from trimtab.tracking.run_details import details_of, run_row
from trimtab.tracking.run_names import random_name
from trimtab.tracking.run_search import NAME_TAG, PARENT_TAG
from trimtab.tracking.runs import Status

LARGEST_PAGE = 50_000
LOGGED_MODELS_TAG = "mlflow.log-model.history"

_STATUSES: dict[str | int, Status] = {
    "RUNNING": "RUNNING", "SCHEDULED": "SCHEDULED", "FINISHED": "FINISHED", "FAILED": "FAILED",
    "KILLED": "KILLED", 1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED",
}  # fmt: skip


class Create(msgspec.Struct):
    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: Int64 | None = None
    tags: list[KeyValue] | None = None


class One(msgspec.Struct):
    run_id: Text


class Update(msgspec.Struct):
    run_id: Text
    status: str | int | None = None
    end_time: Int64 | None = None
    run_name: str | None = None


class LogParam(msgspec.Struct):
    run_id: Text
    key: Text
    value: str | None = None


class DeleteTag(msgspec.Struct):
    run_id: Text
    key: Text


class Search(msgspec.Struct):
    experiment_ids: list[str] | None = None
    filter: str | None = None
    run_view_type: str | int | None = None
    max_results: Int64 | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class LogInputs(msgspec.Struct):
    run_id: Text
    datasets: list[wire.DatasetInput] | None = None
    models: list[wire.ModelInput] | None = None


class LogOutputs(msgspec.Struct):
    run_id: Text
    models: list[wire.ModelOutput]


class LogModel(msgspec.Struct):
    run_id: Text
    model_json: Text


class Found(msgspec.Struct):
    run: wire.Run


class Updated(msgspec.Struct):
    run_info: wire.RunInfo


class Page(msgspec.Struct, omit_defaults=True):
    runs: list[wire.Run] = []
    next_page_token: str = ""


def create(caller: Caller, request: Create) -> Found:
    """Start a run."""
    tags = tags_of(request.tags or [])
    tagged = tags.get(NAME_TAG)
    if request.run_name and tagged and request.run_name != tagged:
        raise InvalidInputError(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{request.run_name:.200}', mlflow.runName='{tagged:.200}')."
        )
    name = request.run_name or tagged or random_name()
    tags[NAME_TAG] = name
    run_id = runs.new_run_id()
    experiment = experiment_number(request.experiment_id or "0")
    started_at = time_of(request.start_time or 0)

    def work(tx: Transaction) -> Found:
        runs.create(
            tx,
            run_id,
            experiment,
            name=params_and_tags.checked_text("the run's name", name),
            parent=tags.get(PARENT_TAG),
            actor=params_and_tags.checked_text("the user", request.user_id or ""),
            started_at=started_at,
        )
        params_and_tags.set_tags(tx, run_id, tags)
        row = run_row(tx.connection, run_id)
        assert row is not None
        info = wire.run_info(row)
        return Found(wire.Run(info, wire.RunData(tags=wire.key_values(tags)), wire.RunInputs()))

    return caller.workspace.write(work)


def get(caller: Caller, request: One) -> Found:
    """A run with all that was logged to it, also a deleted one."""
    with caller.workspace.read() as connection:
        row = run_row(connection, request.run_id)
        if row is None:
            raise NotFoundError(f"Run with id={request.run_id:.300} not found")
        return Found(wire.run(details_of(connection, [row])[0]))


def update(caller: Caller, request: Update) -> Updated:
    """Change the status, the end or the name of a run."""
    if request.status is not None and request.status not in _STATUSES:
        raise InvalidInputError(f"Invalid value {request.status!r:.80} for parameter 'status' supplied.")
    status = None if request.status is None else _STATUSES[request.status]
    ended_at = None if request.end_time is None else time_of(request.end_time)
    name = request.run_name or None

    def work(tx: Transaction) -> Updated:
        runs.change(tx, request.run_id, status=status, ended_at=ended_at, name=name)
        if name is not None:
            params_and_tags.set_tags(tx, request.run_id, {NAME_TAG: name})
        row = run_row(tx.connection, request.run_id)
        assert row is not None
        return Updated(wire.run_info(row))

    return caller.workspace.write(work)


def delete(caller: Caller, request: One) -> None:
    """Delete a run; it can be restored."""
    caller.workspace.write(lambda tx: runs.set_lifecycle(tx, request.run_id, "deleted"))


def restore(caller: Caller, request: One) -> None:
    """Restore a deleted run."""
    caller.workspace.write(lambda tx: runs.set_lifecycle(tx, request.run_id, "active"))


def log_param(caller: Caller, request: LogParam) -> None:
    """Set a param, which has no other value yet."""
    params = {key_of(request.key): (request.value or "")[:LONGEST_PARAM]}
    caller.workspace.write(lambda tx: params_and_tags.log_params(tx, request.run_id, params))


def set_tag(caller: Caller, request: LogParam) -> None:
    """Set a tag."""
    tags = {key_of(request.key): (request.value or "")[:LONGEST_TAG]}
    caller.workspace.write(setting_tags(request.run_id, tags))


def setting_tags(run_id: str, tags: dict[str, str]) -> Callable[[Transaction], None]:
    """The work of setting tags, two of which are the name and the parent of a run."""

    def work(tx: Transaction) -> None:
        params_and_tags.set_tags(tx, run_id, tags)
        if NAME_TAG in tags or PARENT_TAG in tags:
            runs.change(tx, run_id, name=tags.get(NAME_TAG), parent=tags.get(PARENT_TAG))

    return work


def delete_tag(caller: Caller, request: DeleteTag) -> None:
    """Take a tag off a run."""

    def work(tx: Transaction) -> None:
        if not params_and_tags.delete_tag(tx, request.run_id, request.key):
            raise NotFoundError(f"No tag with name: {request.key:.300} in run with id {request.run_id}")

    caller.workspace.write(work)


def search(caller: Caller, request: Search) -> Page:
    """Runs that meet a filter, in the order asked for, a page at a time."""
    with caller.workspace.read() as connection:
        page = run_search.search(
            connection,
            [experiment_number(each) for each in request.experiment_ids or []],
            filter=request.filter or "",
            order_by=request.order_by or [],
            lifecycle=wire.lifecycle(request.run_view_type),
            limit=page_size(1000 if request.max_results is None else request.max_results, LARGEST_PAGE),
            page_token=request.page_token or "",
        )
        found = details_of(connection, page.rows)
    return Page([wire.run(each) for each in found], page.next_page_token)


def log_inputs(caller: Caller, request: LogInputs) -> None:
    """Note the datasets and models that a run reads."""
    used = [
        inputs.RunDataset(
            name=each.dataset.name,
            digest=each.dataset.digest,
            source_type=each.dataset.source_type,
            source=each.dataset.source,
            schema=each.dataset.schema,
            profile=each.dataset.profile,
            tags={tag.key: tag.value for tag in each.tags},
        )
        for each in request.datasets or []
    ]
    for index, each in enumerate(used):
        _limited(f"datasets[{index}].name", each.name, 500)
        _limited(f"datasets[{index}].digest", each.digest, 36)
        _limited(f"datasets[{index}].source", each.source, 65_535)
        _limited(f"datasets[{index}].schema", each.schema or "", 1_048_575)
        _limited(f"datasets[{index}].profile", each.profile or "", 16_777_215)
    models = [inputs.ModelUse(each.model_id, "in") for each in request.models or []]

    def work(tx: Transaction) -> None:
        inputs.log_datasets(tx, request.run_id, used)
        inputs.log_models(tx, request.run_id, models)

    caller.workspace.write(work)


def log_outputs(caller: Caller, request: LogOutputs) -> None:
    """Note the models that a run made."""
    models = [inputs.ModelUse(each.model_id, "out", each.step) for each in request.models]
    caller.workspace.write(lambda tx: inputs.log_models(tx, request.run_id, models))


def log_model(caller: Caller, request: LogModel) -> None:
    """Add a model to the tag in which clients before version 3 keep what they logged."""
    try:
        model = json.loads(request.model_json)
    except (ValueError, RecursionError):
        model = None
    if not isinstance(model, dict) or not {"run_id", "artifact_path", "flavors"} <= model.keys():
        raise InvalidInputError("The parameter 'model_json' is not a JSON object that describes a model.")

    def work(tx: Transaction) -> None:
        logged = json.loads(
            params_and_tags.get_tags(tx.connection, request.run_id).get(LOGGED_MODELS_TAG, "[]")
        )
        logged.append(model)
        params_and_tags.set_tags(tx, request.run_id, {key_of(LOGGED_MODELS_TAG): json.dumps(logged)})

    caller.workspace.write(work)


def _limited(path: str, value: str, limit: int) -> None:
    if len(value) > limit or (not value and path.endswith(("name", "digest"))):
        raise InvalidInputError(f"'{path}' is empty or exceeds the maximum length of {limit} characters")


ENDPOINTS = (
    endpoint("POST", "runs/create", Create, create),
    endpoint("GET", "runs/get", One, get),
    endpoint("POST", "runs/update", Update, update),
    endpoint("POST", "runs/delete", One, delete),
    endpoint("POST", "runs/restore", One, restore),
    endpoint("POST", "runs/log-parameter", LogParam, log_param),
    endpoint("POST", "runs/set-tag", LogParam, set_tag),
    endpoint("POST", "runs/delete-tag", DeleteTag, delete_tag),
    endpoint("POST", "runs/search", Search, search),
    endpoint("POST", "runs/log-inputs", LogInputs, log_inputs),
    endpoint("POST", "runs/outputs", LogOutputs, log_outputs),
    endpoint("POST", "runs/log-model", LogModel, log_model),
)
