"""The gateway's supervision with workers that do nothing but begin, wait and end as they are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.running_gateway import PATIENCE, until

WORKER = """
import argparse, os, pathlib, signal, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--ready", type=int)
parser.add_argument("--successor", action="store_true")
asked = parser.parse_args()
folder = pathlib.Path(__file__).parent


def end(*_):
    # It ends once so many were told to end, as one that still answers ends later.
    (folder / f"told-{os.getpid()}").touch()
    while len(list(folder.glob("told-*"))) < int((folder / "together").read_text()):
        time.sleep(0.01)
    (folder / f"ended-{os.getpid()}").touch()
    os._exit(0)


signal.signal(signal.SIGTERM, end)
(folder / f"began-{os.getpid()}").touch()
if not (asked.successor and (folder / "mute").exists()):
    os.write(asked.ready, b"!")
while True:
    signal.pause()
"""

SHIPPER = "import sys; sys.stdin.read()"

SUPERVISION = """
import logging
from trimtab.serving.supervision import Child, Supervision

logging.basicConfig(level=logging.INFO)
workers = [Child("worker", ["a_worker"], announces=True) for _ in range(2)]
Supervision(workers, Child("shipper", ["a_shipper"]), succession_seconds=SECONDS).run()
"""


class Scene:
    """A supervision of two such workers."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        (folder / "a_worker.py").write_text(WORKER)
        (folder / "a_shipper.py").write_text(SHIPPER)
        (folder / "together").write_text("0")
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISION.replace("SECONDS", str(seconds))],
                stderr=output,
                env={**os.environ, "PYTHONPATH": str(folder)},
            )
        until(lambda: len(self.seen("began")) == 2)

    def seen(self, what: str) -> set[str]:
        """The processes that began, were told to end, or ended by themselves."""
        return {path.name.removeprefix(f"{what}-") for path in self.folder.glob(f"{what}-*")}

    def output(self) -> str:
        """What was logged so far."""
        return self._output.read_text()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(tmp_path, request.param)
    yield made
    made.stop()


@pytest.mark.parametrize("scene", [0.5], indirect=True)
def test_a_worker_that_is_not_ready_in_time_follows_nobody(scene: Scene) -> None:
    before = scene.seen("began")
    (scene.folder / "mute").touch()
    scene.process.send_signal(signal.SIGHUP)
    until(lambda: "a new worker was not ready within 0.5 s" in scene.output())
    until(lambda: bool(scene.seen("ended")))
    assert scene.seen("ended") == scene.seen("began") - before
    (scene.folder / "mute").unlink()
    scene.process.send_signal(signal.SIGHUP)
    until(lambda: "all workers were replaced" in scene.output())
    assert before < scene.seen("ended")
    assert scene.stop() == 0
    assert scene.seen("ended") == scene.seen("began")


@pytest.mark.parametrize("scene", [PATIENCE], indirect=True)
def test_a_gateway_that_ends_amid_a_reload_tells_all_workers_at_once(scene: Scene) -> None:
    (scene.folder / "mute").touch()
    (scene.folder / "together").write_text("3")
    scene.process.send_signal(signal.SIGHUP)
    until(lambda: len(scene.seen("began")) == 3)
    assert scene.stop() == 0
    assert scene.seen("ended") == scene.seen("began")


@pytest.mark.parametrize("scene", [PATIENCE], indirect=True)
def test_a_gateway_that_ends_waits_for_a_worker_that_was_replaced_beside_the_others(scene: Scene) -> None:
    (scene.folder / "together").write_text("3")
    scene.process.send_signal(signal.SIGHUP)
    until(lambda: len(scene.seen("told")) == 1)
    assert scene.stop() == 0
    assert scene.seen("ended") == scene.seen("began")
    assert len(scene.seen("ended")) == 3
