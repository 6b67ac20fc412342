"""No way in which a server ends, and nobody who shares its store, takes away what was answered."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.server.mlflow_durability.ledger import Load
from tests.server.mlflow_durability.server_role import Client, ServerRole, serving

from trimtab.config import Settings
from trimtab.workspace import Workspace


def make(project: Path, database: str | None = None) -> Path:
    Workspace.create(project, Settings(database=database)).close()
    return project


@pytest.mark.parametrize(("store", "kills"), [("sqlite", 10), ("postgres", 3)])
def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(
    store: str, kills: int, tmp_path: Path, free_port: int, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if store == "postgres" else None
    project = make(tmp_path / "project", url)
    chance = random.Random(7)
    server = ServerRole(project, free_port)
    try:
        with Load(free_port, clients=6) as load:
            for _ in range(kills):
                load.wait_for(chance.randint(20, 60))
                server.kill()
                server = ServerRole(project, free_port)
            load.wait_for(20)
        with Client(free_port) as client:
            load.check(client)
    finally:
        server.kill()
    with Workspace.open(project) as workspace, workspace.read() as connection:
        if store == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_fifty_clients_at_once_lose_nothing(
    store: str, tmp_path: Path, free_port: int, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if store == "postgres" else None
    project = make(tmp_path / "project", url)
    with serving(project, free_port) as client:
        with Load(free_port, clients=50) as load:
            load.wait_for(1500)
        load.check(client)


def test_two_servers_on_one_sqlite_file_lose_nothing(tmp_path: Path, free_port: int) -> None:
    project = make(tmp_path / "project")
    with ServerRole(project, free_port), ServerRole(project, _another(free_port)) as second:
        with Load(free_port, clients=5) as here, Load(second.port, clients=5) as there:
            here.wait_for(150)
            there.wait_for(150)
        with Client(free_port) as client, Client(second.port) as other:
            for ledger in there.ledgers:
                ledger.check(client)
            for ledger in here.ledgers:
                ledger.check(other)


def test_what_one_server_answered_the_other_knows_at_once(tmp_path: Path, free_port: int) -> None:
    project = make(tmp_path / "project")
    with (
        ServerRole(project, free_port),
        ServerRole(project, _another(free_port)) as second,
        Client(free_port) as client,
        Client(second.port) as other,
    ):
        run = client.create_run()
        for step in range(40):
            writer, reader = (client, other) if step % 2 else (other, client)
            logged = writer.post("runs/log-metric", run_id=run, key="a", value=step, timestamp=1, step=step)
            assert logged[0] == 200
            assert reader.history(run, "a")[-1] == (step, step)


def test_a_full_disk_is_told_in_mlflows_words_and_leaves_nothing_by_halves(
    tmp_path: Path, free_port: int
) -> None:
    """A limit on the size of files stands for the disk: whoever writes beyond it gets an error, as there."""
    project = make(tmp_path / "project")
    with ServerRole(project, free_port) as server, Client(free_port) as client:
        run = client.create_run()
        process = psutil.Process(server.process.pid)
        free = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (200_000, free[1]))
        refused = _log_until_refused(client, run)
        process.rlimit(psutil.RLIMIT_FSIZE, free)
        _check_refused(client, run, *refused)


def test_a_full_file_system_is_told_in_mlflows_words_and_leaves_nothing_by_halves(
    small_disk: Path, free_port: int
) -> None:
    project = make(small_disk / "project")
    with serving(project, free_port) as client:
        run = client.create_run()
        filler = small_disk / "filler"
        room = psutil.disk_usage(str(small_disk)).free
        filler.write_bytes(bytes(max(room - 300_000, 0)))
        refused = _log_until_refused(client, run)
        place = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/large.bin"
        status, answer = client.ask("PUT", place, bytes(1_000_000))
        assert (status, answer["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        filler.unlink()
        _check_refused(client, run, *refused)
        assert client.ask("PUT", place, bytes(1_000_000))[0] == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a file system; the limit on files stands for it in the test above")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def _log_until_refused(client: Client, run: str) -> tuple[int, int]:
    """Log batches until three were refused; the numbers of those that were answered and of those tried."""
    answered, tried, refused = [], 0, 0
    while refused < 3:
        assert tried < 500, "the disk does not fill"
        status, answer = client.post("runs/log-batch", run_id=run, **_batch(tried))
        if status == 200:
            answered.append(tried)
        else:
            refused += 1
            assert (status, answer["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE"), answer
            assert answer["message"]
        tried += 1
    _holds(client, run, answered, tried)  # reading goes on
    return len(answered), tried


def _check_refused(client: Client, run: str, answered: int, tried: int) -> None:
    """With room again the server goes on by itself, and the refused batches are as if never sent."""
    status, answer = client.post("runs/log-batch", run_id=run, **_batch(tried))
    assert status == 200, answer
    steps = {step for step, _ in client.history(run, "loss")}
    batches = {step // 50 for step in steps}
    assert len(steps) == 50 * len(batches)
    assert tried in batches
    assert len(batches) == answered + 1


def _holds(client: Client, run: str, answered: list[int], tried: int) -> None:
    steps = {step for step, _ in client.history(run, "loss")}
    assert steps == {50 * number + place for number in answered for place in range(50)}, tried
    params = client.get(f"runs/get?run_id={run}")["run"]["data"].get("params", [])
    assert {param["key"] for param in params} == {f"param-{number}" for number in answered}


def _batch(number: int) -> dict[str, object]:
    steps = range(50 * number, 50 * (number + 1))
    return {
        "metrics": [{"key": "loss", "value": step, "timestamp": 1, "step": step} for step in steps],
        "params": [{"key": f"param-{number}", "value": "x" * 4000}],
    }


def _another(port: int) -> int:
    """A free port that is not this one."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found = int(probe.getsockname()[1])
        if found != port:
            return found
