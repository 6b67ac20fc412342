"""What was answered with 200 is on the disk: the system calls of a real server show it."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from tests.conftest import SERVICES_REQUIRED
from tests.server.mlflow_durability import trace
from tests.server.mlflow_durability.server_role import API, Client, ServerRole

from trimtab.workspace import Workspace

REQUEST = '1 recvfrom(9<socket:[1]>, "POST /x HTTP/1.1 X-Mark: m", 8) = 8'
WRITE = '2 pwrite64(4</p/metadata.db-wal>, "...", 24, 0) = 24'
SYNC = "2 fdatasync(4</p/metadata.db-wal>) = 0"
SYNC_BEGINS = "2 fdatasync(4</p/metadata.db-wal> <unfinished ...>"
SYNC_ENDS = "2 <... fdatasync resumed>) = 0"
SYNC_FAILS = "2 <... fdatasync resumed>) = -1 EIO (Input/output error)"
ANSWER = '1 writev(9<socket:[1]>, [{iov_base="HTTP/1.1 200 OK", iov_len=9}], 1) = 9'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([REQUEST, WRITE, SYNC, ANSWER], True),
        ([REQUEST, WRITE, SYNC_BEGINS, SYNC_ENDS, ANSWER], True),
        ([REQUEST, WRITE, ANSWER, SYNC], False),
        ([REQUEST, WRITE, SYNC_BEGINS, ANSWER, SYNC_ENDS], False),
        ([REQUEST, WRITE, SYNC_BEGINS, SYNC_FAILS, ANSWER], False),
        ([REQUEST, WRITE, SYNC, WRITE, ANSWER], False),
        ([WRITE, SYNC, REQUEST, ANSWER], False),
        ([WRITE, SYNC, ANSWER], False),
    ],
)
def test_a_sync_counts_only_between_the_last_write_and_the_answer(lines: list[str], expected: bool) -> None:
    assert trace.synced_before_the_answer(trace.events(lines), "X-Mark: m", "metadata.db-wal") is expected


def test_the_store_is_synced_before_the_answer(tmp_path: Path, free_port: int) -> None:
    """A loss of power after an answer takes nothing of what it promised: log-metric, log-batch, create-run, a
    tag, and an artifact with the folder it is in."""
    reason = trace.why_not()
    if reason:
        if SERVICES_REQUIRED and "installed" in reason:
            pytest.fail(f"TRIMTAB_REQUIRE_SERVICES is set, and {reason}.", pytrace=False)
        pytest.skip(reason)
    project, file = tmp_path / "project", tmp_path / "calls.trace"
    Workspace.create(project).close()
    with ServerRole(project, free_port, [*trace.STRACE, str(file)]) as server, Client(free_port) as client:
        run = client.create_run()  # makes what is made once
        points = [{"key": f"key-{n}", "value": n, "timestamp": 1, "step": n} for n in range(200)]
        asked = {
            "create-run": ("runs/create", {"experiment_id": "0"}),
            "log-metric": ("runs/log-metric", {"run_id": run, "key": "a", "value": 1, "timestamp": 1}),
            "log-metric-again": ("runs/log-metric", {"run_id": run, "key": "a", "value": 2, "timestamp": 2}),
            "log-batch": ("runs/log-batch", {"run_id": run, "metrics": points}),
            "set-tag": ("runs/set-tag", {"run_id": run, "key": "a", "value": "b"}),
            "log-param": ("runs/log-parameter", {"run_id": run, "key": "a", "value": "b"}),
            "update-run": ("runs/update", {"run_id": run, "status": "FINISHED", "end_time": 2}),
        }
        for mark, (path, body) in asked.items():
            whole = json.dumps(body).encode()
            status, answer = client.ask("POST", f"{API}/{path}", whole, {"X-Mark": f"<{mark}>"})
            assert status == 200, answer
        place = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/note.txt"
        assert client.ask("PUT", place, b"kept", {"X-Mark": "<artifact>"})[0] == 200
        # The tracer would outlive a signal meant for the server, and the server one meant for the tracer.
        (traced,) = _children(server.process.pid)
        traced.terminate()
        server.process.wait(60)
    lines = file.read_text(errors="replace").splitlines()
    for mark in asked:
        assert trace.synced_before_the_answer(trace.events(lines), f"<{mark}>", "metadata.db-wal"), mark
    parts = ("metadata.db-wal", "/blobs/drafts/", "/blobs/b3/")
    assert trace.synced_before_the_answer(trace.events(lines), "<artifact>", *parts)


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()
