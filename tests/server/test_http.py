"""The server's HTTP API: one shape of error, a token beyond loopback, rows in, orders to loops."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl
import pytest
from fastapi.testclient import TestClient

from trimtab.data.datasets import Datasets
from trimtab.errors import RefusedError, UnavailableError
from trimtab.server.http import create_app
from trimtab.serving.access import Tokens
from trimtab.workspace import Workspace

AT = datetime(2012, 1, 1, tzinfo=UTC)


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(create_app(workspace, "127.0.0.1"), base_url="http://127.0.0.1:8600") as client:
        yield client


@pytest.fixture
def trips(workspace: Workspace) -> str:
    Datasets(workspace).create("trips", time="at")
    return "trips"


def rows() -> pl.DataFrame:
    return pl.DataFrame({"at": [AT, AT], "distance": [1.5, 2.5]})


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def test_health_answers(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}


def test_rows_sent_twice_are_appended_once(client: TestClient, trips: str) -> None:
    headers = {"Content-Type": "application/vnd.apache.parquet"}
    first = client.post(f"/v1/datasets/{trips}/rows", content=parquet(rows()), headers=headers)
    again = client.post(f"/v1/datasets/{trips}/rows", content=parquet(rows()), headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["number"] == again.json()["number"] == 1
    assert client.get(f"/v1/datasets/{trips}/versions").json()[0]["rows"] == 2


def test_rows_may_be_json(client: TestClient, trips: str) -> None:
    client.post(
        f"/v1/datasets/{trips}/rows",
        content=parquet(rows()),
        headers={"Content-Type": "application/vnd.apache.parquet"},
    )
    sent = client.post(
        f"/v1/datasets/{trips}/rows?key=later", json=[{"at": "2012-01-02T00:00:00Z", "distance": 3.5}]
    )
    assert sent.status_code == 201, sent.text
    assert sent.json()["rows"] == 3


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"PAR1 but no more", "application/vnd.apache.parquet", 422),
        (b"x", "application/x-unknown", 422),
        (b"wrong,columns\n1,2\n", "text/csv", 422),
    ],
)
def test_bad_rows_are_refused_with_a_reason_and_change_nothing(
    client: TestClient, workspace: Workspace, trips: str, content: bytes, content_type: str, status: int
) -> None:
    Datasets(workspace).append(trips, rows(), key="first")
    answer = client.post(
        f"/v1/datasets/{trips}/rows", content=content, headers={"Content-Type": content_type}
    )
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "hint"}
    assert Datasets(workspace).version(trips).number == 1


def test_what_is_not_there_is_404_in_the_one_shape(client: TestClient) -> None:
    for path in (
        "/v1/datasets/none",
        "/v1/loops/none",
        "/v1/models/none",
        "/v1/endpoints/none/route",
        "/nowhere",
    ):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "not_found"


def test_a_body_over_the_limit_is_413(client: TestClient, workspace: Workspace, trips: str) -> None:
    answer = client.post(f"/v1/datasets/{trips}/rows", content=b"x" * (workspace.settings.body_limit + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_an_unknown_field_of_an_order_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/loops/any/pause", json={"reson": "typo"})
    assert answer.status_code == 422
    assert "reson" in answer.json()["error"]["message"]


def test_the_caller_is_named_in_the_journal(client: TestClient, trips: str) -> None:
    client.post(
        f"/v1/datasets/{trips}/rows",
        content=parquet(rows()),
        headers={"Content-Type": "application/vnd.apache.parquet", "X-Trimtab-Actor": "ada"},
    )
    newest = client.get("/v1/journal").json()[-1]
    assert (newest["action"], newest["actor"]) == ("dataset.appended", "ada")
    assert client.get("/v1/journal/verification").json()["entries"] == newest["seq"]


def test_the_status_page_escapes_what_it_shows(client: TestClient, workspace: Workspace, trips: str) -> None:
    workspace.acting_as("<script>alert(1)</script>").write(lambda tx: tx.journal("a.b", "kind", "name"))
    page = client.get("/")
    assert page.status_code == 200
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


def test_beyond_loopback_there_is_no_port_without_a_token(workspace: Workspace) -> None:
    with pytest.raises(RefusedError, match="token"):
        create_app(workspace, "0.0.0.0")


def test_beyond_loopback_every_route_but_health_wants_the_token(workspace: Workspace) -> None:
    token = Tokens(workspace).create("ada")
    app = create_app(workspace, "0.0.0.0")
    paths = [
        (method.upper(), path.replace("{name}", "any"))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    assert len(paths) > 20
    paths += [("GET", path) for path in ("/", "/docs", "/redoc", "/openapi.json", "/nowhere")]
    with TestClient(app) as client:
        for method, path in paths:
            expected = 200 if path == "/health" else 401
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": token}):
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == expected, path
        assert client.get("/v1/status", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example:8600"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_a_foreign_web_page_gets_nothing_done(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/v1/loops/any/pause", json={}, headers=headers).status_code == 403
    assert client.get("/v1/status", headers=headers).status_code == 403
    assert client.get("/v1/status", headers={"Origin": "http://127.0.0.1:8600"}).status_code == 200


def test_a_store_that_was_away_for_a_moment_does_not_silence_the_server_for_good(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.server.http.BEAT_SECONDS", 0.01)
    heard = threading.Event()
    real, tries = workspace.instances.beat, iter(range(100))

    def beat(*arguments: str) -> None:
        if next(tries) < 3:
            raise UnavailableError("The metadata store does not answer.")
        real(*arguments)
        heard.set()

    monkeypatch.setattr(workspace.instances, "beat", beat)
    with TestClient(create_app(workspace, "127.0.0.1")):
        assert heard.wait(30)
        assert [one.role for one in workspace.instances.live()] == ["server"]


def test_while_the_store_is_away_the_server_says_so(
    client: TestClient, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise UnavailableError("The metadata store does not answer.")

    monkeypatch.setattr("trimtab.server.http.TOKEN_SECONDS", -1.0)
    monkeypatch.setattr(workspace.database, "read", away)
    answer = client.get("/v1/status")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "Retry-After" in answer.headers
    assert client.get("/health").status_code == 200


def test_a_revoked_token_opens_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.server.http.TOKEN_SECONDS", 0.0)
    token = Tokens(workspace).create("ada")
    Tokens(workspace).create("bob")
    with TestClient(create_app(workspace, "0.0.0.0")) as client:
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("/v1/status", headers=headers).status_code == 200
        Tokens(workspace).revoke("ada")
        assert client.get("/v1/status", headers=headers).status_code == 401
