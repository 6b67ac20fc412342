"""Artifacts through the server: any name a client sends, and never a path out of the run."""

from __future__ import annotations

import http.client
import os
import time
from pathlib import Path

import httpx
import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from tests.server.mlflow.conftest import RunningServer

from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    made: str = client.create_run("0").info.run_id
    return made


def test_what_is_logged_is_listed_and_comes_back(
    client: MlflowClient, run_id: str, tmp_path: Path, shared_workspace: Workspace, server: RunningServer
) -> None:
    folder = tmp_path / "out"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "er" / "größe 1.bin").write_bytes(os.urandom(3 * 2**20))
    client.log_artifacts(run_id, str(folder))
    client.log_text(run_id, "hello", "notes/hello.txt")
    client.log_dict(run_id, {"a": 1}, "notes/a.json")
    assert [(each.path, each.is_dir, each.file_size) for each in client.list_artifacts(run_id)] == [
        ("a.txt", False, 1), ("deep", True, None), ("notes", True, None),
    ]  # fmt: skip
    assert [each.path for each in client.list_artifacts(run_id, "deep/er")] == ["deep/er/größe 1.bin"]
    assert client.list_artifacts(run_id, "a.txt") == client.list_artifacts(run_id, "missing") == []
    got = Path(download_artifacts(run_id=run_id, dst_path=str(tmp_path / "got"), tracking_uri=server.url))
    for path in ("a.txt", "deep/er/größe 1.bin"):
        assert (got / path).read_bytes() == (folder / path).read_bytes()
    assert (got / "notes/hello.txt").read_text() == "hello"
    assert Tracking(shared_workspace).load_artifact(run_id, "notes/a.json")
    assert list(shared_workspace.cache.glob("tmp*")) == []


def test_the_listing_of_a_run_names_whole_paths(
    server: RunningServer, client: MlflowClient, run_id: str
) -> None:
    client.log_text(run_id, "hello", "notes/hello.txt")
    answer = httpx.get(
        f"{server.url}/api/2.0/mlflow/artifacts/list", params={"run_id": run_id, "path": "notes"}
    ).json()
    assert answer["root_uri"] == f"mlflow-artifacts:/0/{run_id}/artifacts"
    assert answer["files"] == [{"path": "notes/hello.txt", "is_dir": False, "file_size": 5}]


def test_a_file_that_is_logged_again_is_replaced(
    client: MlflowClient, run_id: str, server: RunningServer
) -> None:
    client.log_text(run_id, "one", "x.txt")
    client.log_text(run_id, "two", "x.txt")
    mlflow.set_tracking_uri(server.url)
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/x.txt") == "two"
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # None forgets it


