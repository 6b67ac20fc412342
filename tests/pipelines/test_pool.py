"""Children of the fork server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from trimtab.errors import UnavailableError
from trimtab.pipelines.channel import Channel
from trimtab.pipelines.pool import Child, Ended, Pool

HERE = __name__


def answer(channel: Channel, body: bytes, _server: socket.socket | None) -> None:
    channel.send(body[::-1])
    channel.send(str(os.getpid()).encode())


def talk(_channel: Channel, _body: bytes, _server: socket.socket | None) -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    subprocess.run(["echo", "from a child's child"], check=True)
    sys.exit(3)


def hang(channel: Channel, _body: bytes, _server: socket.socket | None) -> None:
    started = subprocess.Popen(["sleep", "1000"])
    channel.send(str(started.pid).encode())
    time.sleep(1000)


def have_children(channel: Channel, body: bytes, server: socket.socket | None) -> None:
    assert server is not None
    with Pool(server) as pool:
        pool.spawn(f"{HERE}:hang", b"", log=Path(os.devnull))
        ((_, message),) = events(pool, 1)
        assert isinstance(message, bytes)
        channel.send(message)
        if body == b"stay":
            time.sleep(1000)


def dice(channel: Channel, _body: bytes, _server: socket.socket | None) -> None:
    import random

    import numpy as np

    channel.send(f"{random.random()} {np.random.random()}".encode())  # noqa: NPY002  (the old generator is meant)


def events(pool: Pool, count: int) -> list[tuple[Child, bytes | Ended]]:
    found: list[tuple[Child, bytes | Ended]] = []
    while len(found) < count:
        found.extend(pool.wait(None))
    return found


def gone(pid: int) -> bool:
    """Whether a process ends within a while."""
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool.start() as started:
        started.preload(["numpy.random", "psutil", "pytest", "trimtab.pipelines.pool"])
        yield started


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the children find this module."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


def test_a_child_answers_and_its_end_comes_last(pool: Pool, tmp_path: Path) -> None:
    child = pool.spawn(f"{HERE}:answer", b"abc" * 100_000, log=tmp_path / "log")
    (_, text), (_, pid), (_, ended) = events(pool, 3)
    assert text == b"cba" * 100_000
    assert pid == str(child.pid).encode()
    assert ended == Ended(0, None)


def test_what_a_child_prints_goes_to_its_log(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    pool.spawn(f"{HERE}:talk", b"", log=tmp_path / "log")
    ((_, ended),) = events(pool, 1)
    assert ended == Ended(3, None)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["before", "to stdout", "to stderr", "from a child's child"]


def test_killing_a_child_kills_its_descendants(pool: Pool, tmp_path: Path) -> None:
    child = pool.spawn(f"{HERE}:hang", b"", log=tmp_path / "log")
    ((_, message),) = events(pool, 1)
    pool.kill(child)
    ((_, ended),) = events(pool, 1)
    assert ended == Ended(None, signal.SIGKILL)
    assert str(ended) == "was killed by SIGKILL"
    assert isinstance(message, bytes)
    assert gone(int(message))
    pool.kill(child)  # nothing happens


@pytest.mark.parametrize("manner", ["close", "stay", "end"])
def test_nothing_outlives_who_wanted_it(tmp_path: Path, manner: str) -> None:
    pool = Pool.start()
    child = pool.spawn(f"{HERE}:have_children", manner.encode(), log=tmp_path / "log", client=True)
    ((_, message), *_) = events(pool, 1)
    assert isinstance(message, bytes), (tmp_path / "log").read_text()
    if manner == "stay":
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        assert gone(int(message))
    pool.close()
    assert gone(int(message))


def test_nothing_outlives_a_client_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; from trimtab.pipelines.pool import Pool; p = Pool.start(); "
        f"p.spawn('{HERE}:hang', b'', log=pathlib.Path(os.devnull)); "
        "print(p.wait(None)[0][1].decode(), p._process.pid, flush=True); input()"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    descendants = [int(word) for word in client.stdout.readline().split()]
    client.kill()
    assert all(gone(pid) for pid in descendants)
    client.communicate()


def test_children_do_not_repeat_each_others_random_numbers(pool: Pool, tmp_path: Path) -> None:
    for _ in range(2):
        pool.spawn(f"{HERE}:dice", b"", log=tmp_path / "log")
    first, second = [message for _, message in events(pool, 4) if isinstance(message, bytes)]
    assert set(first.split()).isdisjoint(second.split())


def test_a_dead_server_is_reported_at_once(tmp_path: Path) -> None:
    with Pool.start() as pool:
        assert pool._process is not None
        pool._process.kill()
        pool._process.wait()
        with pytest.raises(UnavailableError, match="has died"):
            pool.spawn(f"{HERE}:answer", b"", log=tmp_path / "log")
        assert pool.closed


def test_many_children_at_once(pool: Pool, tmp_path: Path) -> None:
    sent = {pool.spawn(f"{HERE}:answer", msgspec.json.encode(n), log=tmp_path / "log") for n in range(50)}
    ended = {child for child, event in events(pool, 150) if isinstance(event, Ended)}
    assert ended == sent
