"""Pipelines: 20 trivial steps in a new process, first and cached, beside joblib.Memory; and a training
pipeline as a job of a warm worker.

Run it with `python benchmarks/pipelines.py`. Times are seconds, the best of several runs. The first table
has whole processes, with the interpreter's start and all imports; joblib.Memory caches twenty functions in
one process and records nothing, so it is the floor of what a cache on disk can cost. The second table has
the time from asking for a job until its result stands, and how much of it was the steps' own work.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from trimtab.data.datasets import Datasets
from trimtab.pipelines.jobs import Jobs
from trimtab.pipelines.project import snapshot
from trimtab.pipelines.run import PipelineSpec, steps_of
from trimtab.workspace import Workspace

RENTALS = Path(__file__).parents[1] / "src" / "trimtab" / "demo" / "bikes" / "rentals.parquet"
ROUNDS = 5

CHAIN = """
    import trimtab as tt

    @tt.step
    def add(x: dict) -> dict:
        return {"n": x["n"] + 1}

    @tt.pipeline
    def chain():
        x = add({"n": 0})
        for _ in range(19):
            x = add(x)
        return x

    @tt.pipeline
    def empty():
        return None
"""
RUN = """
    import sys
    from pathlib import Path
    from trimtab.pipelines.run import run_pipeline
    from trimtab.workspace import Workspace

    with Workspace.open(Path(sys.argv[1])) as workspace:
        run_pipeline(workspace, f"chain:{sys.argv[2]}").check()
"""
JOBLIB = """
    import sys
    from joblib import Memory

    memory = Memory(sys.argv[1], verbose=0)

    @memory.cache
    def add(x: dict) -> dict:
        return {"n": x["n"] + 1}

    x = {"n": 0}
    for _ in range(20):
        x = add(x)
"""
TRAINING = """
    import lightgbm as lgb
    import numpy as np
    import polars as pl
    import trimtab as tt

    @tt.step
    def prepare(rentals: pl.DataFrame) -> pl.DataFrame:
        return rentals.drop("casual", "registered").tail(3000)

    @tt.step
    def train(rows: pl.DataFrame, *, trees: int) -> tt.Model:
        inputs = tt.inputs(rows, exclude=["at", "cnt"], nullable=True)
        data = lgb.Dataset(inputs.matrix(rows), np.log1p(rows["cnt"].to_numpy()), feature_name=inputs.names)
        booster = lgb.train({"num_threads": 1, "num_leaves": 15, "verbose": -1}, data, trees)
        tt.log(trees=trees)
        return tt.Model.lightgbm(booster, inputs, target="cnt", output="expm1")

    @tt.pipeline
    def training(window: tt.Window = tt.last(days=180), trees: int = 100):
        return train(prepare(tt.dataset("rentals").window(window)), trees=trees)
"""
WORKER = """
    import sys
    from pathlib import Path
    from trimtab.pipelines.worker import PRELOAD, Worker
    from trimtab.workspace import Workspace

    with Workspace.open(Path(sys.argv[1])) as workspace:
        Worker(workspace, preload=(*PRELOAD, "trimtab.models.codec", "trimtab.models.inputs")).run()
"""


class Cost(NamedTuple):
    """What a process took: by the clock, and of the processor (with all that it started)."""

    wall: float
    cpu: float


def cost(*arguments: object) -> Cost:
    """Run Python in a new process."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *map(str, arguments)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.perf_counter() - began, cpu)


def best(costs: list[Cost]) -> str:
    """The smallest of each, as text."""
    return f"{min(c.wall for c in costs):8.3f} {min(c.cpu for c in costs):8.3f}"


def script(folder: Path, name: str, text: str) -> Path:
    """Write a script."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def whole_processes(folder: Path) -> None:
    """Print the first table."""
    run = script(folder, "run.py", RUN)
    joblib = script(folder, "joblib_chain.py", JOBLIB)
    costs: dict[str, list[Cost]] = {}
    for number in range(ROUNDS):
        project, memory = folder / f"chain-{number}", folder / f"memory-{number}"
        Workspace.create(project).close()
        script(project, "chain.py", CHAIN)
        for label, arguments in (
            ("trimtab, an empty pipeline", (run, project, "empty")),
            ("trimtab, first run", (run, project, "chain")),
            ("trimtab, cached run", (run, project, "chain")),
            ("joblib.Memory, first run", (joblib, memory)),
            ("joblib.Memory, cached run", (joblib, memory)),
        ):
            costs.setdefault(label, []).append(cost(*arguments))
    print(f"{'20 trivial steps':42} {'wall':>8} {'cpu':>8}")
    for label, found in costs.items():
        print(f"{label:42} {best(found)}")
    walls = {label: min(c.wall for c in found) for label, found in costs.items()}
    beyond = walls["trimtab, cached run"] - walls["trimtab, an empty pipeline"]
    print(f"{'cached run beyond the empty pipeline':42} {beyond:8.3f}")
    for state in ("first", "cached"):
        ratio = walls[f"trimtab, {state} run"] / walls[f"joblib.Memory, {state} run"]
        print(f"{f'{state} run, times joblib.Memory':42} {ratio:7.1f}x")


def warm_worker(folder: Path) -> None:
    """Print the second table."""
    project = folder / "training"
    worker = script(folder, "worker.py", WORKER)
    with Workspace.create(project) as workspace:
        script(project, "loop.py", TRAINING)
        rows = pl.read_parquet(RENTALS)
        datasets = Datasets(workspace)
        datasets.create("rentals", time="at")
        datasets.append("rentals", rows, key="all")
        last: datetime = rows["at"].max()  # type: ignore[assignment]  # the column's type
        source = snapshot(workspace)
        jobs = Jobs(workspace)
        running = subprocess.Popen([sys.executable, worker, project])
        print(f"{'training as a job of a warm worker':42} {'job':>8} {'steps':>8} {'overhead':>15}")
        try:
            for number in range(ROUNDS + 1):
                spec = PipelineSpec(
                    pipeline="loop:training",
                    project=source,
                    as_of=(last.replace(tzinfo=UTC) - timedelta(days=number)).isoformat(),
                    params={"trees": 200},
                )
                began = time.perf_counter()
                job = jobs.enqueue("pipeline", spec, dedupe_key=uuid.uuid4().hex)
                while not jobs.get(job.id).ended:
                    time.sleep(0.005)
                took = time.perf_counter() - began
                done = jobs.get(job.id)
                if done.error is not None or done.result["status"] != "finished":
                    raise SystemExit(f"the job failed: {done.error or done.result['error']}")
                own = sum(step.seconds or 0.0 for step in steps_of(workspace, job.id))
                label = "first, with the worker's start" if number == 0 else f"round {number}"
                print(f"{label:42} {took:8.3f} {own:8.3f} {took - own:15.3f}")
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait()


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        whole_processes(Path(folder))
        warm_worker(Path(folder))


if __name__ == "__main__":
    main()
