"""Searches mean the same on each metadata store."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from functools import partial

import pytest
from tests.conftest import START

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.store.database import Transaction
from trimtab.tracking import (
    artifacts,
    experiment_search,
    experiments,
    inputs,
    logged_models,
    params_and_tags,
    run_search,
)
from trimtab.tracking.metrics import Point
from trimtab.tracking.run_details import details_of
from trimtab.tracking.schema import runs_table
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

KINDS = ["Tree", "tree", "x[a]*?y", "a\\b", "100%"]


@pytest.fixture
def searched(any_workspace: Workspace) -> Workspace:
    """Five runs "run-0" to "run-4" of one experiment, each started a second after the one before."""
    tracking = Tracking(any_workspace)
    for number, kind in enumerate(KINDS):
        run = tracking.start_run("bikes", name=f"run-{number}", tags={"even": str(number % 2 == 0)})
        at = START + timedelta(seconds=number)
        any_workspace.write(partial(_start, run.id, at))
        tracking.log_params(run.id, {"kind": kind, "depth": number})
        if number != 3:
            value = math.nan if number == 2 else number / 10
            tracking.log_metrics(run.id, [Point("val/loss", value, 0, START)])
    return any_workspace


def names(workspace: Workspace, **search: object) -> list[str]:
    with workspace.read() as connection:
        found = experiments.get(connection, "bikes").id
        page = run_search.search(connection, [found], **search)  # type: ignore[arg-type]
    return [row.name for row in page.rows]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("", "43210"),
        ("metrics.`val/loss` < 0.2", "10"),
        ("metrics.`val/loss` != 0.1", "420"),
        ("params.kind LIKE 't%'", "1"),
        ("params.kind ILIKE 't%'", "10"),
        ("params.kind LIKE '%[a]*?%'", "2"),
        ("params.kind LIKE '%\\%'", "3"),
        ("params.kind LIKE '100%'", "4"),
        ("params.kind LIKE '_ree'", "10"),
        ("params.kind ILIKE 'A\\B'", "3"),
        ("tags.even = 'True' and params.depth != '0'", "42"),
        ("tags.even IS NULL", ""),
        ("params.kind IS NOT NULL", "43210"),
        ("tags.mlflow.runName = 'run-3'", "3"),
        ("tags.`mlflow.parentRunId` IS NULL and run_name LIKE '%1'", "1"),
        ("start_time >= 1314835203000", "43"),
        ("start_time < 1e300 and end_time > -1e300", ""),
        ("status = 'RUNNING' and run_id NOT IN ('a')", "43210"),
        ("run_id IN ('a', 'b')", ""),
        ("user_id = 'tester'", "43210"),
    ],
)
def test_filters(searched: Workspace, filter: str, expected: str) -> None:
    assert names(searched, filter=filter) == [f"run-{number}" for number in expected]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["metrics.`val/loss`"], "01423"),
        (["metrics.`val/loss` DESC"], "41023"),
        (["params.depth DESC"], "43210"),
        (["tags.even", "start_time ASC"], "13024"),
        (["attributes.run_name ASC"], "01234"),
        (["metrics.never"], "43210"),
    ],
)
def test_what_has_no_value_comes_last_whichever_way(
    searched: Workspace, order: list[str], expected: str
) -> None:
    assert names(searched, order_by=order) == [f"run-{number}" for number in expected]


@pytest.mark.parametrize("order", [[], ["params.depth DESC"]])
def test_pages_follow_one_another(searched: Workspace, order: list[str]) -> None:
    found: list[str] = []
    token = ""
    with searched.read() as connection:
        experiment = experiments.get(connection, "bikes").id
        while not found or token:
            page = run_search.search(connection, [experiment], order_by=order, limit=2, page_token=token)
            found += [row.name for row in page.rows]
            token = page.next_page_token
    assert found == [f"run-{number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    "search",
    [
        {"filter": "metrics.loss"},
        {"filter": "metrics.loss < 'x'"},
        {"filter": "a = 'b' OR c = 'd'"},
        {"filter": "params.x LIKE '" + "a" * 10_001 + "'"},
        {"order_by": ["metrics.a", "metrics.a"]},
        {"order_by": ["datasets.name"]},
        {"order_by": [""]},
        {"page_token": "never"},
        {"page_token": "WzEsLTFd"},
        {"page_token": "never", "order_by": ["metrics.a"]},
    ],
)
def test_what_cannot_be_read_is_refused(searched: Workspace, search: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        names(searched, **search)


def test_details_are_read_for_many_runs(searched: Workspace) -> None:
    with searched.read() as connection:
        page = run_search.search(connection, [experiments.get(connection, "bikes").id])
        details = details_of(connection, page.rows)
    assert [each.params["kind"] for each in details] == KINDS[::-1]
    assert details[0].tags == {"even": "True", "mlflow.runName": "run-4"}
    assert details[2].metrics[0].value is None


def test_experiments_are_searched(any_workspace: Workspace) -> None:
    any_workspace.write(experiments.make_default)
    any_workspace.write(experiments.make_default)
    ids = [any_workspace.write(partial(_make_experiment, name)).id for name in ("Sea-a", "Sea-b")]

    def found(filter: str) -> list[str]:
        with any_workspace.read() as connection:
            page = experiment_search.search(connection, filter=filter, order_by=["name"])
        return [each.name for each in page.experiments]

    assert found("") == ["Default", "Sea-a", "Sea-b"]
    assert found("name LIKE 'Sea-_' and tags.in != 'a'") == ["Sea-b"]
    assert found("name LIKE 'sea-_'") == []
    assert found("name ILIKE 'sea-_' and tags.in IS NOT NULL") == ["Sea-a", "Sea-b"]
    assert found(f"experiment_id IN ('{ids[0]}', '0')") == ["Default", "Sea-a"]
    assert found("experiment_id = 'x'") == []
    assert found("creation_time > 0") == ["Default", "Sea-a", "Sea-b"]


def test_a_deleted_experiment_takes_its_runs_along(searched: Workspace) -> None:
    tracking = Tracking(searched)
    tracking.delete_experiment("bikes")
    assert names(searched) == []
    assert len(names(searched, lifecycle="deleted")) == 5
    tracking.restore_experiment("bikes")
    assert len(names(searched)) == 5


def test_datasets_and_models_of_runs(searched: Workspace) -> None:
    with searched.read() as connection:
        page = run_search.search(connection, [experiments.get(connection, "bikes").id], limit=1)
    run_id = page.rows[0].id
    dataset = inputs.RunDataset(
        name="rows", digest="abc", source_type="x", source="{}", tags={inputs.CONTEXT_TAG: "training"}
    )
    for _ in range(2):
        searched.write(lambda tx: inputs.log_datasets(tx, run_id, [dataset]))
        searched.write(lambda tx: inputs.log_models(tx, run_id, [inputs.ModelUse("m-1", "out", 3)]))
    with searched.read() as connection:
        found = details_of(connection, page.rows)[0]
    assert (found.datasets, found.models) == ([dataset], [inputs.ModelUse("m-1", "out", 3)])
    assert names(searched, filter="datasets.name = 'rows' and dataset.context LIKE 'train%'") == ["run-4"]
    assert names(searched, filter="datasets.digest IN ('x', 'abc')") == ["run-4"]


def test_logged_models(searched: Workspace) -> None:
    with searched.read() as connection:
        experiment = experiments.get(connection, "bikes").id
    made = [searched.write(partial(_make_model, experiment, name)) for name in ("tree-1", "tree-2")]
    for value, step in ((0.5, 2), (0.1, 1)):
        metric = logged_models.ModelMetric(
            model=made[0], run="r", key="auc", value=value, step=step, at=1, dataset="rows"
        )
        searched.write(partial(_log, metric))

    def found(filter: str, *datasets: tuple[str, str | None]) -> list[str]:
        with searched.read() as connection:
            order = [
                logged_models.order("name", ascending=True),
                logged_models.order("metrics.auc", ascending=False),
            ]
            page = logged_models.search(
                connection, [experiment], filter=filter, datasets=datasets, order_by=order
            )
        return [each.row.name for each in page.models]

    assert found("") == ["tree-1", "tree-2"]
    assert found("metrics.auc > 0.4") == found("metrics.auc > 0.4", ("rows", None)) == ["tree-1"]
    assert found("metrics.auc > 0.4", ("others", None), ("rows", "digest")) == []
    assert found("params.depth = '2' and tags.a = 'b' and creation_time > 0") == ["tree-2"]
    searched.write(lambda tx: logged_models.finalize(tx, made[0], "READY"))
    assert found("status = 'READY'") == ["tree-1"]

    def shelve(name: str) -> list[str]:
        searched.write(
            lambda tx: artifacts.record_on(
                tx, logged_models.shelf(tx.connection, made[0]), {name: ("b3:" + "0" * 64, 1)}
            )
        )
        with searched.read() as connection:
            listed = artifacts.list_on(connection, logged_models.shelf(connection, made[0]))
        return [file.path for file in listed]

    assert shelve("model/a") == ["model/a"]
    assert shelve("model/b") == ["model/a", "model/b"]
    removed = searched.write(
        lambda tx: artifacts.delete_on(tx, logged_models.shelf(tx.connection, made[0]), "model")
    )
    assert removed == 2
    searched.write(lambda tx: logged_models.remove(tx, made[0]))
    with searched.read() as connection, pytest.raises(NotFoundError):
        logged_models.find(connection, made[0])


def test_a_tag_that_is_not_there_cannot_be_taken_off(searched: Workspace) -> None:
    run = Tracking(searched).start_run("bikes", tags={"a": "b"})
    assert searched.write(lambda tx: params_and_tags.delete_tag(tx, run.id, "a")) is True
    assert searched.write(lambda tx: params_and_tags.delete_tag(tx, run.id, "a")) is False


def _start(run_id: str, at: datetime, tx: Transaction) -> None:
    tx.execute(runs_table.update().where(runs_table.c.id == run_id).values(started_at=at))


def _make_experiment(name: str, tx: Transaction) -> experiments.Experiment:
    return experiments.create(tx, name, {"in": name[-1]})


def _make_model(experiment: int, name: str, tx: Transaction) -> str:
    return logged_models.create(tx, experiment, name=name, params={"depth": name[-1]}, tags={"a": "b"})


def _log(metric: logged_models.ModelMetric, tx: Transaction) -> None:
    logged_models.log_metrics(tx, [metric])
