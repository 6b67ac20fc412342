"""MLflow's endpoints of experiments."""

# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.protocol import Caller, endpoint
from trimtab.server.mlflow.validation import LONGEST_EXPERIMENT_TAG, limited_tags, page_size
from trimtab.server.mlflow.wire import Int64, KeyValue, Text, experiment_number
from trimtab.tracking import experiment_search, experiments

LONGEST_NAME = 500
LARGEST_PAGE = 50_000


class Create(msgspec.Struct):
    name: Text
    artifact_location: str | None = None
    tags: list[KeyValue] | None = None


class One(msgspec.Struct):
    experiment_id: Text


class Named(msgspec.Struct):
    experiment_name: Text


class Rename(msgspec.Struct):
    experiment_id: Text
    new_name: Text


class SetTag(msgspec.Struct):
    experiment_id: Text
    key: Text
    value: str | None = None


class DeleteTag(msgspec.Struct):
    experiment_id: Text
    key: Text


class Search(msgspec.Struct):
    max_results: Int64 | None = None
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] | None = None
    view_type: str | int | None = None


class Created(msgspec.Struct):
    experiment_id: str


class Found(msgspec.Struct):
    experiment: wire.Experiment


class Page(msgspec.Struct, omit_defaults=True):
    experiments: list[wire.Experiment] = []
    next_page_token: str = ""


def create(caller: Caller, request: Create) -> Created:
    """Make an experiment. Where its artifacts go is for this server to say: another place is refused."""
    if request.artifact_location:
        raise InvalidInputError(
            f"The place '{request.artifact_location:.200}' cannot be used: Trimtab keeps artifacts in its "
            "own blob store.",
            hint="Leave it out.",
        )
    tags = limited_tags(request.tags or [], LONGEST_EXPERIMENT_TAG)
    name = _checked(request.name)
    made = caller.workspace.write(lambda tx: experiments.create(tx, name, tags))
    return Created(str(made.id))


def get(caller: Caller, request: One) -> Found:
    """One experiment by its id."""
    number = experiment_number(request.experiment_id)
    with caller.workspace.read() as connection:
        found = experiments.get_by_id(connection, number)
        return Found(wire.experiment(found, experiments.tags_of(connection, [number])[number]))


def get_by_name(caller: Caller, request: Named) -> Found:
    """One experiment by its name, also a deleted one."""
    with caller.workspace.read() as connection:
        try:
            found = experiments.get(connection, request.experiment_name)
        except NotFoundError:
            raise NotFoundError(
                f"Could not find experiment with name '{request.experiment_name:.200}'"
            ) from None
        return Found(wire.experiment(found, experiments.tags_of(connection, [found.id])[found.id]))


def search(caller: Caller, request: Search) -> Page:
    """Experiments that meet a filter, a page at a time."""
    with caller.workspace.read() as connection:
        page = experiment_search.search(
            connection,
            filter=request.filter or "",
            order_by=request.order_by or [],
            lifecycle=wire.lifecycle(request.view_type),
            limit=page_size(1000 if request.max_results is None else request.max_results, LARGEST_PAGE),
            page_token=request.page_token or "",
        )
        tags = experiments.tags_of(connection, [each.id for each in page.experiments])
    return Page([wire.experiment(each, tags[each.id]) for each in page.experiments], page.next_page_token)


def rename(caller: Caller, request: Rename) -> None:
    """Give an experiment another name."""
    number, name = experiment_number(request.experiment_id), _checked(request.new_name)
    caller.workspace.write(lambda tx: experiments.rename(tx, number, name))


def delete(caller: Caller, request: One) -> None:
    """Delete an experiment with its runs; they can be restored."""
    _set_lifecycle(caller, request.experiment_id, "active", "deleted")


def restore(caller: Caller, request: One) -> None:
    """Restore a deleted experiment with its runs."""
    _set_lifecycle(caller, request.experiment_id, "deleted", "active")


def set_tag(caller: Caller, request: SetTag) -> None:
    """Set a tag of an experiment."""
    number = experiment_number(request.experiment_id)
    tags = limited_tags([KeyValue(request.key, request.value or "")], LONGEST_EXPERIMENT_TAG)
    caller.workspace.write(lambda tx: experiments.set_tags(tx, number, tags))


def delete_tag(caller: Caller, request: DeleteTag) -> None:
    """Take a tag off an experiment."""
    number = experiment_number(request.experiment_id)
    caller.workspace.write(lambda tx: experiments.delete_tag(tx, number, request.key))


def _set_lifecycle(
    caller: Caller, experiment_id: str, present: experiments.Lifecycle, wanted: experiments.Lifecycle
) -> None:
    number = experiment_number(experiment_id)
    caller.workspace.write(lambda tx: experiments.change_lifecycle(tx, number, present, wanted))


def _checked(name: str) -> str:
    if len(name) > LONGEST_NAME:
        raise InvalidInputError(f"'name' exceeds the maximum length of {LONGEST_NAME} characters")
    return name


ENDPOINTS = (
    endpoint("POST", "experiments/create", Create, create),
    endpoint("GET", "experiments/get", One, get),
    endpoint("GET", "experiments/get-by-name", Named, get_by_name),
    endpoint("POST", "experiments/search", Search, search),
    endpoint("GET", "experiments/search", Search, search),
    endpoint("POST", "experiments/update", Rename, rename),
    endpoint("POST", "experiments/delete", One, delete),
    endpoint("POST", "experiments/restore", One, restore),
    endpoint("POST", "experiments/set-experiment-tag", SetTag, set_tag),
    endpoint("POST", "experiments/delete-experiment-tag", DeleteTag, delete_tag),
)
