"""A run with 12,000 metric keys stays usable: what a request costs does not grow with them, but for the
request that asks for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.engine import Engine

from trimtab.server.http import create_app
from trimtab.workspace import Workspace

API = "/api/2.0/mlflow"
KEYS = 12_000


class Counted:
    """How many statements the database was asked, and for how many rows of values they carried."""

    def __init__(self) -> None:
        self.statements = 0
        self.values = 0

    def note(self, _c: Any, _u: Any, _s: str, parameters: Any, _x: Any, many: bool) -> None:
        """As SQLAlchemy calls it before each statement."""
        self.statements += 1
        self.values += len(parameters) if many else 1


@pytest.fixture
def counted() -> Iterator[Counted]:
    found = Counted()
    event.listen(Engine, "before_cursor_execute", found.note)
    yield found
    event.remove(Engine, "before_cursor_execute", found.note)


@pytest.fixture
def http(workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(create_app(workspace, "127.0.0.1"), base_url="http://127.0.0.1:8600") as client:
        yield client


def made(http: TestClient, keys: int) -> str:
    """A run with that many metrics."""
    body = {"experiment_id": "0", "run_name": f"{keys} keys"}
    run_id: str = http.post(f"{API}/runs/create", json=body).json()["run"]["info"]["run_id"]
    for start in range(0, keys, 1000):
        metrics = [point(number) for number in range(start, min(start + 1000, keys))]
        answer = http.post(f"{API}/runs/log-batch", json={"run_id": run_id, "metrics": metrics})
        assert answer.status_code == 200, answer.text
    return run_id


def point(number: int) -> dict[str, Any]:
    return {"key": f"layer {number}/norm", "value": number / 7, "timestamp": 1_700_000_000_000, "step": 1}


def test_what_requests_cost_does_not_grow_with_the_keys(http: TestClient, counted: Counted) -> None:
    requests: list[tuple[str, Callable[[str], Any]]] = [
        ("log-metric", lambda run: http.post(f"{API}/runs/log-metric", json={"run_id": run, **point(3)})),
        (
            "log-batch",
            lambda run: http.post(
                f"{API}/runs/log-batch", json={"run_id": run, "metrics": [point(n) for n in range(9)]}
            ),
        ),
        ("get", lambda run: http.get(f"{API}/runs/get", params={"run_id": run})),
        (
            "history",
            lambda run: http.get(
                f"{API}/metrics/get-history", params={"run_id": run, "metric_key": point(3)["key"]}
            ),
        ),
        (
            "search",
            lambda run: http.post(
                f"{API}/runs/search",
                json={
                    "experiment_ids": ["0"],
                    "filter": f"run_id = '{run}' AND metrics.`layer 3/norm` > 0",
                    "order_by": ["metrics.`layer 5/norm` DESC"],
                },
            ),
        ),
    ]
    narrow, wide = made(http, 10), made(http, KEYS)
    for name, request in requests:
        costs = []
        for run in (narrow, wide):
            assert request(run).status_code == 200  # what is prepared once is prepared now
            before = counted.statements, counted.values
            assert request(run).status_code == 200
            costs.append((counted.statements - before[0], counted.values - before[1]))
        for few, many in zip(*costs, strict=True):  # the rule of tokens is asked for now and then besides
            assert many <= few + 2, f"{name}: {costs[0]} for 10 keys, {costs[1]} for {KEYS}"


def test_all_of_them_come_back(http: TestClient) -> None:
    run_id = made(http, KEYS)
    metrics = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]["data"]["metrics"]
    assert {each["key"]: each["value"] for each in metrics} == {
        point(number)["key"]: point(number)["value"] for number in range(KEYS)
    }
    found = http.post(f"{API}/runs/search", json={"experiment_ids": ["0"], "max_results": 1}).json()["runs"]
    assert len(found[0]["data"]["metrics"]) == KEYS
