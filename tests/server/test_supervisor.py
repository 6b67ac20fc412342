"""`trimtab up`: four roles, restarted when they die, ended with their supervisor, alone on their folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.processes import alive

from trimtab.errors import RefusedError
from trimtab.server.supervisor import ROLES, Address, RoleProcess, answers
from trimtab.workspace import Workspace

PATIENCE = 60.0


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def project(tmp_path: Path) -> Path:
    Workspace.create(tmp_path).close()
    return tmp_path


class Up:
    """A running `trimtab up`."""

    def __init__(self, project: Path) -> None:
        self.address = Address.unused()
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "trimtab.cli", "up", "--dir", str(project),
                "--port", str(self.address.port), "--gateway-port", str(self.address.gateway_port),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    def ready(self) -> bool:
        return eventually(
            lambda: (
                answers(f"{self.address.url('server')}/health")
                and answers(f"{self.address.url('gateway')}/health")
            )
        )

    def role(self, name: str) -> psutil.Process | None:
        marks = {"gateway": "trimtab.serving.supervision"}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it just ended
                if marks.get(name, name) in child.cmdline():
                    return child
        return None


@pytest.fixture
def up(project: Path) -> Iterator[Up]:
    running = Up(project)
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(PATIENCE)
    assert running.process.stdout is not None
    running.process.stdout.close()


def test_all_roles_come_up_and_sigterm_ends_them_cleanly(up: Up) -> None:
    assert up.ready()
    below = psutil.Process(up.process.pid).children(recursive=True)
    assert all(up.role(name) is not None for name in ROLES)
    up.process.terminate()
    assert up.process.wait(PATIENCE) == 0
    assert eventually(lambda: not any(map(alive, below)))


@pytest.mark.parametrize("name", ROLES)
def test_a_role_that_is_killed_comes_back(up: Up, name: str) -> None:
    assert up.ready()
    assert eventually(lambda: up.role(name) is not None)
    killed = up.role(name)
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    assert eventually(lambda: (found := up.role(name)) is not None and found.pid != killed.pid)
    assert up.ready()


def test_the_roles_end_when_the_supervisor_is_killed(up: Up) -> None:
    assert up.ready()
    below = psutil.Process(up.process.pid).children(recursive=True)
    assert len(below) >= len(ROLES)
    up.process.kill()
    assert eventually(lambda: not any(map(alive, below)))


def test_a_second_supervisor_on_one_folder_is_refused(up: Up, project: Path) -> None:
    assert up.ready()
    second = Up(project)
    output, _ = second.process.communicate(timeout=PATIENCE)
    assert second.process.returncode == 4
    assert f"already running on this folder (process {up.process.pid})" in output
    assert "Traceback" not in output
    assert up.process.poll() is None


@pytest.mark.parametrize("option", ["--port", "--gateway-port"])
def test_a_port_that_somebody_else_has_is_refused_before_anything_starts(project: Path, option: str) -> None:
    with socket.socket() as taken, socket.socket() as other:
        # As a server would that is ready to share its port.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other.bind(("127.0.0.1", 0))
        ports = {"--port": other.getsockname()[1], "--gateway-port": other.getsockname()[1]}
        ports[option] = taken.getsockname()[1]
        other.close()
        refused = subprocess.run(
            [
                *(sys.executable, "-m", "trimtab.cli", "up", "--dir", str(project)),
                *(word for name, port in ports.items() for word in (name, str(port))),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert refused.returncode == 4, refused.stderr
    assert f"another port with {option}" in refused.stderr
    assert "Ready" not in refused.stdout


def test_two_servers_never_share_a_port(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Workspace.create(other).close()
    address = Address.unused()
    command = [
        *(sys.executable, "-m", "trimtab.server.roles", "server", "--host", "127.0.0.1"),
        *("--port", str(address.port), "--gateway-port", str(address.gateway_port)),
    ]
    with subprocess.Popen([*command, "--dir", str(project)], stderr=subprocess.DEVNULL) as first:
        try:
            assert eventually(lambda: answers(f"{address.url('server')}/health"))
            second = subprocess.run(
                [*command, "--dir", str(other)], capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        finally:
            first.terminate()
    assert first.returncode == 0
    assert second.returncode == 2
    assert "cannot listen" in second.stderr


def test_an_address_beyond_loopback_is_refused_without_a_token(project: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", "up", "--dir", str(project), "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert refused.returncode == 4
    assert "token" in refused.stderr
    assert "Traceback" not in refused.stderr


SAYS = "import sys, time; print('{words}', flush=True); {then}"


def role(log: Path, words: str, then: str) -> RoleProcess:
    return RoleProcess("worker", [sys.executable, "-c", SAYS.format(words=words, then=then)], log)


def test_a_role_that_never_could_work_ends_all_and_one_that_worked_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = role(tmp_path / "new.log", "no such setting", "sys.exit(2)")
    with pytest.raises(RefusedError, match="cannot start: no such setting"):
        eventually(lambda: bool(new.tend()))
    monkeypatch.setattr("trimtab.server.supervisor.STEADY_SECONDS", 0.0)
    worked = role(tmp_path / "worked.log", "no such setting", "time.sleep(0.5); sys.exit(2)")
    said: list[str | None] = []

    def tended() -> bool:
        said.append(worked.tend())
        return said[-1] is not None

    assert eventually(tended)
    assert said[-1] == "worker cannot start and is tried again later: no such setting"


def test_a_roles_log_is_kept_below_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.server.supervisor.LARGEST_LOG", 1000)
    monkeypatch.setattr("trimtab.server.supervisor.TRIM_SECONDS", 0.0)
    log = tmp_path / "worker.log"
    noisy = role(log, "x" * 2000, "time.sleep(0.3); print('later', flush=True); time.sleep(60)")
    try:
        assert eventually(lambda: (noisy.tend(), log.with_suffix(".log.1").exists())[1])
        assert eventually(lambda: log.read_text() == "later\n")
        assert log.with_suffix(".log.1").read_text().startswith("xxx")
    finally:
        noisy.stop()
        noisy.wait(time.monotonic() + PATIENCE)
