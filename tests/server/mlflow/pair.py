"""The same calls of the unmodified client, once against Trimtab and once against MLflow's own store."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

LEFT_OUT = frozenset(
    {
        "artifact_location", "artifact_uri", "creation_time", "creation_timestamp", "deployment_job_id",
        "deployment_job_state", "effective_trace_archival_retention", "end_time", "last_update_time",
        "last_updated_timestamp", "run_link", "source", "start_time", "status_message", "storage_location",
        "user_id", "workspace",
    }
)  # fmt: skip
"""What differs on purpose: times, and where the server keeps things."""


FAILURES = frozenset({"error INTERNAL_ERROR", "error BAD_REQUEST"})
"""MLflow's server failed, or passed on what its database said: Trimtab says in its own way what is wrong."""


_UNORDERED = {"LoggedModel": ["metrics"], "RunInputs": ["model_inputs"], "RunOutputs": ["model_outputs"]}
"""What comes in whatever order the database has it."""


class Both:
    """What one call answered on each side."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.ours = ours
        self.theirs = theirs

    def __getattr__(self, name: str) -> Both:
        return Both(getattr(self.ours, name), getattr(self.theirs, name))

    def __getitem__(self, key: Any) -> Both:
        return Both(self.ours[key], self.theirs[key])


class Pair:
    """Makes each call on both sides and fails where the answers differ by more than ids and times."""

    def __init__(self, ours: MlflowClient, theirs: MlflowClient) -> None:
        self._clients = (ours, theirs)
        self._names: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def __call__(self, method: str, *arguments: Any, **named: Any) -> Both:
        """Call a method of the client; what differs between the sides is given as `Both`."""
        return self.run(lambda client, side: _called(client, method, arguments, named, side), method)

    def run(self, call: Callable[[MlflowClient, int], Any], what: str = "", *, reads: bool = False) -> Both:
        """Call any function with each client and the number of its side. If it only `reads`, there is nothing
        to compare with where MLflow's server failed."""
        answers = [_outcome(call, client, side) for side, client in enumerate(self._clients)]
        both = Both(*answers)
        told = [self._told(answer, side) for side, answer in enumerate(answers)]
        failed = isinstance(told[1], str) and told[1] in FAILURES
        if not (failed and (reads or isinstance(answers[0], MlflowException))):
            assert told[0] == told[1], f"{what}: Trimtab {told[0]}, MLflow {told[1]}"
        return both

    def made(self, call: Callable[[MlflowClient, int], Any]) -> Both:
        """Call any function with each client, whose answers (ids) say nothing to compare."""
        return Both(*(call(client, side) for side, client in enumerate(self._clients)))

    def _told(self, value: Any, side: int) -> Any:
        if isinstance(value, str):
            names = self._names[side]
            return re.sub(
                r"(m-)?\b[0-9a-f]{32}", lambda found: names.setdefault(found[0], f"id-{len(names)}"), value
            )
        if isinstance(value, float) and math.isnan(value):
            return "NaN"
        if isinstance(value, (int, float, bool, type(None))):
            return value
        if isinstance(value, MlflowException):
            return f"error {value.error_code}"
        if isinstance(value, dict):
            return {key: self._told(each, side) for key, each in sorted(value.items())}
        if isinstance(value, Sequence):
            told = [self._told(each, side) for each in value]
            return {"page": told, "more": bool(value.token)} if hasattr(value, "token") else told
        fields = {
            name: getattr(value, name)
            for name in dir(type(value))
            if isinstance(getattr(type(value), name, None), property)
            and name not in LEFT_OUT
            and not name.startswith("_")
        } or {name: each for name, each in vars(value).items() if name.lstrip("_") not in LEFT_OUT}
        fields |= _evened(value, fields)
        for name in _UNORDERED.get(type(value).__name__, ()):
            fields[name] = sorted((self._told(each, side) for each in fields[name]), key=repr)
        return {name: self._told(each, side) for name, each in sorted(fields.items())}


def _evened(value: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """What a store in process and a server say in two ways, in one."""
    if fields.get("outputs", "") is None:  # a run just made in process has none, one from a server has
        fields["outputs"] = {"model_outputs": []}
    if isinstance(value, LoggedModel):  # so too with what it does not have
        fields |= {"metrics": value.metrics or [], "model_type": value.model_type or ""}
        fields["source_run_id"] = value.source_run_id or ""
    if isinstance(value, (ModelVersion, RegisteredModel)):
        fields["description"] = value.description or ""
    if isinstance(value, RegisteredModel):
        fields["aliases"] = {alias: str(version) for alias, version in value.aliases.items()}
    if isinstance(value, ModelVersion):
        fields |= {"version": str(value.version), "run_id": value.run_id or ""}
    return fields


def _outcome(call: Callable[[MlflowClient, int], Any], client: MlflowClient, side: int) -> Any:
    try:
        return call(client, side)
    except MlflowException as error:
        return error


def _called(
    client: MlflowClient, method: str, arguments: tuple[Any, ...], named: dict[str, Any], side: int
) -> Any:
    own = [_own(each, side) for each in arguments]
    return getattr(client, method)(*own, **{name: _own(each, side) for name, each in named.items()})


def _own(value: Any, side: int) -> Any:
    if isinstance(value, Both):
        return (value.ours, value.theirs)[side]
    if isinstance(value, list):
        return [_own(each, side) for each in value]
    return value
