"""A gateway and a model that only its own code can load: beside each other, and never in one process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tests.serving.apart_models import save_doubling, serve
from tests.serving.running_gateway import RunningGateway, until
from tests.serving.tiny_models import ROW, write_model

from trimtab.workspace import Workspace

pytest.importorskip("pandas", reason="the extra pyfunc is not installed")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("confined")
    save_doubling(home / "doubling")
    write_model(home / "tiny", 1)
    with Workspace.create(home / "project") as workspace:
        serve(workspace, "doubling", home / "doubling")
        serve(workspace, "forbidden", home / "doubling")
        serve(workspace, "tiny", home / "tiny")
    return home / "project"


@pytest.fixture(scope="module")
def gateway(project: Path) -> Iterator[RunningGateway]:
    (project / "trimtab.toml").write_text('confined_models = ["doub*"]\nconfined_timeout_ms = 60000\n')
    with RunningGateway(project) as running:
        running.until_ready()
        with running.client() as client:
            until(lambda: ask(client).status_code == 200)
        yield running


def ask(client: httpx.Client, x: float = 4.0) -> httpx.Response:
    return client.post("/v1/endpoints/doubling/predict", json={"row": {"x": x, "word": "four"}})


def children(gateway: RunningGateway) -> list[psutil.Process]:
    (worker,) = gateway.children("worker")
    return [each for each in worker.children() if "trimtab.models.confined.child" in each.cmdline()]


def test_it_is_answered_by_every_protocol(gateway: RunningGateway) -> None:
    with gateway.client() as client:
        assert ask(client).json()["predictions"] == [12.0]
        inputs = [
            {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]},
            {"name": "word", "shape": [2], "datatype": "BYTES", "data": ["a", "bb"]},
        ]
        told = client.post("/v2/models/doubling/infer", json={"inputs": inputs})
        assert told.json()["outputs"][0]["data"] == [3.0, 6.0]
        assert client.get("/v2/models/doubling").json()["inputs"][1]["datatype"] == "BYTES"
        assert client.get("/v1/endpoints/doubling/openapi.json").status_code == 200
        assert client.post("/v1/endpoints/doubling/predict", json={"row": {"x": "no"}}).status_code == 422


def test_another_name_for_the_same_pickle_is_refused_with_the_setting(gateway: RunningGateway) -> None:
    with gateway.client() as client:
        told = client.post("/v1/endpoints/forbidden/predict", json={"row": {"x": 1.0, "word": "a"}})
        assert told.status_code == 503
        assert "confined_models" in told.text


def test_the_gateway_loads_neither_pandas_nor_mlflow(gateway: RunningGateway) -> None:
    (worker,) = gateway.children("worker")
    (child,) = children(gateway)
    assert any("/pandas/" in file.path for file in child.memory_maps())
    assert not any("/pandas/" in file.path or "/sklearn/" in file.path for file in worker.memory_maps())


def test_its_death_costs_no_other_model_an_answer_and_it_comes_back(gateway: RunningGateway) -> None:
    (before,) = children(gateway)
    stop, wrong = threading.Event(), list[str]()

    def others() -> None:
        with gateway.client() as client:
            while not stop.is_set():
                told = client.post("/v1/endpoints/tiny/predict", json={"row": ROW})
                if told.status_code != 200:
                    wrong.append(told.text)

    thread = threading.Thread(target=others)
    thread.start()
    before.send_signal(signal.SIGKILL)
    with gateway.client() as client:
        statuses = list[int]()

        def answered() -> bool:
            statuses.append(ask(client).status_code)
            return statuses[-1] == 200

        until(answered)
    stop.set()
    thread.join()
    assert not wrong
    assert set(statuses) <= {200, 500, 503}
    assert children(gateway)[0].pid != before.pid


def test_64_callers_get_their_own_rows(gateway: RunningGateway) -> None:
    said: dict[int, object] = {}

    def one(number: int) -> None:
        with gateway.client() as client:
            said[number] = ask(client, float(number)).json()["predictions"]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {number: [2.0 * number + 4] for number in range(64)}


def test_a_killed_gateway_takes_it_along(gateway: RunningGateway) -> None:
    (child,) = children(gateway)
    gateway.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
