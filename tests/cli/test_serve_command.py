from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Self

import httpx
import pytest
from tests.cli.conftest import Trimtab
from tests.serving.running_gateway import until
from tests.serving.tiny_models import ROW, version_of, write_model

from trimtab.config import FILE_NAME
from trimtab.models.registry import Registry
from trimtab.monitoring.outcomes import Outcomes
from trimtab.serving.endpoints import Endpoints
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `walks` of a model."""
    folder = tmp_path_factory.mktemp("models") / "walks"
    write_model(folder, 1)
    return folder


@pytest.fixture
def home(tmp_path: Path, model: Path) -> Path:
    """A project with the model `rides`: version 1 is of the folder, version 2, called `fast`, another."""
    write_model(tmp_path / "2", 2)
    with Workspace.create(tmp_path / "home", actor="tester") as workspace:
        registry = Registry(workspace)
        workspace.write(lambda tx: registry.create_model(tx, "rides"))
        for folder in (model, tmp_path / "2"):
            digest = workspace.blobs.put_tree(folder)
            workspace.write(partial(registry.register, name="rides", digest=digest))
        workspace.write(lambda tx: registry.set_alias(tx, "rides", "fast", 2))
    return tmp_path / "home"


class Serving:
    """`trimtab serve` in a process; ends with the `with` block."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self._output = folder / "output.txt"
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trimtab.cli", "serve", *map(str, arguments), "--port", "0"],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "TMPDIR": str(folder), "TMP": str(folder)},
            )

    @property
    def output(self) -> str:
        """What it said."""
        return self._output.read_text()

    @property
    def url(self) -> str:
        """Where it serves."""
        until(lambda: "curl" in self.output or self._process.poll() is not None)
        found = re.search(r"Serving at (http://\S+) ", self.output)
        assert found is not None, self.output
        return found[1]

    def client(self) -> httpx.Client:
        """A client, once it is ready."""
        url = self.url
        until(lambda: httpx.get(f"{url}/ping", timeout=30).status_code == 200)
        return httpx.Client(base_url=url, timeout=30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """A signal, and the exit status."""
        self._process.send_signal(number)
        return self._process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()


def test_a_folder_is_served_with_no_project_and_every_prediction_is_kept(tmp_path: Path, model: Path) -> None:
    with Serving(tmp_path, model) as serving, serving.client() as client:
        (answer,) = client.post("/invocations", json={"instances": [ROW]}).json()["predictions"]
        assert version_of(answer) == 1
        command = shlex.split(serving.output.strip().splitlines()[-1])
        told = client.post(command[2], content=command[4]).json()
        assert (command[:2], command[3], told["endpoint"]) == (["curl", "-s"], "-d", "walks")
        assert serving.stop() == 0
    found = re.search(r"Its log is in (\S+)\.trimtab \(temporary", serving.output)
    assert found is not None
    assert Path(found[1]).parent == tmp_path
    with Workspace.open(Path(found[1])) as workspace:
        assert Outcomes(workspace).counts("walks")[0] == 2


def test_grpc_is_served_beside_http(tmp_path: Path, model: Path, free_port: int) -> None:
    grpc = pytest.importorskip("grpc")
    with Serving(tmp_path, model, "--grpc-port", str(free_port)) as serving, serving.client():
        assert f"Serving gRPC at 127.0.0.1:{free_port}." in serving.output
        with grpc.insecure_channel(f"127.0.0.1:{free_port}") as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert ask(b"", wait_for_ready=True, timeout=60) == b"\x08\x01"  # the field live, true
        assert serving.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("words", "endpoint", "version"),
    [
        (["models:/rides/1"], "rides", 1),
        (["models:/rides@fast", "--name", "quick"], "quick", 2),
    ],
)
def test_a_registered_version_is_served_in_its_project(
    tmp_path: Path, home: Path, words: list[str], endpoint: str, version: int
) -> None:
    with Serving(tmp_path, *words, "--dir", home) as serving, serving.client() as client:
        told = client.post(f"/v1/endpoints/{endpoint}/predict", json={"row": ROW}).json()
        assert (told["version"], version_of(told["predictions"][0])) == (str(version), version)


