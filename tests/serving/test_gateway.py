from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import select
from tests.processes import alive
from tests.serving.conftest import ENDPOINT, Served
from tests.serving.running_gateway import RunningGateway, until
from tests.serving.tiny_models import ROW, version_of

from trimtab.clock import parse_time
from trimtab.config import FILE_NAME, STATE_FOLDER
from trimtab.monitoring.alerts import Alerts
from trimtab.monitoring.outcomes import Outcomes
from trimtab.serving.access import Tokens
from trimtab.serving.last_known import FILE_NAME as LAST_KNOWN
from trimtab.serving.routes import Arm, Route
from trimtab.serving.schema import log_segments_table as log_segments
from trimtab.serving.segments import FOLDER, segments
from trimtab.serving.shipping import ship_all
from trimtab.store.replay import advance_replay, start_replay
from trimtab.testing.postgres import PostgresServer
from trimtab.workspace import Workspace

PREDICT = f"/v1/endpoints/{ENDPOINT}/predict"
FEEDBACK = f"/v1/endpoints/{ENDPOINT}/feedback"
CLIENTS = 3
BODY = json.dumps({"row": ROW})


def predicted(client: httpx.Client, **more: Any) -> dict[str, Any]:
    """One answered prediction."""
    response = client.post(PREDICT, json={"row": ROW, **more})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def logged(served: Served) -> list[str]:
    """The ids in the table of predictions, once everything is shipped."""
    ship_all(served.workspace)
    ids: list[str] = served.workspace.tables.read(f"predictions/{ENDPOINT}")["id"].to_list()
    return ids


class Load:
    """Clients that ask without pause and note every answer; errors too, unless the server was killed."""

    def __init__(self, url: str) -> None:
        self.ids: list[str] = []
        self.versions: list[int] = []
        self.errors: list[str] = []
        self._address = url.removeprefix("http://")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", PREDICT, BODY)
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection.close()
                time.sleep(0.01)
                continue
            if response.status == 200:
                self.ids.extend(answer["ids"])
                self.versions.append(version_of(answer["predictions"][0]))
            else:
                self.errors.append(f"{response.status} {answer}")
        connection.close()


def test_a_gateway_is_ready_without_any_endpoint_and_hears_of_new_ones(
    tmp_path: Path, model_folders: dict[int, Path]
) -> None:
    with (
        Workspace.create(tmp_path / "project") as workspace,
        RunningGateway(workspace.project) as running,
        running.until_ready().client() as client,
    ):
        assert client.post(PREDICT, json={"row": ROW}).status_code == 404
        Served(workspace, model_folders)
        until(lambda: client.post(PREDICT, json={"row": ROW}).status_code == 200)
        live = workspace.instances.live
        until(lambda: [each.detail["routes"] for each in live("gateway")] == [{ENDPOINT: 1}])
        until(lambda: len(live("shipper")) == 1)
        assert running.stop() == 0
        assert live() == []


def test_a_version_is_swapped_under_load_without_one_error(served: Served) -> None:
    with RunningGateway(served.project) as running:
        running.until_ready()
        with Load(running.url) as load:
            for version in (2, 1, 3, 2):
                served.single(version)
                until(lambda v=version: load.versions[-1:] == [v])  # type: ignore[misc]
        assert load.errors == []
        assert set(load.versions) == {1, 2, 3}
    assert sorted(logged(served)) == sorted(load.ids)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_gateway_loses_no_acknowledged_prediction(served: Served, workers: int) -> None:
    acknowledged: list[str] = []
    for _ in range(2):
        with RunningGateway(served.project, workers=workers) as running:
            running.until_ready()
            with Load(running.url) as load:
                until(lambda: len(load.ids) > 200)
                for name in ("shipper", "worker"):
                    running.kill_children(name)
                    before = len(load.ids)
                    until(lambda b=before: len(load.ids) > b + 100)  # type: ignore[misc]
                running.kill()
            acknowledged += load.ids
    found = logged(served)
    assert len(set(found)) == len(found)
    assert set(acknowledged) <= set(found)
    # What was logged but answered to nobody, since the kill came first: one request of each client a kill.
    assert len(found) - len(acknowledged) <= 2 * 2 * CLIENTS
    assert Outcomes(served.workspace).counts(ENDPOINT)[0] == len(found)


