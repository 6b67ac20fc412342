"""Uploads in parts: by MLflow's client as it is, and by one that goes on where it was broken off."""

from __future__ import annotations

import http.client
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from pydantic import SecretStr
from tests.server.mlflow.conftest import RunningServer
from tests.server.mlflow.test_large_artifacts import ServerProcess

from trimtab.config import Settings
from trimtab.store.uploads import Uploads
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

MIB = 2**20


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    made: str = client.create_run("0").info.run_id
    return made


class Sender:
    """A client of an upload in parts, which can stop and go on anywhere."""

    def __init__(self, url: str, run_id: str, name: str = "big.bin", folder: str = "deep") -> None:
        self.root = f"{url}/api/2.0/mlflow-artifacts"
        self.folder = f"0/{run_id}/artifacts/{folder}".rstrip("/")
        self.name = name
        self.headers: dict[str, str] = {}
        self.created: Any = None
        self.parts: dict[int, dict[str, Any]] = {}

    def create(self, parts: int) -> None:
        answer = self.tell("create", {"num_parts": parts})
        assert answer.status_code == 200, answer.text
        self.created = answer.json()

    def send(self, number: int, data: bytes) -> httpx.Response:
        (each,) = (each for each in self.created["credentials"] if each["part_number"] == number)
        answer = httpx.put(each["url"], content=data, headers=each["headers"], timeout=60)
        if answer.status_code == 200:
            self.parts[number] = {
                "part_number": number, "etag": answer.headers["etag"], "url": each["url"],
            }  # fmt: skip
        return answer

    def complete(self, **changed: object) -> httpx.Response:
        return self.tell("complete", {"parts": list(self.parts.values()), **self.own, **changed})

    def abort(self) -> httpx.Response:
        return self.tell("abort", self.own)

    @property
    def own(self) -> dict[str, object]:
        return {"upload_id": self.created["upload_id"]}

    def tell(self, what: str, message: dict[str, object]) -> httpx.Response:
        path = {"path": f"/data/mine/{self.name}"}
        return httpx.post(
            f"{self.root}/mpu/{what}/{self.folder}", json=path | message, headers=self.headers, timeout=60
        )

    def download(self, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.root}/artifacts/{self.folder}/{self.name}", headers=headers, timeout=60)


@pytest.fixture
def sender(server: RunningServer, run_id: str) -> Sender:
    return Sender(server.url, run_id)


def test_mlflows_client_sends_a_file_in_parts_and_fetches_it_in_ranges(
    server: RunningServer,
    client: MlflowClient,
    run_id: str,
    tmp_path: Path,
    shared_workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in ("UPLOAD", "DOWNLOAD"):
        monkeypatch.setenv(f"MLFLOW_ENABLE_PROXY_MULTIPART_{kind}", "true")
        monkeypatch.setenv(f"MLFLOW_MULTIPART_{kind}_MINIMUM_FILE_SIZE", str(5 * MIB))
        monkeypatch.setenv(f"MLFLOW_MULTIPART_{kind}_CHUNK_SIZE", str(5 * MIB))
    file = tmp_path / "größe 1.bin"
    file.write_bytes(os.urandom(17 * MIB + 3))
    client.log_artifact(run_id, str(file), "deep/er")
    assert [(each.path, each.file_size) for each in client.list_artifacts(run_id, "deep/er")] == [
        ("deep/er/größe 1.bin", file.stat().st_size)
    ]
    got = download_artifacts(
        run_id=run_id,
        artifact_path="deep/er/größe 1.bin",
        dst_path=str(tmp_path / "got"),
        tracking_uri=server.url,
    )
    assert Path(got).read_bytes() == file.read_bytes()
    (upload,) = shared_workspace.uploads.iterdir()
    assert sorted(path.name for path in upload.iterdir()) == ["done", "upload.json"]


def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "project").close()
    first, last = os.urandom(2 * MIB), os.urandom(MIB)
    process = ServerProcess(tmp_path / "project")
    run = MlflowClient(f"http://127.0.0.1:{process.port}").create_run("0").info.run_id
    sender = Sender(f"http://127.0.0.1:{process.port}", run)
    sender.create(2)
    assert sender.send(1, first).status_code == 200
    process.process.kill()
    process.process.wait()
    process.start()
    try:
        sender.root = f"http://127.0.0.1:{process.port}/api/2.0/mlflow-artifacts"
        for each in sender.created["credentials"]:
            each["url"] = f"{sender.root}/mpu/{each['url'].split('/mpu/')[1]}"
        assert sender.send(2, last).status_code == 200
        assert sender.complete().status_code == 200
        assert sender.download().content == first + last
    finally:
        process.stop()