def test_what_a_run_logged_is_served_and_becomes_a_version_once(
    tmp_path: Path, home: Path, model: Path
) -> None:
    with Workspace.open(home) as workspace:
        tracking = Tracking(workspace)
        run = tracking.start_run("trials").id
        for file in model.iterdir():
            tracking.log_artifact(run, file, f"models/walks/{file.name}")
    for _ in range(2):
        with (
            Serving(tmp_path, f"runs:/{run}/models/walks", "--dir", home) as serving,
            serving.client() as client,
        ):
            told = client.post("/v1/endpoints/walks/predict", json={"row": ROW}).json()
            assert (told["version"], version_of(told["predictions"][0])) == ("1", 1)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["nowhere"], 3, "There is no folder 'nowhere'"),
        (["empty"], 1, "no file 'MLmodel'"),
        (["pickled"], 4, "unpickling code"),
        (["models:/rides/1"], 3, "There is no Trimtab project in"),
        (["models:/rides/1", "--dir", "new"], 3, "There is no Trimtab project in new"),
        (["models:/rides/3", "--dir", "home"], 3, "Version 3 of the model 'rides'"),
        (["models:/ride/1", "--dir", "home"], 3, "Did you mean 'rides'?"),
        (["models:/rides@slow", "--dir", "home"], 3, "'slow'"),
        (["models:/rides", "--dir", "home"], 2, "no address of a model"),
        (["s3://bucket/model", "--dir", "home"], 2, "no address of a model"),
        (["runs:/" + "0" * 32 + "/model", "--dir", "home"], 3, "0" * 32),
        (["walks", "--name", "a b", "--dir", "home"], 2, "'a b' cannot be the name"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_left_behind(
    trimtab: Trimtab,
    tmp_path: Path,
    home: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "walks").symlink_to(model)
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "MLmodel").write_text(
        "flavors: {python_function: {loader_module: mlflow.sklearn}}\n"
    )
    trimtab("serve", *words, "--port", "0").failed(status, told)
    with Workspace.open(home) as workspace:
        assert Endpoints(workspace).list() == []
    assert not (tmp_path / "new").exists()


def test_a_port_that_is_taken_is_told_before_anything_is_changed(
    trimtab: Trimtab, home: Path, model: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        trimtab("serve", model, "--dir", home, "--port", port).failed(4, f"127.0.0.1:{port}", "--port")
    with Workspace.open(home) as workspace:
        assert Endpoints(workspace).list() == []


def test_beyond_this_machine_a_token_is_needed(trimtab: Trimtab, tmp_path: Path, model: Path) -> None:
    trimtab("serve", model, "--dir", tmp_path / "made", "--host", "0.0.0.0", "--port", "0").failed(4, "token")
    assert not (tmp_path / "made" / FILE_NAME).exists()


def test_what_is_deployed_or_deleted_meanwhile_is_taken_up_and_no_prediction_is_lost(
    trimtab: Trimtab, tmp_path: Path, home: Path
) -> None:
    with Serving(tmp_path, "models:/rides/1", "--dir", home) as serving, serving.client() as client:
        trimtab("endpoint", "deploy", "rides", "--model", "rides", "--alias", "fast", "--dir", home)
        predict = "/v1/endpoints/rides/predict"
        until(lambda: client.post(predict, json={"row": ROW}).json()["version"] == "2")
        trimtab("endpoint", "delete", "rides", "--dir", home)
        until(lambda: client.post(predict, json={"row": ROW}).status_code == 404)
        asked = client.get("/v1/status").json()["log"]["predictions"]
        assert client.post("/invocations", json={"instances": [ROW]}).status_code == 404
        assert serving.stop() == 0
    with Workspace.open(home) as workspace:
        assert Outcomes(workspace).counts("rides")[0] == asked > 1
