"""The client's side: MLflow's own client, unmodified, which does one thing over and over.

A process of its own, run by a Python that has MLflow, whichever that is; imports nothing else that needs
installing. It reads orders as lines of JSON and answers each with a line of JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric

Call = Callable[[], int]
"""Does the thing once; answers how many of what is counted that was."""

BATCH_KEYS = 10


class Target:
    """A tracking address, with an experiment and a run of its own to write to."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.client = MlflowClient(uri, uri)
        self.name = f"bench-{uuid.uuid4().hex}"
        self.experiment = self.client.create_experiment(self.name)
        run = self.client.create_run(self.experiment)
        self.run: str = run.info.run_id
        self.source = f"{run.info.artifact_uri}/model"
        self.steps = itertools.count()
        self.folder = folder
        self.has_model = False

    def batch(self, size: int) -> list[Metric]:
        """Metrics as a training loop logs them: ten keys, and a time for all."""
        now, first = int(time.time() * 1000), next(self.steps) * size
        return [
            Metric(f"metric {place % BATCH_KEYS}", 0.5 + place, now, first + place // BATCH_KEYS)
            for place in range(size)
        ]

    # Each of the following prepares, and answers with the call that is measured.

    def log_metric(self, given: dict[str, Any]) -> Call:
        key = f"loss {given['thread']}"

        def call() -> int:
            self.client.log_metric(self.run, key, 0.5, step=next(self.steps))
            return 1

        return call

    def log_batch(self, given: dict[str, Any]) -> Call:
        size: int = given.get("size", 1000)

        def call() -> int:
            self.client.log_batch(self.run, metrics=self.batch(size))
            return size

        return call

    def create_run(self, _: dict[str, Any]) -> Call:
        def call() -> int:
            self.client.create_run(self.experiment)
            return 1

        return call

    def get_run(self, _: dict[str, Any]) -> Call:
        def call() -> int:
            self.client.get_run(self.run)
            return 1

        return call

    def log_artifact(self, _: dict[str, Any]) -> Call:
        def call() -> int:
            path = self.folder / f"{uuid.uuid4().hex}.bin"
            path.write_bytes(os.urandom(4096))  # different bytes each time: nobody stores them only once
            self.client.log_artifact(self.run, str(path))
            path.unlink()
            return 1

        return call

    def model_version(self, _: dict[str, Any]) -> Call:
        if not self.has_model:
            self.client.create_registered_model(self.name)
            (self.folder / "MLmodel").write_text("flavors: {}\n")
            self.client.log_artifact(self.run, str(self.folder / "MLmodel"), "model")
            self.has_model = True

        def call() -> int:
            version = self.client.create_model_version(self.name, self.source, self.run)
            self.client.set_registered_model_alias(self.name, "champion", version.version)
            return 1

        return call

    def history(self, given: dict[str, Any]) -> Call:
        def call() -> int:
            found = self.client.get_metric_history(given["run"], "loss")
            assert len(found) == given["points"], len(found)
            return 1

        return call

    def search(self, given: dict[str, Any]) -> Call:
        def call() -> int:
            token = given.get("token")
            found = self.client.search_runs(
                [given["experiment"]],
                given.get("filter", ""),
                order_by=given.get("order"),
                max_results=given["limit"],
                page_token=token,
            )
            assert len(found) == given["expected"], len(found)
            return 1

        return call


class Orders:
    """What can be asked of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._targets: dict[str, Target] = {}

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        """Do one order."""
        return dict(getattr(self, f"do_{given['do']}")(given))

    def do_version(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"version": mlflow.__version__, "python": sys.version.split()[0]}

    def do_open(self, given: dict[str, Any]) -> dict[str, Any]:
        """An experiment and a run at an address."""
        target = self._target(given["uri"])
        return {"experiment": target.experiment, "run": target.run}

    def do_create_experiment(self, given: dict[str, Any]) -> dict[str, Any]:
        """Another experiment."""
        return {"experiment": self._target(given["uri"]).client.create_experiment(uuid.uuid4().hex)}

    def do_fill_history(self, given: dict[str, Any]) -> dict[str, Any]:
        """A run with a metric of so many points."""
        target = self._target(given["uri"])
        run = target.client.create_run(target.experiment).info.run_id
        now = int(time.time() * 1000)
        for first in range(0, given["points"], 1000):
            steps = range(first, min(first + 1000, given["points"]))
            target.client.log_batch(run, metrics=[Metric("loss", 1 / (1 + n), now + n, n) for n in steps])
        return {"run": run}

    def do_token(self, given: dict[str, Any]) -> dict[str, Any]:
        """The token of a page after so many pages."""
        client, token = self._target(given["uri"]).client, None
        for _ in range(given["pages"]):
            token = client.search_runs(
                [given["experiment"]],
                order_by=given.get("order"),
                max_results=given["limit"],
                page_token=token,
            ).token
        return {"token": token}

    def do_turn(self, given: dict[str, Any]) -> dict[str, Any]:
        """Do one thing over and over, in one or more threads, for some seconds."""
        target = self._target(given["uri"])
        threads: int = given.get("threads", 1)
        calls = [getattr(target, given["what"])({**given, "thread": n}) for n in range(threads)]
        if threads == 1:
            spent, began = time.process_time(), time.perf_counter()
            done = self._repeat(calls[0], began + given["seconds"])
        else:
            done = []
            gate = threading.Barrier(threads + 1)

            def work(call: Call) -> None:
                gate.wait()
                done.extend(self._repeat(call, time.perf_counter() + given["seconds"]))

            workers = [threading.Thread(target=work, args=(call,)) for call in calls]
            for worker in workers:
                worker.start()
            gate.wait()
            spent, began = time.process_time(), time.perf_counter()
            for worker in workers:
                worker.join()
        seconds = time.perf_counter() - began
        return {
            "calls": len(done),
            "units": sum(done),
            "seconds": seconds,
            "client_cpu": time.process_time() - spent,
        }

    @staticmethod
    def _repeat(call: Call, until: float) -> list[int]:
        done = [call()]
        while time.perf_counter() < until:
            done.append(call())
        return done

    def _target(self, uri: str) -> Target:
        if uri not in self._targets:
            self._targets[uri] = Target(uri, self._folder)
        return self._targets[uri]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what MLflow prints is no answer
    with tempfile.TemporaryDirectory() as folder:
        orders = Orders(Path(folder))
        for line in sys.stdin:
            try:
                answer = orders.answer(json.loads(line))
            except Exception as error:  # noqa: BLE001  (whatever it was, the benchmark is told)
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
