"""The webhook is told of every alert at least once and in order, and its failures stop nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from trimtab.clock import FixedClock
from trimtab.config import Settings
from trimtab.monitoring.alerts import open_alert
from trimtab.monitoring.webhook import BATCH, Webhook
from trimtab.workspace import Workspace

START = datetime(2011, 9, 1, tzinfo=UTC)


class Receiver(ThreadingHTTPServer):
    """A real HTTP server that keeps what it is told, and answers what the test sets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.told: list[dict[str, Any]] = []
        self.status = 200
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server
        server.shutdown()


def opened(folder: Path, url: str | None) -> Workspace:
    workspace = Workspace.create(
        folder / "hooked", Settings(webhook=url), actor="tester", clock=FixedClock(START)
    )
    Webhook(workspace).deliver()  # seen for the first time
    return workspace


def alert(workspace: Workspace, *names: str) -> None:
    def one(name: str) -> None:
        workspace.write(lambda tx: open_alert(tx, "bikes", name, reason=f"{name} is off", numbers={"n": 1.5}))

    for name in names:
        one(name)


def test_alerts_are_told_once_in_order_with_their_numbers(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as workspace:
        alert(workspace, "drift", "log bias")
        assert Webhook(workspace).deliver() == 2
        assert Webhook(workspace).deliver() == 0
        alert(workspace, "rmsle")
        assert Webhook(workspace).deliver() == 1
    assert [told["alert"] for told in receiver.told] == ["bikes/drift", "bikes/log bias", "bikes/rmsle"]
    first = receiver.told[0]
    assert (first["event"], first["reason"], first["details"]) == (
        "alert.opened",
        "drift is off",
        {"numbers": {"n": 1.5}},
    )
    assert first["id"] < receiver.told[1]["id"]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_was_not_taken_is_told_again_and_nothing_overtakes_it(
    tmp_path: Path, receiver: Receiver, status: int
) -> None:
    with opened(tmp_path, receiver.url) as workspace:
        alert(workspace, "drift", "rmsle")
        receiver.status = status
        assert Webhook(workspace).deliver() == 0
        receiver.status = 200
        assert Webhook(workspace).deliver() == 2
    assert [told["alert"] for told in receiver.told] == ["bikes/drift", "bikes/drift", "bikes/rmsle"]


@pytest.mark.parametrize("port", ["{free}", "not-a-port"])
def test_an_address_that_does_not_answer_fails_quietly_and_loses_nothing(
    tmp_path: Path, free_port: int, port: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, f"http://127.0.0.1:{port.format(free=free_port)}/") as workspace:
        alert(workspace, "drift")
        assert Webhook(workspace).deliver() == 0
    assert "could not be told" in caplog.text


def test_a_process_that_dies_before_it_remembers_tells_again_and_loses_nothing(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, receiver.url) as workspace:
        alert(workspace, "drift")

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(workspace, "write", die)
            with pytest.raises(KeyboardInterrupt):
                Webhook(workspace).deliver()
        assert Webhook(workspace).deliver() == 1
    assert [told["id"] for told in receiver.told] == [receiver.told[0]["id"]] * 2


def test_a_slower_process_does_not_take_the_position_back(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as workspace:
        alert(workspace, "drift", "rmsle")
        behind = Webhook(workspace)
        Webhook(workspace).deliver()
        behind._remember(1)
        assert Webhook(workspace).deliver() == 0


def test_more_alerts_than_one_batch_are_told_over_several_calls(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as workspace:
        alert(workspace, *(f"m{number}" for number in range(BATCH + 3)))
        assert [Webhook(workspace).deliver() for _ in range(3)] == [BATCH, 3, 0]


def test_without_the_setting_nobody_is_told(tmp_path: Path) -> None:
    with opened(tmp_path, None) as workspace:
        alert(workspace, "drift")
        assert Webhook(workspace).deliver() == 0


def test_a_webhook_that_is_set_later_is_not_told_of_what_was_before(
    tmp_path: Path, receiver: Receiver
) -> None:
    with opened(tmp_path, None) as workspace:
        alert(workspace, "old")
        project = workspace.project
    settings = Settings(webhook=receiver.url)
    with Workspace.open(project, settings, actor="tester", clock=FixedClock(START)) as workspace:
        Webhook(workspace).deliver()
        alert(workspace, "new")
        Webhook(workspace).deliver()
    assert [told["alert"] for told in receiver.told] == ["bikes/new"]
