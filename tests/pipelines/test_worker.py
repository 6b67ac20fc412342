"""The worker role, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.pipelines.conftest import Write
from tests.processes import alive

from trimtab.pipelines.jobs import Job, Jobs
from trimtab.pipelines.project import snapshot
from trimtab.pipelines.run import PipelineOutcome, PipelineSpec, steps_of
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

HANDLERS = """
    import os, signal, time
    from pathlib import Path
    from trimtab.errors import InvalidInputError

    def double(workspace, spec, running):
        return {"n": 2 * spec["n"], "attempt": running.job.attempts, "actor": workspace.actor}

    def refuse(workspace, spec, running):
        raise InvalidInputError("This cannot be used.", hint="Use another.")

    def crash(workspace, spec, running):
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def hang_once(workspace, spec, running):
        mark = Path(spec["mark"])
        if not mark.exists():
            mark.write_text(str(os.getpid()))
            time.sleep(1000)
        return "done"
"""
NAMES = {name: f"handlers:{name}" for name in ("double", "refuse", "crash", "hang_once")}

Start = Callable[..., "subprocess.Popen[bytes]"]


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes] | None = None) -> Any:
    """What `condition` answers, once it is true."""
    while not (found := condition()):
        assert process is None or process.poll() is None, "the worker has died"
        time.sleep(0.02)
    return found


def ended(workspace: Workspace, job: Job) -> Job:
    found: Job = wait_for(lambda: (now := Jobs(workspace).get(job.id)).ended and now)
    return found


@pytest.fixture
def start(workspace: Workspace, write: Write) -> Iterator[Start]:
    """Start workers on the workspace; they are killed at the end."""
    write(handlers=HANDLERS)
    started = []

    def worker(
        lease: float = 20.0,
        preload: tuple[str, ...] = ("trimtab.pipelines.pipeline_job",),
        limits: dict[str, float] | None = None,
    ) -> subprocess.Popen[bytes]:
        code = (
            "from pathlib import Path; from trimtab.workspace import Workspace; "
            "from trimtab.pipelines.worker import PIPELINE_HANDLERS, Worker; "
            f"ws = Workspace.open(Path({str(workspace.project)!r})); "
            f"handlers = {{**PIPELINE_HANDLERS, **{NAMES!r}}}; "
            f"Worker(ws, handlers, preload={preload!r}, lease_seconds={lease}, limits={limits!r}).run(); "
            "ws.close()"
        )
        environment = {**os.environ, "PYTHONPATH": str(workspace.project)}
        process = subprocess.Popen([sys.executable, "-W", "error", "-c", code], env=environment)
        started.append(process)
        return process

    yield worker
    for process in started:
        process.kill()
        process.wait()


def test_a_job_is_done_in_the_name_of_who_asked(workspace: Workspace, start: Start) -> None:
    start()
    job = Jobs(workspace).enqueue("double", {"n": 4}, dedupe_key="x")
    found = ended(workspace, job)
    assert (found.state, found.result) == ("finished", {"n": 8, "attempt": 1, "actor": "tester"})


def test_a_handlers_error_is_the_jobs_error(workspace: Workspace, start: Start) -> None:
    start()
    found = ended(workspace, Jobs(workspace).enqueue("refuse", {}, dedupe_key="x"))
    assert (found.state, found.attempts) == ("failed", 1)
    assert found.error is not None
    assert (found.error.code, found.error.message) == ("invalid_input", "This cannot be used. Use another.")


def test_a_job_that_takes_too_long_is_ended_and_says_so(workspace: Workspace, start: Start) -> None:
    process = start(limits={"hang_once": 0.5})
    jobs = Jobs(workspace)
    mark = workspace.project / "mark"
    late = ended(workspace, jobs.enqueue("hang_once", {"mark": str(mark)}, dedupe_key="x"))
    assert (late.state, late.attempts) == ("failed", 1)
    assert late.error is not None
    assert late.error.code == "timeout"
    assert "longer than 0.5 seconds" in late.error.message
    after = ended(workspace, jobs.enqueue("double", {"n": 1}, dedupe_key="y"))
    assert (after.state, process.poll()) == ("finished", None)


def test_a_job_that_kills_its_process_does_not_kill_the_worker(workspace: Workspace, start: Start) -> None:
    process = start()
    jobs = Jobs(workspace)
    crashed = ended(workspace, jobs.enqueue("crash", {}, dedupe_key="x"))
    assert (crashed.state, crashed.attempts) == ("failed", 3)
    assert crashed.error is not None
    assert crashed.error.code == "died"
    assert "was killed by SIGKILL" in crashed.error.message
    assert "last words" in crashed.error.message
    assert ended(workspace, jobs.enqueue("double", {"n": 1}, dedupe_key="y")).state == "finished"
    assert process.poll() is None


def test_the_job_of_a_worker_that_died_is_done_by_another(
    workspace: Workspace, start: Start, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    job = Jobs(workspace).enqueue("hang_once", {"mark": str(mark)}, dedupe_key="x")
    process = start(lease=1.0)
    pid = int(wait_for(lambda: mark.exists() and mark.read_text(), process))
    process.kill()
    child = psutil.Process(pid) if psutil.pid_exists(pid) else None
    start()
    found = ended(workspace, job)
    assert (found.state, found.result, found.attempts) == ("finished", "done", 2)
    assert child is None or not alive(child)


def test_sigterm_ends_a_worker_and_gives_its_job_back(
    workspace: Workspace, start: Start, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = Jobs(workspace)
    job = jobs.enqueue("hang_once", {"mark": str(mark)}, dedupe_key="x")
    process = start()
    wait_for(mark.exists, process)
    assert [found.role for found in wait_for(lambda: workspace.instances.live("worker"))] == ["worker"]
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    found = jobs.get(job.id)
    assert (found.state, found.attempts) == ("queued", 0)
    assert workspace.instances.live("worker") == []


def test_a_running_job_can_be_cancelled(workspace: Workspace, start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    jobs = Jobs(workspace)
    job = jobs.enqueue("hang_once", {"mark": str(mark)}, dedupe_key="x")
    process = start(lease=1.0)
    wait_for(mark.exists, process)
    jobs.cancel(job.id)
    assert ended(workspace, job).state == "cancelled"


def test_the_workers_own_process_stays_light(workspace: Workspace) -> None:
    code = (
        "import sys, trimtab.pipelines.worker; print([m for m in "
        "('polars', 'numpy', 'pandas', 'mlflow', 'lightgbm', 'pyarrow', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_cancelled_pipeline_leaves_a_killed_run(
    workspace: Workspace, start: Start, write: Write, tmp_path: Path
) -> None:
    (tmp_path / "kill").write_text("hang")
    write(loop=loop(tmp_path))
    job = Jobs(workspace).enqueue("pipeline", PipelineSpec(pipeline="loop:training"), dedupe_key="x")
    process = start(lease=1.0)
    wait_for(lambda: [found for found in steps_of(workspace, job.id) if found.node == "loop.train"], process)
    Jobs(workspace).cancel(job.id)
    assert ended(workspace, job).state == "cancelled"
    assert Tracking(workspace).get_run(job.id).status == "KILLED"
    prepared, trained = steps_of(workspace, job.id)
    assert (prepared.status, trained.status) == ("finished", "failed")
    assert trained.error == "The run was broken off."


LOOP = """
    import os, signal, time
    from pathlib import Path
    import trimtab as tt

    @tt.step
    def prepare(n: int) -> dict:
        open(MARK, "a").write("x")
        return {"n": n}

    @tt.step
    def train(rows: dict) -> int:
        if not Path(TRAP).exists():
            return rows["n"]
        if Path(TRAP).read_text() == "hang":
            time.sleep(1000)
        os.kill(os.getpid() if Path(TRAP).read_text() == "step" else os.getppid(), signal.SIGKILL)

    @tt.pipeline
    def training(n: int = 1):
        return train(prepare(n))
