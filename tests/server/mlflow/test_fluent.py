"""Ordinary use of `mlflow.*` with Trimtab behind it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from mlflow import MlflowClient

from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace


@pytest.fixture(autouse=True)
def _tracking(server: object, request: pytest.FixtureRequest) -> Iterator[None]:
    mlflow.set_tracking_uri(server.url)  # type: ignore[attr-defined]
    mlflow.set_registry_uri(server.url)  # type: ignore[attr-defined]
    mlflow.set_experiment(request.node.name)
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # None forgets it
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]  # None forgets it


def test_a_run_is_seen_by_trimtab_as_by_mlflow(shared_workspace: Workspace) -> None:
    with mlflow.start_run(run_name="outer", description="says why") as outer:
        mlflow.log_params({"depth": 3, "rate": 0.1})
        mlflow.log_metrics({"loss": 0.5, "auc": 0.8}, step=2)
        mlflow.set_tags({"team": "blue"})
        with mlflow.start_run(run_name="inner", nested=True) as inner:
            mlflow.log_metric("loss", 0.25)
    tracking = Tracking(shared_workspace)
    run = tracking.get_run(outer.info.run_id)
    assert (run.name, run.status) == ("outer", "FINISHED")
    assert tracking.params(run.id) == {"depth": "3", "rate": "0.1"}
    assert {key: point.value for key, point in tracking.metrics(run.id).items()} == {"auc": 0.8, "loss": 0.5}
    assert [child.id for child in tracking.children(run.id)] == [inner.info.run_id]
    found = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run.id}'", output_format="list")
    assert [each.info.run_name for each in found] == ["inner"]


def test_a_run_of_trimtab_is_seen_by_mlflow(shared_workspace: Workspace, client: MlflowClient) -> None:
    tracking = Tracking(shared_workspace)
    parent = tracking.start_run("pipelines", name="train")
    child = tracking.start_run("pipelines", name="fit", parent=parent.id)
    tracking.log_metrics(child.id, {"rmse": 0.3})
    tracking.finish_run(child.id)
    seen = client.get_run(child.id)
    assert seen.data.tags == {"mlflow.runName": "fit", "mlflow.parentRunId": parent.id}
    assert (seen.data.metrics, seen.info.status) == ({"rmse": 0.3}, "FINISHED")


def test_a_run_that_raises_is_failed() -> None:
    with pytest.raises(ZeroDivisionError), mlflow.start_run() as run:
        _ = 1 / 0
    assert mlflow.get_run(run.info.run_id).info.status == "FAILED"


def test_many_clients_at_once_lose_nothing(client: MlflowClient, request: pytest.FixtureRequest) -> None:
    experiment = client.get_experiment_by_name(request.node.name)
    assert experiment is not None
    run_id = client.create_run(experiment.experiment_id).info.run_id

    def write(number: int) -> None:
        for step in range(5):
            client.log_metric(run_id, f"m{number % 5}", number + step / 10, step=step, timestamp=number + 1)
        client.log_param(run_id, f"p{number}", number)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(write, range(50)))
    run = client.get_run(run_id)
    assert len(run.data.params) == 50
    assert sum(len(client.get_metric_history(run_id, f"m{number}")) for number in range(5)) == 250
