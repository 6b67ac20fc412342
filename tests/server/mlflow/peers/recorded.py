"""Real requests of the unmodified client, to be spoiled."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, LoggedModelOutput, Metric, Param, RunTag


class Recorded(msgspec.Struct, frozen=True):
    """One request: the message is what its query or its JSON body said."""

    method: str
    path: str
    message: dict[str, Any]


def record(url: str, name: str) -> list[Recorded]:
    """Drive the client through every endpoint that it knows, and keep what it sent.

    What it made is still there afterwards, so that a request which is spoiled a little finds its run.
    """
    kept: list[Recorded] = []
    original = requests.Session.request

    def noted(session: requests.Session, method: str, to: str, **named: Any) -> requests.Response:
        message = named.get("json") or named.get("params") or {}
        if isinstance(message, dict):
            kept.append(Recorded(method, urlsplit(to).path, dict(message)))
        return original(session, method, to, **named)

    requests.Session.request = noted  # type: ignore[method-assign, assignment]  # the client's own way out
    try:
        _use(MlflowClient(url, url), name)
    finally:
        requests.Session.request = original  # type: ignore[method-assign]
    return list({(each.method, each.path, *sorted(each.message)): each for each in kept}.values())


def as_query(message: dict[str, Any]) -> str:
    """A message as the query of a GET."""
    return urlencode(message, doseq=True, errors="surrogatepass")


def _use(client: MlflowClient, name: str) -> None:
    experiment = client.create_experiment(name, tags={"a": "b"})
    client.get_experiment(experiment)
    client.get_experiment_by_name(name)
    client.search_experiments(filter_string=f"name = '{name}'", order_by=["name"], max_results=5)
    client.set_experiment_tag(experiment, "k", "v")
    client.delete_experiment_tag(experiment, "k")
    client.rename_experiment(experiment, f"{name} renamed")
    client.delete_experiment(experiment)
    client.restore_experiment(experiment)
    run = client.create_run(experiment, 1_700_000_000_000, {"t": "1"}, "run").info.run_id
    client.log_metric(run, "m", 0.5, 1_700_000_000_000, 1)
    client.log_param(run, "p", "1")
    client.set_tag(run, "t", "2")
    client.delete_tag(run, "t")
    client.log_batch(run, [Metric("m", 1.0, 1_700_000_000_000, 2)], [Param("q", "1")], [RunTag("u", "1")])
    client.log_inputs(run, [DatasetInput(Dataset("rows", "1", "http", "{}"), [])])
    client.get_run(run)
    client.get_metric_history(run, "m")
    client.search_runs([experiment], "metrics.m > 0 AND params.p = '1'", 1, 5, ["metrics.m DESC"], None)
    client.update_run(run, "RUNNING", "other")
    client.delete_run(run)
    client.restore_run(run)
    model = client.create_logged_model(experiment, "model", run, {"t": "1"}, {"p": "1"}, "agent").model_id
    client.set_logged_model_tags(model, {"k": "v"})
    client.delete_logged_model_tag(model, "k")
    client.log_model_params(model, {"q": "2"})
    client.finalize_logged_model(model, "READY")
    client.get_logged_model(model)
    client.search_logged_models([experiment], "params.p = '1'", None, 5, [{"field_name": "name"}], None)
    client.log_outputs(run, [LoggedModelOutput(model, 1)])
    client.create_registered_model(name, {"t": "1"}, "says")
    client.create_model_version(name, "s3://bucket/1", run, {"t": "1"}, await_creation_for=0)
    client.get_registered_model(name)
    client.update_registered_model(name, "more")
    client.set_registered_model_tag(name, "k", "v")
    client.delete_registered_model_tag(name, "k")
    client.search_registered_models(f"name = '{name}'", 5, ["name"])
    client.update_model_version(name, "1", "more")
    client.get_model_version(name, "1")
    client.get_model_version_download_uri(name, "1")
    client.set_model_version_tag(name, "1", "k", "v")
    client.delete_model_version_tag(name, "1", "k")
    client.search_model_versions(f"name = '{name}'", 5, ["version_number"])
    client.set_registered_model_alias(name, "best", "1")
    client.get_model_version_by_alias(name, "best")
    client.delete_registered_model_alias(name, "best")
    client.transition_model_version_stage(name, "1", "Staging")
    client.get_latest_versions(name)
    client.list_artifacts(run)
    client.log_text(run, "text", "a.txt")
    client.list_artifacts(run, "a.txt")