"""


def loop(tmp_path: Path) -> str:
    return LOOP.replace("MARK", repr(str(tmp_path / "ran"))).replace("TRAP", repr(str(tmp_path / "kill")))


def test_a_pipeline_runs_as_a_job_from_its_snapshot(
    workspace: Workspace, start: Start, write: Write, tmp_path: Path
) -> None:
    write(loop=loop(tmp_path))
    spec = PipelineSpec(
        pipeline="loop:training",
        project=snapshot(workspace),
        params={"n": 3},
        as_of="2011-09-01T00:00:00Z",
        experiment="bikes",
    )
    write(loop="broken(")  # the folder may change; the snapshot does not
    job = Jobs(workspace).enqueue("pipeline", spec, dedupe_key="x")
    start()
    outcome = PipelineOutcome(**ended(workspace, job).result)
    assert (outcome.status, outcome.run_id, outcome.project) == ("finished", job.id, spec.project)
    assert [found.output_digest for found in steps_of(workspace, job.id)][1] == outcome.outputs["output"]


def test_a_step_that_is_killed_fails_its_pipeline_and_nothing_else(
    workspace: Workspace, start: Start, write: Write, tmp_path: Path
) -> None:
    (tmp_path / "kill").write_text("step")
    write(loop=loop(tmp_path))
    jobs = Jobs(workspace)
    spec = PipelineSpec(pipeline="loop:training")
    process = start()
    found = ended(workspace, jobs.enqueue("pipeline", spec, dedupe_key="x"))
    assert found.error is None, found.error.message
    assert (found.state, found.attempts) == ("finished", 1)
    assert found.result["status"] == "failed"
    assert found.result["failed_step"] == "loop.train"
    assert "was killed by SIGKILL" in found.result["error"]
    (tmp_path / "kill").unlink()
    again = ended(workspace, jobs.enqueue("pipeline", spec, dedupe_key="y"))
    assert again.result["status"] == "finished"
    assert (tmp_path / "ran").read_text() == "x"  # taken from the cache the second time
    assert process.poll() is None


def test_a_worker_whose_fork_server_dies_ends_so_that_it_is_restarted(
    workspace: Workspace, start: Start, write: Write, tmp_path: Path
) -> None:
    (tmp_path / "kill").write_text("server")
    write(loop=loop(tmp_path))
    job = Jobs(workspace).enqueue("pipeline", PipelineSpec(pipeline="loop:training"), dedupe_key="x")
    process = start(lease=1.0)
    assert process.wait() != 0
    (tmp_path / "kill").unlink()
    start()
    assert ended(workspace, job).result["status"] == "finished"
    assert (tmp_path / "ran").read_text() == "x"
