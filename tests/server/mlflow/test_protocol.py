"""The protocol itself: messages as MLflow has them, and nothing that is sent makes the server fail."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.server.http import create_app
from trimtab.server.mlflow import ENDPOINTS
from trimtab.serving.access import Tokens
from trimtab.workspace import Workspace

API = "/api/2.0/mlflow"


@pytest.fixture
def http(workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(create_app(workspace, "127.0.0.1"), base_url="http://127.0.0.1:8600") as client:
        yield client


def made_run(http: TestClient) -> str:
    answer = http.post(f"{API}/runs/create", json={"experiment_id": "0", "start_time": "1700000000000"})
    assert answer.status_code == 200, answer.text
    run_id: str = answer.json()["run"]["info"]["run_id"]
    return run_id


def test_numbers_may_come_as_text_and_leave_as_mlflow_sends_them(http: TestClient) -> None:
    run_id = made_run(http)
    for value in ("NaN", "0.5", 1):
        body = {"run_id": run_id, "key": "m", "value": value, "timestamp": "17", "step": "3"}
        assert http.post(f"{API}/runs/log-metric", json=body).json() == {}
    query = {"run_id": run_id, "metric_key": "m"}
    metrics = http.get(f"{API}/metrics/get-history", params=query).json()["metrics"]
    assert metrics == [
        {"key": "m", "value": 0.5, "timestamp": 17, "step": 3},
        {"key": "m", "value": 1.0, "timestamp": 17, "step": 3},
        {"key": "m", "value": "NaN", "timestamp": 17, "step": 3},
    ]
    info = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]["info"]
    assert info["start_time"] == 1700000000000
    assert info["experiment_id"] == "0"


def test_numbers_that_only_python_calls_json_are_taken(http: TestClient) -> None:
    run_id = made_run(http)
    body = json.dumps({"run_id": run_id, "key": "m", "value": -math.inf, "timestamp": 1})
    assert http.post(f"{API}/runs/log-metric", content=body).status_code == 200
    run = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]
    assert run["data"]["metrics"][0]["value"] == "-Infinity"


def test_the_twin_of_each_path_answers_alike(http: TestClient) -> None:
    for api in ("/api", "/ajax-api"):
        assert http.get(f"{api}/2.0/mlflow/experiments/get?experiment_id=0").json()["experiment"]["name"]
        assert http.get(f"{api}/3.0/mlflow/server-info").json()["workspaces_enabled"] is False
    assert http.get("/version").text == "3.17.2"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/3.0/mlflow/traces"),
        ("POST", "/api/2.0/mlflow/webhooks"),
        ("GET", "/api/2.0/mlflow/runs/create"),
        ("GET", "/ajax-api/2.0/mlflow/"),
        ("POST", "/api/4.0/mlflow/traces/a/b/info"),
    ],
)
def test_an_unknown_endpoint_answers_as_mlflow_does(http: TestClient, method: str, path: str) -> None:
    answer = http.request(method, path, content=b"{}")
    assert answer.status_code == 404
    assert answer.json()["error_code"] == "ENDPOINT_NOT_FOUND"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("runs/log-metric", {}, "Missing value for required parameter 'run_id'"),
        ("runs/log-metric", {"run_id": None}, "Missing value for required parameter 'run_id'"),
        ("runs/log-metric", {"run_id": ""}, "Missing value for required parameter 'run_id'"),
        ("runs/log-parameter", {"run_id": "x", "key": 5}, "Invalid value for parameter 'key'"),
        ("runs/search", {"max_results": 50_001}, "max_results"),
        ("runs/search", {"max_results": 0}, "max_results"),
        ("runs/search", {"experiment_ids": ["no"]}, "Invalid experiment ID 'no'"),
        ("runs/search", {"page_token": "no"}, "Invalid page token"),
        ("runs/search", {"run_view_type": "SOME"}, "view type"),
        ("runs/create", {"start_time": 2**62}, "year 9999"),
        ("runs/create", {"start_time": 2**70}, "start_time"),
        ("runs/update", {"run_id": "x", "status": "WELL"}, "status"),
        ("experiments/create", {"name": "a\0b"}, "NUL"),
        ("experiments/create", {"name": "a", "artifact_location": "s3://b"}, "Leave it out"),
    ],
)
def test_what_cannot_be_used_is_told(http: TestClient, path: str, body: Any, message: str) -> None:
    answer = http.post(f"{API}/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert message in answer.json()["message"]


FIELDS = sorted({name for endpoint in ENDPOINTS for name in endpoint.request.__struct_fields__})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["0", "a" * 32, "metrics.a < 1", "name LIKE '%'", "\0", "../x", "1" * 30]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    endpoint=st.sampled_from(ENDPOINTS),
    body=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6) | VALUES,
    cut=st.integers(0, 400),
)
def test_nothing_that_is_sent_makes_the_server_fail(
    http: TestClient, endpoint: Any, body: Any, cut: int
) -> None:
    path = f"{API}/{endpoint.path}".replace("{model_id}", "m-0").replace("{tag_key}", "k")
    if endpoint.method == "GET" and isinstance(body, dict):
        query = {key: str(value).encode("utf-8", "replace").decode() for key, value in body.items()}
        answer = http.get(path, params=query)
    else:
        content = json.dumps(body)[: cut if cut > 20 else None]
        answer = http.request(endpoint.method, path, content=content)
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert answer.json()["error_code"]


@pytest.mark.parametrize("content", [b"", b"[]", b"5", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
@pytest.mark.parametrize("path", ["runs/create", "runs/log-batch", "experiments/search", "runs/search"])
def test_bytes_that_are_no_message_are_refused(http: TestClient, path: str, content: bytes) -> None:
    answer = http.post(f"{API}/{path}", content=content)
    assert answer.status_code in {200, 400}
    assert answer.status_code == 400 or content == b""


def test_half_a_character_is_refused(http: TestClient) -> None:
    answer = http.post(f"{API}/experiments/create", content=b'{"name": "\\ud800"}')
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_foreign_page_and_a_wrong_token_are_refused_in_mlflows_words(
    workspace: Workspace, http: TestClient
) -> None:
    foreign = http.post(f"{API}/experiments/search", json={}, headers={"Origin": "http://evil.example"})
    assert (foreign.status_code, foreign.json()["error_code"]) == (403, "PERMISSION_DENIED")
    token = Tokens(workspace).create("ann")
    with TestClient(create_app(workspace, "0.0.0.0"), base_url="http://trimtab.example") as beyond:
        refused = beyond.post(f"{API}/experiments/search", json={})
        assert (refused.status_code, refused.json()["error_code"]) == (401, "UNAUTHENTICATED")
        allowed = beyond.post(
            f"{API}/experiments/search", json={}, headers={"Authorization": f"Bearer {token}"}
        )
        assert allowed.status_code == 200


def test_a_body_above_the_limit_is_refused(http: TestClient) -> None:
    answer: httpx.Response = http.post(f"{API}/runs/log-batch", content=b" " * (9 * 2**20))
    assert (answer.status_code, answer.json()["error_code"]) == (413, "INVALID_PARAMETER_VALUE")