def test_a_gateway_that_is_stopped_under_load_answers_what_it_took(served: Served) -> None:
    with RunningGateway(served.project) as running:
        running.until_ready()
        with Load(running.url) as load:
            until(lambda: len(load.ids) > 200)
            assert running.stop() == 0
    assert [error for error in load.errors if error[0].isdigit() or "IncompleteRead" in error] == []
    assert sorted(logged(served)) == sorted(load.ids)


def test_workers_are_replaced_under_load_without_one_refusal(served: Served) -> None:
    with RunningGateway(served.project, workers=2) as running:
        running.until_ready()
        before = {child.pid for child in running.children("worker")}
        with Load(running.url) as load:
            until(lambda: len(load.ids) > 50)
            running.process.send_signal(signal.SIGHUP)
            until(lambda: not before & {child.pid for child in running.children("worker")})
            told = len(load.ids)
            until(lambda: len(load.ids) > told + 50)
        assert len(running.children("worker")) == 2
    assert [error for error in load.errors if error[0].isdigit() or "IncompleteRead" in error] == []
    assert sorted(logged(served)) == sorted(load.ids)


def test_workers_stay_where_those_that_are_to_follow_cannot_begin(served: Served) -> None:
    settings = served.project / FILE_NAME
    good = settings.read_text()
    with RunningGateway(served.project, workers=2) as running:
        running.until_ready()
        until(lambda: len(served.workspace.instances.live("gateway")) == 2)  # both have read their settings
        before = {child.pid for child in running.children("worker")}
        with Load(running.url) as load:
            settings.write_text("[ this is no setting")
            running.process.send_signal(signal.SIGHUP)
            until(lambda: "those that run stay" in running.output())
            assert {child.pid for child in running.children("worker")} == before
            settings.write_text(good)
            running.process.send_signal(signal.SIGHUP)
            until(lambda: "all workers were replaced" in running.output())
            told = len(load.ids)
            until(lambda: len(load.ids) > told + 50)
        assert not before & {child.pid for child in running.children("worker")}
    assert [error for error in load.errors if error[0].isdigit() or "IncompleteRead" in error] == []


def test_a_worker_answers_until_the_one_that_follows_knows_its_routes(served: Served) -> None:
    root, away = served.project / STATE_FOLDER, served.project / "away"
    away.mkdir()
    with RunningGateway(served.project) as running:
        running.until_ready()
        before = {child.pid for child in running.children("worker")}
        with Load(running.url) as load:
            until(lambda: len(load.ids) > 50)
            hidden = [*sorted(root.glob("metadata.db*")), root / FOLDER / LAST_KNOWN]
            for path in hidden:
                path.rename(away / path.name)
            hidden[0].mkdir()  # or else somebody makes an empty one
            running.process.send_signal(signal.SIGHUP)
            until(lambda: len(running.children("worker")) == 2)
            time.sleep(4)  # longer than anybody waits for a worker that starts
            assert before < {child.pid for child in running.children("worker")}
            hidden[0].rmdir()
            for path in hidden:
                (away / path.name).rename(path)
            until(lambda: "all workers were replaced" in running.output())
            told = len(load.ids)
            until(lambda: len(load.ids) > told + 50)
    assert [error for error in load.errors if error[0].isdigit() or "IncompleteRead" in error] == []


def test_a_gateway_that_knows_no_routes_yet_says_so_and_answers_once_it_does(served: Served) -> None:
    database = served.project / STATE_FOLDER / "metadata.db"
    aside = database.with_name("aside.db")
    served.workspace.close()
    database.rename(aside)
    database.mkdir()
    with RunningGateway(served.project) as running, running.client() as client:
        assert client.post(PREDICT, json={"row": ROW}).status_code == 503
        assert client.get("/health").json() == {"status": "starting"}
        database.rmdir()
        aside.rename(database)
        running.until_ready()
        predicted(client)


def test_who_comes_while_a_gateway_that_ends_still_ships_is_refused(served: Served) -> None:
    with RunningGateway(served.project) as running:
        running.until_ready()
        until(lambda: bool(running.children("shipper")))
        (shipper,) = running.children("shipper")
        shipper.suspend()
        try:
            running.process.send_signal(signal.SIGTERM)
            until(lambda: not running.children("worker"))
            port = httpx.URL(running.url).port
            assert port is not None
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            assert running.process.poll() is None
        finally:
            shipper.resume()
        assert running.stop() == 0