def test_a_part_that_is_sent_again_replaces_the_first(sender: Sender) -> None:
    sender.create(2)
    sender.send(1, b"wrong")
    sender.send(2, b"two")
    sender.send(1, b"one ")
    assert sender.complete().status_code == 200
    assert sender.download().content == b"one two"


def test_a_complete_upload_can_be_completed_again_and_takes_no_more_parts(
    sender: Sender, server: RunningServer
) -> None:
    sender.create(1)
    sender.send(1, b"first")
    assert sender.complete().status_code == 200
    assert sender.complete().status_code == 200
    httpx.put(f"{sender.root}/artifacts/{sender.folder}/{sender.name}", content=b"newer")
    assert sender.complete().status_code == 200
    assert sender.download().content == b"newer"
    assert sender.send(1, b"late").status_code == 400


def test_an_upload_is_complete_with_exactly_its_parts(sender: Sender) -> None:
    sender.create(2)
    sender.send(1, b"one")
    assert "parts 1 to 2" in sender.complete().json()["message"]
    sender.parts[2] = {"part_number": 2, "etag": '"0000"'}
    assert "Part 2" in sender.complete().json()["message"]
    sender.send(2, b"two")
    wrong = [{**part, "etag": f'"{"0" * 64}"'} for part in sender.parts.values()]
    assert sender.complete(parts=wrong).status_code == 400
    assert sender.download().status_code == 404
    assert sender.complete(parts=[{"part_number": number} for number in (2, 1)]).status_code == 200
    assert sender.download().content == b"onetwo"


def test_an_upload_that_is_given_up_is_gone(sender: Sender, shared_workspace: Workspace) -> None:
    sender.create(1)
    sender.send(1, b"one")
    assert sender.abort().status_code == 200
    assert sender.abort().status_code == 200
    assert sender.send(1, b"again").status_code == 404
    assert sender.complete().status_code == 404
    assert not (shared_workspace.uploads / sender.created["upload_id"]).exists()


def test_nobody_completes_an_upload_to_another_place(
    sender: Sender, client: MlflowClient, server: RunningServer
) -> None:
    sender.create(1)
    sender.send(1, b"one")
    other = Sender(server.url, client.create_run("0").info.run_id)
    other.created, other.parts = sender.created, sender.parts
    assert other.complete().status_code == 404
    other.abort()
    assert sender.complete().status_code == 200


def test_a_part_that_was_broken_off_does_not_count(sender: Sender, server: RunningServer) -> None:
    sender.create(1)
    sender.send(1, b"whole")
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    path = sender.created["credentials"][0]["url"].removeprefix(server.url)
    connection.putrequest("PUT", path)
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"half")
    connection.close()
    assert sender.complete().status_code == 200
    assert sender.download().content == b"whole"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "%2e%2e/x",
        "%2e%2e%2fx",
        "..%5cx",
        "a//b",
        "/etc",
        "a%00b",
        ".",
        "x" * 2000,
        "%ff",
    ],
)
@pytest.mark.parametrize("what", ["create", "complete", "abort"])
def test_no_upload_leads_out_of_a_run(
    server: RunningServer,
    client: MlflowClient,
    run_id: str,
    shared_workspace: Workspace,
    what: str,
    path: str,
) -> None:
    before = set(shared_workspace.uploads.glob("*"))
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    body = b'{"path": "x", "upload_id": "x", "parts": []}'
    connection.request("POST", f"/api/2.0/mlflow-artifacts/mpu/{what}/0/{run_id}/artifacts/{path}", body)
    assert connection.getresponse().status in {400, 404}
    connection.close()
    assert set(shared_workspace.uploads.glob("*")) == before
    assert client.list_artifacts(run_id) == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/data/mine/a b.bin", "a b.bin"), ("C:\\Users\\me\\x.bin", "x.bin"), ("x.bin", "x.bin"),
        ("/a/é#%2e.bin", "é#%2e.bin"), ("..", None), ("/data/..", None), ("/data/", None), ("a\0b", None),
    ],
)  # fmt: skip
def test_the_name_is_the_last_part_of_the_clients_path(
    server: RunningServer, shared_workspace: Workspace, run_id: str, given: str, kept: str | None
) -> None:
    sender = Sender(server.url, run_id, folder="")
    answer = sender.tell("create", {"path": given, "num_parts": 1})
    if kept is None:
        assert answer.status_code == 400
        return
    sender.created = answer.json()
    sender.send(1, b"x")
    assert sender.complete(path=given).status_code == 200
    assert [each.path for each in Tracking(shared_workspace).artifacts(run_id)] == [kept]