@pytest.mark.parametrize(
    "path",
    [
        "../x", "a/../../x", "a/../x", "%2e%2e/x", "%2e%2e%2fx", "..%5cx", "a%5cb", "a//b", "/etc/passwd",
        "a%00b", ".", "a/./b", "x" * 2000, "%ff",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_no_path_leads_out_of_a_run(
    server: RunningServer, client: MlflowClient, run_id: str, method: str, path: str
) -> None:
    client.log_text(run_id, "kept", "kept.txt")
    # Not httpx: it would tidy the path up before it sends it.
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    raw = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/{path}"
    connection.request(method, raw, body=b"x" if method == "PUT" else None)
    status = connection.getresponse().status
    connection.close()
    assert status in {400, 404}
    assert [each.path for each in client.list_artifacts(run_id)] == ["kept.txt"]


@pytest.mark.parametrize(
    "path",
    [
        "x",
        "0/x",
        f"0/{'0' * 32}/artifacts/x",
        "0/models/m-0/artifacts/x",
        "trees/00/x",
        f"trees/{'0' * 64}/x",
    ],
)
def test_nothing_is_kept_where_no_run_is(server: RunningServer, path: str) -> None:
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{path}"
    for method in ("PUT", "GET", "DELETE"):
        assert httpx.request(method, url, content=b"x" if method == "PUT" else None).status_code == 404


def test_a_run_is_found_under_its_own_experiment_only(server: RunningServer, run_id: str) -> None:
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/1/{run_id}/artifacts/x"
    assert httpx.put(url, content=b"x").status_code == 404


def test_a_path_is_a_file_or_a_folder(server: RunningServer, run_id: str) -> None:
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts"
    assert httpx.put(f"{url}/a/b", content=b"x").status_code == 200
    assert httpx.put(f"{url}/a", content=b"x").status_code == 400
    assert httpx.put(f"{url}/a/b/c", content=b"x").status_code == 400


def test_artifacts_can_be_deleted(server: RunningServer, client: MlflowClient, run_id: str) -> None:
    for name in ("a/b.txt", "a/c.txt", "d.txt"):
        client.log_text(run_id, "x", name)
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts"
    assert httpx.delete(f"{url}/a").status_code == 200
    assert [each.path for each in client.list_artifacts(run_id)] == ["d.txt"]


def test_a_file_is_never_a_page_of_this_server(
    server: RunningServer, client: MlflowClient, run_id: str
) -> None:
    client.log_text(run_id, "<script>", "page.html")
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/page.html"
    headers = httpx.get(url).headers
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"


def test_a_name_is_decoded_once(server: RunningServer, shared_workspace: Workspace, run_id: str) -> None:
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts"
    for name in ("100%2525.txt", "what%3F.txt", "a%23b.txt", "%252e%252e"):
        assert httpx.put(f"{url}/{name}", content=name.encode()).status_code == 200
        assert httpx.get(f"{url}/{name}").content == name.encode()
    assert [each.path for each in Tracking(shared_workspace).artifacts(run_id)] == [
        "%2e%2e", "100%25.txt", "a#b.txt", "what?.txt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "%2e%2e/x", "..%5cx", "a//b", "/etc/passwd", "a%00b", ".", "a/./b", "%ff"]
)
def test_no_listing_leads_out_of_a_run(server: RunningServer, run_id: str, path: str) -> None:
    # Not httpx: it would tidy the query up before it sends it.
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    for query in (f"artifacts?path=0/{run_id}/artifacts/{path}", f"artifacts?path={path}"):
        connection.request("GET", f"/api/2.0/mlflow-artifacts/{query}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 400 or body == b"{}", body
    connection.request("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path={path}")
    answer = connection.getresponse()
    assert answer.status == 400 or b'"files"' not in answer.read()
    connection.close()


def test_a_large_file_for_a_run_that_is_not_there_is_refused(server: RunningServer) -> None:
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{'0' * 32}/artifacts/x"
    assert requests.put(url, data=iter([b"x" * 2**20] * 20), timeout=60).status_code == 404


def test_an_upload_that_is_broken_off_changes_nothing(
    server: RunningServer, client: MlflowClient, run_id: str, shared_workspace: Workspace
) -> None:
    client.log_text(run_id, "whole", "x.bin")
    for sent in (b"half", b"x" * 3 * 2**20):
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        connection.putrequest("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/x.bin")
        connection.putheader("Content-Length", str(5 * 2**20))
        connection.endheaders(sent)
        connection.close()
    for _ in range(200):
        if not list((shared_workspace.root / "blobs" / "drafts").iterdir()):
            break
        time.sleep(0.05)
    assert list((shared_workspace.root / "blobs" / "drafts").iterdir()) == []
    assert Tracking(shared_workspace).load_artifact(run_id, "x.bin") == b"whole"


def test_a_file_whose_bytes_rotted_is_not_handed_out_whole(
    server: RunningServer, client: MlflowClient, run_id: str, shared_workspace: Workspace, tmp_path: Path
) -> None:
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/x.bin"
    httpx.put(url, content=os.urandom(5 * 2**20))
    (file,) = Tracking(shared_workspace).artifacts(run_id)
    (kept,) = (shared_workspace.root / "blobs").rglob(file.digest.removeprefix("b3:"))
    with kept.open("r+b") as opened:
        opened.write(b"rot")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url)


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_files_of_any_size_come_back(server: RunningServer, run_id: str, size: int) -> None:
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/x.bin"
    content = os.urandom(size)
    assert httpx.put(url, content=content).status_code == 200
    answer = httpx.get(url)
    assert answer.content == content
    assert answer.headers["content-length"] == str(size)
    head = httpx.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")
