"""Requests that make no sense: every route of the server, and the gateway's log behind its door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from tests.loop.scene import NAME, Scene
from tests.serving.conftest import Served
from tests.serving.running_gateway import RunningGateway, until
from tests.serving.tiny_models import ROW, write_model

from trimtab.config import Settings
from trimtab.loop.loops import Loops
from trimtab.monitoring.outcomes import Outcomes
from trimtab.server.http import create_app
from trimtab.store import journal
from trimtab.workspace import Workspace

NAMES = [
    NAME, "rentals", "none", "a b", "..", "a/b", "\0", "\n", "é", "😀", "x" * 5000, "9" * 30, "-1", "a\\b",
    "'; drop table loops;--",
]  # fmt: skip
RAW_NAMES = [*map(lambda name: quote(name, safe=""), NAMES), "%ED%A0%80", "%FF"]  # noqa: C417  (reads better)
VALUES = ["", "0", "-1", "9" * 30, str(2**63), "abc", "%00", "%ED%A0%80", "1e400", "NaN", "2011-01-01"]
BODIES = [
    b"", b"{", b"[]", b"null", b'""', b"\xff\xfe", b"[" * 20_000, b"{}",
    b'{"reason": 5}', b'{"reason": "\\u0000"}', b'{"reason": "\\ud800"}', b'{"reason": "x"}',
    b'{"params": 5}', b'{"params": {"rate": 1e999}}', b'{"params": {"\\ud800": 1}}',
    b'{"params": {"rate": 999999999999999999999999999999}}',
    b'{"\\ud800": 1}', b'{"mode": "\\u0000"}', b'{"mode": "advise"}',
    b'[{"at": "x"}]', b'[{"at": "\\ud800"}]', b'[{"a\\u0000": 1}]', b"[[1]]",
    b'[{"a": 1}, {"a": {"b": [1]}}]',
]  # fmt: skip
TYPES = ["application/json", "text/csv", "application/vnd.apache.parquet", "text/plain", "", "x/\xe9"]


@pytest.fixture(params=["sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A loop with a champion, on each store."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    made = Scene(tmp_path, database=url)
    made.bootstrap()
    yield made
    made.close()


def calls(app: Any) -> Iterator[tuple[str, str, bytes, str]]:
    """Method, path, body and content type of every bad call that is tried."""
    for path, methods in app.openapi()["paths"].items():
        for method, described in methods.items():
            queries = [each["name"] for each in described.get("parameters", []) if each["in"] == "query"]
            bodies = [b""] if method == "get" else BODIES
            for name in RAW_NAMES if "{name}" in path else [""]:
                named = path.replace("{name}", name)
                for body in bodies if name in {NAME, "rentals"} else bodies[-1:]:
                    for kind in TYPES if path.endswith("/rows") else TYPES[:1]:
                        yield method, named, body, kind
            for query in queries:
                for value in VALUES:
                    yield method, f"{path.replace('{name}', NAME)}?{query}={value}", b"[]", TYPES[0]


def test_no_request_makes_the_server_fail(scene: Scene) -> None:
    app = create_app(scene.workspace, "127.0.0.1")
    tried = 0
    with TestClient(app, base_url="http://127.0.0.1:8600", raise_server_exceptions=False) as client:
        for method, path, body, kind in calls(app):
            headers = {"Content-Type": kind.encode("latin-1"), "X-Trimtab-Actor": b"ada"}
            answer = client.request(method, path, content=body, headers=headers)
            assert answer.status_code < 500, (method, path[:80], body[:80], answer.text)
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"code", "message", "hint"}, (path[:80], answer.text)
            tried += 1
    assert tried > 500
    with scene.workspace.read() as connection:
        journal.verify(connection)
    assert Loops(scene.workspace).status(NAME).champion is not None


def test_a_bug_is_told_in_the_one_shape(workspace: Workspace) -> None:
    app = create_app(workspace, "127.0.0.1")

    @app.get("/bug")
    def bug() -> None:
        raise ZeroDivisionError("something that only the log should tell")

    with TestClient(app, base_url="http://127.0.0.1:8600", raise_server_exceptions=False) as client:
        answer = client.get("/bug")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "something" not in answer.text


def test_no_name_makes_the_gateway_fail_or_its_log_stand_still(tmp_path: Path, postgres_url: str) -> None:
    write_model(tmp_path / "1", 1)
    project = tmp_path / "project"
    project.mkdir()
    (project / "trimtab.toml").write_text(f'database = "{postgres_url}"\n')
    with Workspace.create(project, Settings(database=postgres_url)) as workspace:
        Served(workspace, {1: tmp_path / "1"})
        with RunningGateway(project) as running, running.until_ready().client() as client:
            for raw in RAW_NAMES:
                for path in (f"/v1/endpoints/{raw}/predict", f"/v2/models/{raw}/infer", f"/{raw}"):
                    answer = client.post(path, json={"row": ROW})
                    assert 400 <= answer.status_code < 500, (path, answer.text)
            for name in NAMES:
                season = client.post("/v1/endpoints/rides/predict", json={"row": {**ROW, "season": name}})
                assert season.status_code == 200, season.text
                for path, body in (
                    ("predict", {"row": ROW, "key": name, "request_id": name}),
                    ("feedback", {"key": name, "label": 1}),
                    ("feedback", {"key": "k", "label": name}),
                ):
                    answer = client.post(f"/v1/endpoints/rides/{path}", json=body)
                    assert answer.status_code in {200, 202, 422}, answer.text
            client.post("/v1/endpoints/rides/predict", json={"row": ROW, "key": "last"})
            logged = client.get("/v1/status").json()["log"]["predictions"]
            until(lambda: Outcomes(workspace).counts("rides")[0] == logged)
        assert "Traceback" not in running.output()