def test_workers_end_when_their_gateway_is_killed_alone(served: Served) -> None:
    with RunningGateway(served.project) as running:
        running.until_ready()
        until(lambda: bool(running.children("shipper")))
        children = [*running.children("worker"), *running.children("shipper")]
        assert len(children) == 2
        running.process.kill()
        until(lambda: not any(map(alive, children)))


def test_a_gateway_serves_logs_and_restarts_with_everything_else_dead_and_ships_once_afterwards(
    served: Served,
) -> None:
    root, away = served.project / ".trimtab", served.project / "away"
    away.mkdir()
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        ids = predicted(client)["ids"]
    served.workspace.close()
    dead = [path for path in root.iterdir() if path.name.startswith("metadata.db") or path.name == "blobs"]
    for path in dead:
        path.rename(away / path.name)
    for _ in range(2):
        with RunningGateway(served.project) as running, running.until_ready().client() as client:
            found = predicted(client)
            assert version_of(found["predictions"][0]) == 1
            assert client.post(FEEDBACK, json={"id": ids[0], "label": 5}).status_code == 202
            assert client.get("/v1/status").json()["store"] != "ok"
            ids += found["ids"]
    assert not (root / "metadata.db").exists()
    for path in dead:
        (away / path.name).rename(path)
    with Workspace.open(served.project) as workspace:
        ship_all(workspace)
        ship_all(workspace)
        assert sorted(workspace.tables.read(f"predictions/{ENDPOINT}")["id"]) == sorted(ids)
        assert Outcomes(workspace).counts(ENDPOINT) == (3, 1, 0)
        with workspace.read() as connection:
            assert connection.execute(select(log_segments.c.shipped_at)).scalars().all().count(None) == 0


@pytest.mark.usefixtures("postgres_server")
def test_a_gateway_serves_logs_and_restarts_while_its_postgres_hangs_and_ships_once_afterwards(
    tmp_path: Path, model_folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    with PostgresServer.start() as server, server.database() as url:
        monkeypatch.setenv("TRIMTAB_DATABASE", url)
        with Workspace.create(project) as workspace:
            Served(workspace, model_folders)
        with RunningGateway(project) as running, running.until_ready().client() as client:
            ids = predicted(client)["ids"]
            server_processes = _postgres(server.port)
            for process in server_processes:
                process.suspend()
            ids += predicted(client)["ids"]
            assert client.post(FEEDBACK, json={"id": ids[0], "label": 1}).status_code == 202
            running.kill()
        with RunningGateway(project) as running, running.until_ready().client() as client:
            ids += predicted(client)["ids"]
            assert client.get("/v1/status").json()["store"] != "ok"
            for process in server_processes:
                process.resume()
            until(lambda: client.get("/v1/status").json()["store"] == "ok")
            ids += predicted(client)["ids"]
            with Workspace.open(project) as workspace:
                ship_all(workspace)
                assert sorted(workspace.tables.read(f"predictions/{ENDPOINT}")["id"]) == sorted(ids)
                assert Outcomes(workspace).counts(ENDPOINT) == (4, 1, 0)


def _postgres(port: int) -> list[psutil.Process]:
    """The processes of the server on this port."""
    ours = psutil.Process().children(recursive=True)
    server = next(each for each in ours if each.name() == "postgres" and str(port) in each.cmdline())
    return [server, *server.children()]


def test_a_route_whose_model_is_missing_leaves_the_old_one_serving(served: Served) -> None:
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        missing = "b3:" + "0" * 64
        served.route(Route(model="rides-model", arms=(Arm(9, missing),)))
        until(lambda: ENDPOINT in client.get("/v1/status").json()["failures"])
        assert version_of(predicted(client)["predictions"][0]) == 1
        live = served.workspace.instances.live
        until(lambda: ENDPOINT in live("gateway")[0].detail["failures"])
        assert live("gateway")[0].detail["routes"] == {ENDPOINT: 1}
        served.single(2)
        until(lambda: version_of(predicted(client)["predictions"][0]) == 2)
        assert client.get("/v1/status").json()["failures"] == {}


def test_all_versions_score_every_request_and_keys_stay_with_their_version(served: Served) -> None:
    def canary(share: float) -> Route:
        arms = (
            Arm(1, served.digests[1], "primary", 100 - share),
            Arm(2, served.digests[2], "challenger", share),
            Arm(3, served.digests[3], "shadow", 0),
        )
        return Route(model="rides-model", arms=arms, salt="rollout")

    generation = served.route(canary(30))
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        keys = [f"k{number}" for number in range(300)]

        def answers() -> dict[str, int]:
            found = client.post(PREDICT, json={"rows": [ROW] * len(keys), "keys": keys}).json()
            versions = [int(version) for version in found["versions"]]
            assert [version_of(value) for value in found["predictions"]] == versions
            return dict(zip(keys, versions, strict=True))

        first = answers()
        assert answers() == first
        assert {int(predicted(client, key=key)["version"]) == first[key] for key in keys[:50]} == {True}
        assert 55 < list(first.values()).count(2) < 130
        generation = served.route(canary(70))
        until(lambda: client.get("/v1/status").json()["routes"][ENDPOINT] == generation)
        second = answers()
        assert {key for key in keys if first[key] == 2} <= {key for key in keys if second[key] == 2}
        assert 3 not in second.values()
        pinned = client.post(f"/v2/models/{ENDPOINT}/versions/3/infer", json={"inputs": [
            {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]},
            {"name": "season", "shape": [1], "datatype": "BYTES", "data": ["winter"]},
            {"name": "holiday", "shape": [1], "datatype": "BOOL", "data": [False]},
            {"name": "leak", "shape": [1], "datatype": "FP64", "data": [0.5]},
        ]})  # fmt: skip
        assert version_of(pinned.json()["outputs"][0]["data"][0]) == 3
    logged(served)
    rows = served.workspace.tables.read(f"predictions/{ENDPOINT}")
    for scores in rows["scores"]:
        assert {version: version_of(score) for version, score in json.loads(scores).items()} == {
            "1": 1,
            "2": 2,
            "3": 3,
        }
    assert set(rows["generation"]) == {2, 3}
    assert rows.filter(rows["leak"].is_not_null())["version"].to_list() == [3]