@pytest.mark.parametrize("number", ["0", "2", "999999", "x", "-1", "1/../../x", ""])
def test_an_upload_takes_only_the_parts_that_it_has(sender: Sender, number: str) -> None:
    sender.create(1)
    url = f"{sender.root}/mpu/part/{sender.created['upload_id']}/{number}"
    assert httpx.put(url, content=b"x").status_code in {400, 404}


@pytest.mark.parametrize("name", ["x", "..", "." * 43, "A" * 43, "%2e%2e%2f" + "A" * 40])
def test_an_upload_that_nobody_began_takes_nothing(server: RunningServer, name: str) -> None:
    answer = httpx.put(f"{server.url}/api/2.0/mlflow-artifacts/mpu/part/{name}/1", content=b"x")
    assert answer.status_code in {400, 404}


@pytest.mark.parametrize("parts", [0, -1, 100_001, "many"])
def test_an_upload_has_a_number_of_parts(sender: Sender, parts: object) -> None:
    assert sender.tell("create", {"num_parts": parts}).status_code == 400


def test_addresses_of_parts_lead_back_the_way_the_client_came(sender: Sender) -> None:
    sender.headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "ml.example.org",
        "X-Forwarded-Prefix": "/trimtab/",
        "Authorization": "Bearer secret",
    }
    sender.create(2)
    (one, two) = sender.created["credentials"]
    assert one["url"].startswith("https://ml.example.org/trimtab/api/2.0/mlflow-artifacts/mpu/part/")
    assert one["headers"] == two["headers"] == {"Authorization": "Bearer secret"}
    sender.headers = {"X-Forwarded-Host": "evil host/"}
    assert sender.tell("create", {"num_parts": 1}).status_code == 400


def test_parts_go_through_a_door_that_wants_a_token(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    file = tmp_path / "x.bin"
    file.write_bytes(b"content")
    settings = Settings(token=SecretStr("secret"))
    with (
        Workspace.create(tmp_path / "project", settings, actor="tester") as workspace,
        RunningServer(workspace, free_port) as server,
    ):
        client = MlflowClient(server.url)
        run_id = client.create_run("0").info.run_id
        client.log_artifact(run_id, str(file))
        assert Tracking(workspace).load_artifact(run_id, "x.bin") == b"content"
        sender = Sender(server.url, run_id)
        sender.headers = {"Authorization": "Bearer secret"}
        sender.create(1)
        sender.created["credentials"][0]["headers"] = {}
        assert sender.send(1, b"x").status_code == 401


def test_ranges_of_a_file_can_be_fetched(sender: Sender) -> None:
    sender.create(1)
    sender.send(1, b"0123456789")
    sender.complete()
    for asked, status, content, place in (
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ):
        answer = sender.download(Range=asked)
        assert (answer.status_code, answer.content) == (status, content)
        assert answer.headers.get("content-range") == place
    tag = answer.headers["etag"]
    assert sender.download(Range="bytes=0-1", **{"If-Range": tag}).status_code == 206
    assert sender.download(Range="bytes=0-1", **{"If-Range": '"other"'}).status_code == 200


def test_only_uploads_that_nobody_writes_to_are_swept(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads")
    with uploads.part(uploads.create("0/x", 1), 1) as draft:
        draft.write(b"12345")
        draft.keep()
    now = datetime.now(UTC)
    assert uploads.sweep(now - timedelta(hours=1)) == (0, 0)
    count, freed = uploads.sweep(now + timedelta(hours=1), dry=True)
    assert (count, freed > 5) == (1, True)
    assert uploads.sweep(now + timedelta(hours=1)) == (1, freed)
    assert list((tmp_path / "uploads").iterdir()) == []
