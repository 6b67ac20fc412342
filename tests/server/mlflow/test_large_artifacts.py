"""Large files through a server process: what they cost it, and what survives its death."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from trimtab.workspace import Workspace

MIB = 2**20
PART = 16 * MIB


class ServerProcess:
    """`trimtab`'s server role, in a process of its own."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.start()

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        command = [sys.executable, "-m", "trimtab.server.roles", "server", "--dir", str(self.project)]
        ports = ["--host", "127.0.0.1", "--port", str(self.port), "--gateway-port", "0"]
        self.process = subprocess.Popen([*command, *ports])
        for _ in range(1000):
            try:
                self.ask("GET", "/health")
            except ConnectionError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError(self.port)

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of one request; the path goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            connection.request(method, path, body=data, headers=headers or {})  # type: ignore[arg-type]
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def digest(self, path: str) -> tuple[int, str]:
        """Size and digest of what is downloaded, which is not held."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        hasher, size = hashlib.blake2b(), 0
        while chunk := answer.read(MIB):
            hasher.update(chunk)
            size += len(chunk)
        connection.close()
        return size, hasher.hexdigest()

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def memory(self, name: str = "VmHWM") -> int:
        """Bytes that the process has had in memory at the most; "VmRSS" for what it has now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(name)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


@pytest.fixture
def server_process(tmp_path: Path) -> Iterator[ServerProcess]:
    Workspace.create(tmp_path / "project").close()
    process = ServerProcess(tmp_path / "project")
    yield process
    process.stop()


@pytest.fixture
def run_id(server_process: ServerProcess) -> str:
    made: str = MlflowClient(f"http://127.0.0.1:{server_process.port}").create_run("0").info.run_id
    return made


class Pieces:
    """A large file that is never whole: `count` pieces of a MiB, no two alike."""

    def __init__(self, count: int) -> None:
        self.size = count * MIB
        self.hasher = hashlib.blake2b()
        self._count = count
        self._seed = hashlib.shake_128(b"large").digest(MIB - 8)

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._count):
            piece = number.to_bytes(8, "big") + self._seed
            self.hasher.update(piece)
            yield piece


def send_whole(server: ServerProcess, run_id: str, count: int) -> tuple[str, str]:
    """PUT a file; answers its path and its digest."""
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/whole.bin"
    pieces = Pieces(count)
    status, _, _ = server.ask("PUT", path, iter(pieces), {"Content-Length": str(pieces.size)})
    assert status == 200
    return path, pieces.hasher.hexdigest()


def send_parts(server: ServerProcess, run_id: str, count: int) -> tuple[str, str]:
    """Send a file in parts; answers its path and its digest."""
    folder = f"0/{run_id}/artifacts"
    number_of_parts = -(-count * MIB // PART)
    created = json.loads(
        server.ask(
            "POST",
            f"/api/2.0/mlflow-artifacts/mpu/create/{folder}",
            {"path": "/data/mine/parts.bin", "num_parts": number_of_parts},
        )[1]
    )
    pieces = Pieces(count)
    source = iter(pieces)
    parts = []
    for each in created["credentials"]:
        body = b"".join(itertools.islice(source, PART // MIB))
        status, _, headers = server.ask("PUT", urlsplit(each["url"]).path, body)
        assert status == 200
        parts.append({"part_number": each["part_number"], "etag": headers["etag"], "url": each["url"]})
    told = {"path": "/data/mine/parts.bin", "upload_id": created["upload_id"], "parts": parts}
    assert server.ask("POST", f"/api/2.0/mlflow-artifacts/mpu/complete/{folder}", told)[0] == 200
    return f"/api/2.0/mlflow-artifacts/artifacts/{folder}/parts.bin", pieces.hasher.hexdigest()


def test_a_large_file_costs_the_server_no_memory(server_process: ServerProcess, run_id: str) -> None:
    send_whole(server_process, run_id, 8)  # what the first request loads is not what is measured
    before = server_process.memory("VmRSS")
    server_process.forget_peak()
    path, digest = send_whole(server_process, run_id, 300)
    assert server_process.digest(path) == (300 * MIB, digest)
    path, digest = send_parts(server_process, run_id, 96)
    assert server_process.digest(path) == (96 * MIB, digest)
    assert server_process.memory() - before < 60 * MIB


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("send", [send_whole, send_parts])
def test_five_gigabytes_pass_through_less_than_300_megabytes(
    server_process: ServerProcess, run_id: str, send: Callable[[ServerProcess, str, int], tuple[str, str]]
) -> None:
    started = time.perf_counter()
    path, digest = send(server_process, run_id, 5 * 1024)
    sent = time.perf_counter()
    up = server_process.memory()
    assert server_process.digest(path) == (5 * 1024 * MIB, digest)
    fetched = time.perf_counter()
    down = server_process.memory()
    print(
        f"\n5 GiB up in {sent - started:.1f} s (peak {up / MIB:.0f} MiB), "
        f"down in {fetched - sent:.1f} s (peak {down / MIB:.0f} MiB)"
    )
    assert down < 300 * 10**6