def test_feedback_joins_its_prediction_whether_it_was_shipped_or_not(served: Served) -> None:
    outcomes = Outcomes(served.workspace)
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        (early,), (late,) = predicted(client)["ids"], predicted(client, key="bike-7")["ids"]
        assert client.post(FEEDBACK, json={"id": early, "label": 1}).status_code == 202
        until(lambda: outcomes.counts(ENDPOINT) == (2, 1, 0))
        assert sorted(logged(served)) == sorted([early, late])
        client.post(FEEDBACK, json=[{"id": early, "label": 1}, {"key": "bike-7", "label": 2}])
        until(lambda: outcomes.counts(ENDPOINT) == (2, 2, 0))


@pytest.fixture
def faulty(served: Served) -> Iterator[tuple[Path, httpx.Client]]:
    """The file that fills the disk, and a client of a gateway on that disk."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        program = Path(__file__).with_name("faulty_worker.py")
        process = subprocess.Popen(
            [sys.executable, str(program), str(served.project), str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            until(lambda: client.get("/health").status_code == 200)
            yield served.project / "full", client
        process.terminate()
        process.wait(30)
        assert process.stdin is not None
        process.stdin.close()


def test_a_full_disk_refuses_what_cannot_be_logged_and_says_so(
    served: Served, faulty: tuple[Path, httpx.Client]
) -> None:
    full, client = faulty
    first = predicted(client)["ids"]
    full.touch()
    for path, body in ((PREDICT, {"row": ROW}), (FEEDBACK, {"id": first[0], "label": 1})):
        response = client.post(path, json=body)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert response.json()["error"]["code"] == "storage_full"
    assert client.get("/v1/status").json()["log"]["refused"] == 2
    assert client.get("/health").status_code == 200
    full.unlink()
    second = predicted(client)["ids"]
    assert client.get("/v1/status").json()["log"]["trouble"] == ""
    client.close()
    ids = []
    for segment in segments(served.project / ".trimtab" / FOLDER):  # one, unless it was asked for meanwhile
        assert segment.read().end == segment.size()
        ids += [id for frame in segment.read().frames if (id := getattr(frame, "id", None))]
    assert ids == [*first, *second]


def test_a_full_disk_costs_no_answer_where_dropping_is_chosen(
    served: Served, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("TRIMTAB_LOG_FULL", "drop")
    full, client = request.getfixturevalue("faulty")
    full.touch()
    (id,) = predicted(client)["ids"]
    assert client.post(FEEDBACK, json={"id": id, "label": 1}).status_code == 503
    log = client.get("/v1/status").json()["log"]
    assert (log["dropped"], log["refused"]) == (1, 1)
    assert "no space left" in log["trouble"].lower()
    until(lambda: bool(Alerts(served.workspace).alerts("gateway", only_open=True)))
    (alert,) = Alerts(served.workspace).alerts("gateway")
    assert "not logged" in alert.reason


def test_binding_beyond_loopback_without_a_token_is_refused(served: Served) -> None:
    command = [sys.executable, "-m", "trimtab.serving.gateway", str(served.project), "0.0.0.0", "0"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert "trimtab token create" in found.stderr
    assert "Traceback" not in found.stderr


def test_beyond_loopback_every_route_but_health_wants_the_token(served: Served) -> None:
    token = Tokens(served.workspace).create("ann")
    routes = [
        ("POST", PREDICT), ("POST", FEEDBACK), ("GET", "/v1/endpoints"), ("GET", f"/v1/endpoints/{ENDPOINT}"),
        ("GET", "/v1/status"), ("GET", "/v2"), ("GET", f"/v2/models/{ENDPOINT}"),
        ("GET", f"/v2/models/{ENDPOINT}/ready"), ("POST", f"/v2/models/{ENDPOINT}/infer"),
        ("POST", "/invocations"), ("POST", f"/endpoints/{ENDPOINT}/invocations"), ("GET", "/version"),
        ("GET", "/v1/models"), ("GET", f"/v1/models/{ENDPOINT}"), ("POST", f"/v1/models/{ENDPOINT}:predict"),
        ("GET", "/openapi.json"), ("GET", f"/v1/endpoints/{ENDPOINT}/docs"),
        ("GET", "/nothing"), ("DELETE", "/health/x"), ("GET", "/%2Fhealth"), ("GET", "/health/"),
    ]  # fmt: skip
    with RunningGateway(served.project, host="0.0.0.0") as running, running.until_ready().client() as client:
        for method, path in routes:
            for headers in ({}, {"authorization": "Bearer wrong"}):
                response = client.request(method, path, headers=headers)
                assert (path, response.status_code) == (path, 401)
                assert response.headers["www-authenticate"] == "Bearer"
            assert (
                client.request(method, path, headers={"authorization": f"Bearer {token}"}).status_code != 401
            )
        for path in ("/", "/ping", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        Tokens(served.workspace).revoke("ann")
        until(lambda: client.get("/v2", headers={"authorization": f"Bearer {token}"}).status_code == 401)


def test_in_a_replay_requests_carry_their_event_time_and_shippers_acknowledge_what_they_indexed(
    served: Served,
) -> None:
    workspace = served.workspace
    start = parse_time("2011-09-01T00:00:00Z")
    workspace.write(lambda tx: start_replay(tx, start))
    outcomes = Outcomes(workspace)
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        live = workspace.instances.live
        until(lambda: bool(live("shipper")) and client.get("/v1/status").status_code == 200)
        for day in range(1, 8):
            at = f"2011-09-{day:02}T05:00:00Z"
            (id,) = client.post(PREDICT, json={"row": ROW}, headers={"Trimtab-Event-Time": at}).json()["ids"]
            client.post(FEEDBACK, json={"id": id, "label": day}, headers={"Trimtab-Event-Time": at})
            to = parse_time(f"2011-09-{day:02}T06:00:00Z")
            generation = workspace.write(partial(advance_replay, to=to))
            until(lambda g=generation: live("shipper")[0].acknowledged == g)  # type: ignore[misc]
            assert outcomes.counts(ENDPOINT) == (day, day, 0)
            assert outcomes.joined(ENDPOINT, start, to).label.tolist() == list(range(1, day + 1))
        refused = client.post(PREDICT, json={"row": ROW}, headers={"Trimtab-Event-Time": "yesterday"})
        assert refused.status_code == 400
    logged(served)
    table = workspace.tables.read(f"predictions/{ENDPOINT}")
    assert [at.day for at in table["at"]] == list(range(1, 8))
