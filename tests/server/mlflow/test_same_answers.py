"""The unmodified client gets the same answers from Trimtab as from MLflow's own store."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from tests.server.mlflow.pair import Both, Pair


@pytest.fixture
def pair(client: MlflowClient, stock: MlflowClient) -> Pair:
    return Pair(client, stock)


@pytest.fixture
def experiment(pair: Pair, request: pytest.FixtureRequest) -> Both:
    return pair.made(lambda client, _: client.create_experiment(request.node.name))


def test_experiments(pair: Pair) -> None:
    made = pair.made(lambda client, _: client.create_experiment("made", tags={"team": "blue"}))
    pair("create_experiment", "made")
    pair("create_experiment", "")
    pair("create_experiment", "x" * 501)
    pair("set_experiment_tag", made, "owner", "ann")
    pair("set_experiment_tag", made, "bad//key", "ann")
    pair("delete_experiment_tag", made, "owner")
    pair("delete_experiment_tag", made, "owner")
    assert pair("get_experiment_by_name", "made").ours.tags == {"team": "blue"}
    assert pair("get_experiment_by_name", "missing").ours is None
    pair("get_experiment", "999999")
    pair("get_experiment", "no number")
    pair("rename_experiment", made, "renamed")
    pair("delete_experiment", made)
    pair("delete_experiment", made)
    pair("create_experiment", "renamed")
    pair("set_experiment_tag", made, "owner", "ann")
    pair("create_run", made)
    pair("restore_experiment", made)
    pair("restore_experiment", made)
    pair("restore_experiment", "999999")
    pair("get_experiment_by_name", "renamed")


def test_the_experiment_of_runs_that_are_put_nowhere(pair: Pair) -> None:
    assert pair("get_experiment", "0").ours.name == "Default"
    assert pair("create_run", "0", run_name="stray").ours.info.experiment_id == "0"


@pytest.mark.parametrize(
    "filter",
    [
        "",
        "name = 'Sea-a'",
        "name != 'Sea-a' AND name LIKE 'Sea-%'",
        "name LIKE 'sea-%'",
        "name ILIKE 'sea-%'",
        "attribute.name LIKE 'Sea-_'",
        "tags.color = 'red'",
        "tags.color != 'red'",
        "tags.`color` ILIKE 'R%'",
        "tags.color IS NULL AND name LIKE 'Sea-%'",
        "tags.color IS NOT NULL",
        "creation_time > 0 AND tags.color = 'red'",
        "experiment_id IN ('0')",
        "name = ",
        "name == 'x'",
        "nonsense = 'x'",
        "params.x = '1'",
        "name = 'x' OR name = 'y'",
        "tags.color > 'red'",
        "creation_time = 'x'",
    ],
)
def test_search_of_experiments(pair: Pair, filter: str) -> None:
    for name, color in (("Sea-a", "red"), ("Sea-b", "Blue"), ("Sea-c", None)):
        if pair("get_experiment_by_name", name).ours is None:
            tags = {"color": color} if color else {}
            pair.made(partial(_create_experiment, name, tags))

    def names(client: MlflowClient, _: int) -> list[str]:
        found = client.search_experiments(filter_string=filter, order_by=["name DESC"])
        return [each.name for each in found if each.name.startswith("Sea") or each.name == "Default"]

    pair.run(names, filter)


def test_the_life_of_a_run(pair: Pair, experiment: Both) -> None:
    run = pair("create_run", experiment, start_time=1_700_000_000_000, run_name="first", tags={"a": "b"})
    run_id = run.info.run_id
    pair("create_run", experiment, run_name="one", tags={"mlflow.runName": "another"})
    pair("log_param", run_id, "depth", 3)
    pair("log_param", run_id, "depth", 3)
    pair("log_param", run_id, "depth", 4)
    pair("log_param", run_id, "bad\nname", 4)
    pair("log_param", run_id, "long", "x" * 7000)
    pair("log_param", run_id, "x" * 251, "1")
    pair("set_tag", run_id, "note", "one")
    pair("set_tag", run_id, "note", "two")
    pair("set_tag", run_id, "long", "x" * 9000)
    pair("set_tag", run_id, "../up", "x")
    pair("set_tag", run_id, "mlflow.runName", "renamed by tag")
    assert pair("get_run", run_id).ours.info.run_name == "renamed by tag"
    pair("delete_tag", run_id, "note")
    pair("delete_tag", run_id, "note")
    pair("log_metric", run_id, "loss", 0.5, 1_700_000_000_000, 1)
    pair("log_metric", run_id, "loss", math.nan, 1_700_000_000_001, 2)
    pair("log_metric", run_id, "loss", 0.25, 1_700_000_000_000, -1)
    pair("log_metric", run_id, "bad|name", 1.0)
    pair("log_metric", run_id, "loss", 1.0, -5)
    history = pair("get_metric_history", run_id, "loss")
    assert [point.step for point in history.ours] == [-1, 1, 2]
    pair("get_metric_history", run_id, "never")
    pair("update_run", run_id, "RUNNING", "renamed")
    pair("set_terminated", run_id, "FAILED", 1_700_000_100_000)
    pair("get_run", run_id)
    pair("delete_run", run_id)
    pair("log_metric", run_id, "loss", 1.0)
    pair("log_param", run_id, "new", 1)
    pair("set_tag", run_id, "new", 1)
    pair("update_run", run_id, "RUNNING")
    pair("get_run", run_id)
    pair("restore_run", run_id)
    pair("log_param", run_id, "new", 1)
    pair("get_run", run_id)
    for method in ("get_run", "delete_run", "restore_run"):
        pair(method, "0" * 32)
    pair("log_metric", "0" * 32, "loss", 1.0)
    pair("get_metric_history", "0" * 32, "loss")


def test_batches(pair: Pair, experiment: Both) -> None:
    run_id = pair("create_run", experiment, run_name="batch").info.run_id
    metrics = [Metric("m", step / 7, 1_700_000_000_000 + step, step) for step in range(900)]
    pair("log_batch", run_id, metrics, [Param("p", "1")], [RunTag("t", "1")])
    pair("log_batch", run_id, metrics, [Param("p", "1")], [RunTag("t", "2")])
    pair("log_batch", run_id, [], [Param("p", "2")], [])
    pair("log_batch", run_id, [], [Param("q", "1"), Param("q", "2")], [])
    pair("log_batch", run_id, [], [], [RunTag("t", "3"), RunTag("bad|key", "3")])
    pair("log_batch", run_id, [Metric("bad|key", 1.0, 1, 1)], [], [])
    pair("get_metric_history", run_id, "m")
    pair("get_run", run_id)
    pair("log_batch", "0" * 32, metrics[:1], [], [])


def test_inputs_and_outputs(pair: Pair, experiment: Both) -> None:
    run_id = pair("create_run", experiment, run_name="inputs").info.run_id
    dataset = Dataset("rows", "abc", "http", '{"url": "x"}', schema="{}", profile="{}")
    tags = [InputTag("mlflow.data.context", "training")]
    pair("log_inputs", run_id, [DatasetInput(dataset, tags)])
    pair("log_inputs", run_id, [DatasetInput(dataset, tags)])
    pair("log_inputs", run_id, [DatasetInput(Dataset("eval", "def", "http", "{}"), [])])
    pair("get_run", run_id)
    for filter in (
        "datasets.name = 'rows'",
        "dataset.digest = 'def'",
        "datasets.context = 'training'",
        "datasets.name IN ('rows', 'x')",
        "datasets.nothing = 'x'",
    ):
        pair("search_runs", [experiment], filter)
    model = pair("create_logged_model", experiment, name="made", source_run_id=run_id, params={"a": "1"})
    outputs = [LoggedModelOutput(model.ours.model_id, 3)], [LoggedModelOutput(model.theirs.model_id, 3)]
    pair("log_outputs", run_id, Both(*outputs))
    pair("get_run", run_id)


def test_logged_models(pair: Pair, experiment: Both) -> None:
    run_id = pair("create_run", experiment, run_name="trains").info.run_id
    model = pair(
        "create_logged_model", experiment, name="tree", source_run_id=run_id,
        params={"depth": "3"}, tags={"a": "b"}, model_type="agent",
    )  # fmt: skip
    pair("create_logged_model", experiment, name="bad/name")
    model_id = model.model_id
    pair("set_logged_model_tags", model_id, {"c": "d"})
    pair("delete_logged_model_tag", model_id, "a")
    pair("delete_logged_model_tag", model_id, "a")
    pair("finalize_logged_model", model_id, "READY")
    pair("log_metric", run_id, "auc", 0.5, 1_700_000_000_000, 1, model_id=model_id)
    pair("get_logged_model", model_id)
    pair("create_logged_model", experiment, name="other")
    for filter in ("name = 'tree'", "params.depth = '3'", "tags.c = 'd'", "metrics.auc > 0.4", "x.y = 1"):
        pair("search_logged_models", [experiment], filter)
    order = [{"field_name": "name", "ascending": False}]
    pair("search_logged_models", [experiment], max_results=1, order_by=order)
    pair("delete_logged_model", model_id)
    pair("get_logged_model", model_id)
    pair("get_logged_model", "m-" + "0" * 32)


FILTERS = [
    "",
    "metrics.loss < 0.5",
    "metrics.loss >= 0.5 and params.depth = '3'",
    "metrics.loss != 0.2",
    "metric.loss = 0.2",
    "metrics.`val/loss` < 1",
    'metrics."val/loss" < 1',
    "params.depth != '3'",
    "params.depth LIKE '%1%'",
    "params.kind LIKE 'Tr%'",
    "params.kind LIKE 'tr%'",
    "params.kind ILIKE 'tr%'",
    "params.kind LIKE '%[a]*?%'",
    "parameter.kind = 'Tree'",
    "tags.team = 'blue' AND tags.team != 'red'",
    "tags.team IS NULL",
    "tags.team IS NOT NULL",
    "params.nothing IS NULL",
    "tag.mlflow.runName = 'run-3'",
    "attributes.run_name = 'run-3'",
    "run_name LIKE 'run-%'",
    "`run name` = 'run-1'",
    "attributes.status = 'FINISHED'",
    "status != 'FINISHED'",
    "start_time > 1700000000002",
    "attribute.start_time <= 1700000000002",
    "end_time > 0",
    "run_id IN ('a', 'b')",
    "run_id NOT IN ('a', 'b') and metrics.loss < 0.5",
    "metrics.loss < '0.5'",
    "params.depth = 3",
    "params.depth < '3'",
    "metrics.loss",
    "metrics.loss <",
    "metrics.loss < 0.5 or metrics.loss > 0.7",
    "status IN ('FINISHED')",
    "nothing.loss < 3",
    "attributes.nothing = 'x'",
    "'x' = 'y'",
    "tags.team LIKE 3",
    "((",
]

ORDERS = [
    [],
    ["metrics.loss"],
    ["metrics.loss DESC"],
    ["metrics.`val/loss` ASC"],
    ["params.depth DESC"],
    ["tags.team", "start_time"],
    ["attributes.run_name desc"],
    ["start_time ASC"],
    ["end_time DESC"],
    ["nothing.x"],
    ["metrics.loss sideways"],
    ["run_id IN"],
]


@pytest.fixture(scope="module")
def searched(
    request: pytest.FixtureRequest, server: object, stock: MlflowClient
) -> tuple[MlflowClient, MlflowClient, Both]:
    url = server.url  # type: ignore[attr-defined]
    ours = MlflowClient(url, url)
    ids = []
    for client in (ours, stock):
        experiment = client.create_experiment("searched")
        ids.append(experiment)
        for number in range(8):
            run = client.create_run(
                experiment,
                start_time=1_700_000_000_000 + number,
                run_name=f"run-{number}",
                tags={"team": "blue" if number % 2 else "red"} if number < 6 else {},
            ).info.run_id
            client.log_param(run, "depth", number * 3)
            client.log_param(run, "kind", ["Tree", "tree", "x[a]*?y"][number % 3])
            if number != 5:
                client.log_metric(run, "loss", math.nan if number == 4 else number / 10, 1, 1)
            client.log_metric(run, "val/loss", (number * 5) % 8 / 4, 1, 1)
            if number < 3:
                client.set_terminated(run, "FINISHED", 1_700_000_001_000 + number)
            if number == 7:
                client.delete_run(run)
    return ours, stock, Both(*ids)


def _names(pair: Pair, experiment: Both, **search: Any) -> Both:
    def names(client: MlflowClient, side: int) -> list[str]:
        chosen = (experiment.ours, experiment.theirs)[side]
        return [run.info.run_name for run in client.search_runs([chosen], **search)]

    return pair.run(names, str(search))


@pytest.mark.parametrize("filter", FILTERS)
def test_search_of_runs(searched: tuple[MlflowClient, MlflowClient, Both], filter: str) -> None:
    ours, theirs, experiment = searched
    _names(Pair(ours, theirs), experiment, filter_string=filter)


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_runs(searched: tuple[MlflowClient, MlflowClient, Both], order: list[str]) -> None:
    ours, theirs, experiment = searched
    _names(Pair(ours, theirs), experiment, order_by=order)


@pytest.mark.parametrize("view", [ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL])
def test_deleted_runs_are_searched_where_asked(
    searched: tuple[MlflowClient, MlflowClient, Both], view: int
) -> None:
    ours, theirs, experiment = searched
    _names(Pair(ours, theirs), experiment, run_view_type=view)


@pytest.mark.parametrize("order", [[], ["metrics.loss DESC"]])
def test_pages_of_runs_follow_one_another(
    searched: tuple[MlflowClient, MlflowClient, Both], order: list[str]
) -> None:
    ours, theirs, experiment = searched

    def walk(client: MlflowClient, side: int) -> list[list[str]]:
        chosen = (experiment.ours, experiment.theirs)[side]
        pages: list[list[str]] = []
        token: str | None = None
        while not pages or token:
            page = client.search_runs([chosen], order_by=order, max_results=3, page_token=token)
            pages.append([run.info.run_name for run in page])
            token = page.token
        return pages

    assert [len(page) for page in Pair(ours, theirs).run(walk).ours] == [3, 3, 1]


def _create_experiment(name: str, tags: dict[str, str], client: MlflowClient, _: int) -> str:
    created: str = client.create_experiment(name, tags=tags)
    return created
