"""What clients were promised, kept beside the server to be compared with what it has afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from tests.server.mlflow_durability.server_role import LOST, Client

POINTS = 5
"""Points in a batch."""


class Ledger:
    """The requests of one client to its own run: those that were answered, and all that were tried."""

    def __init__(self, port: int, name: str) -> None:
        self.name = name
        self.run = ""
        self.acknowledged_runs: list[str] = []
        self.tried_runs = 0
        self.tried: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}
        self.unexpected: list[Any] = []
        self._client = Client(port)

    def work(self, stopped: Callable[[], bool]) -> None:
        """Log until stopped. What is not answered is sent again, as MLflow's clients do."""
        number = 0
        while not stopped():
            if not self.run or number % 20 == 0:
                self._create_run(stopped)
            self._one(
                "point", "runs/log-metric", stopped, key="point", value=number, timestamp=1, step=number
            )
            metrics = [
                {"key": "batch", "value": step, "timestamp": 1, "step": step}
                for step in range(POINTS * number, POINTS * (number + 1))
            ]
            tags = [{"key": "batch", "value": str(number)}]
            params = [{"key": f"param-{number}", "value": "x"}]
            self._one("batch", "runs/log-batch", stopped, metrics=metrics, tags=tags, params=params)
            number += 1
        self._client.close()

    def _create_run(self, stopped: Callable[[], bool]) -> None:
        """A run of its own now and then; one whose answer was lost may be there twice, as in MLflow."""
        while not stopped():
            self.tried_runs += 1
            tag = {"key": "client", "value": self.name}
            answer = self._ask("runs/create", experiment_id="0", start_time=1, tags=[tag])
            if answer is not None:
                run = str(answer["run"]["info"]["run_id"])
                self.acknowledged_runs.append(run)
                self.run = self.run or run
                return

    def _one(self, kind: str, path: str, stopped: Callable[[], bool], **body: object) -> None:
        if not self.run:
            return
        self.tried[kind] = self.tried.get(kind, 0) + 1
        while True:
            if self._ask(path, run_id=self.run, **body) is not None:
                self.acknowledged[kind] = self.acknowledged.get(kind, 0) + 1
                return
            if stopped():
                return

    def _ask(self, path: str, **body: object) -> Any:
        """The answer; None if there was none, or the server said that it is not there just now."""
        try:
            status, answer = self._client.post(path, **body)
        except (*LOST, OSError):
            time.sleep(0.01)
            return None
        if status == 200:
            return answer
        if status != 503:
            self.unexpected.append((status, answer))
        time.sleep(0.01)
        return None

    def check(self, client: Client) -> None:
        """All that was answered is there, nothing is there twice, and no batch by halves."""
        assert self.unexpected == []
        if not self.run:
            return
        for kind, points in (("point", 1), ("batch", POINTS)):
            steps = [step for step, value in client.history(self.run, kind) if value == step]
            assert len(steps) == len(set(steps)), (self.name, kind, "twice")
            assert set(steps) >= set(range(points * self.acknowledged.get(kind, 0))), (
                self.name,
                kind,
                "lost",
            )
            assert set(steps) <= set(range(points * self.tried.get(kind, 0)))
            assert len(steps) % points == 0, (self.name, kind, "by halves")
        data = client.get(f"runs/get?run_id={self.run}")["run"]["data"]
        batches = len(client.history(self.run, "batch")) // POINTS
        assert len(data.get("params", [])) == batches, (self.name, "a batch and its params differ")
        for run in self.acknowledged_runs:
            assert client.get(f"runs/get?run_id={run}")["run"]["info"]["run_id"] == run


class Load:
    """Several clients at once, each with its ledger."""

    def __init__(self, port: int, clients: int) -> None:
        self._stopped = threading.Event()
        self.ledgers = [Ledger(port, f"client-{number}") for number in range(clients)]
        self._threads = [
            threading.Thread(target=ledger.work, args=(self._stopped.is_set,)) for ledger in self.ledgers
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    @property
    def acknowledged(self) -> int:
        """Requests that were answered until now."""
        return sum(sum(ledger.acknowledged.values()) for ledger in self.ledgers)

    def wait_for(self, more: int, patience: float = 60.0) -> None:
        """Wait until `more` requests have been answered from now on."""
        goal, deadline = self.acknowledged + more, time.monotonic() + patience
        while self.acknowledged < goal:
            assert time.monotonic() < deadline, "the clients do not come on"
            time.sleep(0.005)

    def check(self, client: Client) -> None:
        """Compare all ledgers with the server; see `Ledger.check`."""
        for ledger in self.ledgers:
            ledger.check(client)
        runs: set[str] = set()
        token = ""
        while not runs or token:
            found = client.post("runs/search", experiment_ids=["0"], max_results=1000, page_token=token)[1]
            runs |= {run["info"]["run_id"] for run in found.get("runs", [])}
            token = found.get("next_page_token", "")
        known = {run for ledger in self.ledgers for run in ledger.acknowledged_runs}
        assert known <= runs
        assert len(runs) <= sum(ledger.tried_runs for ledger in self.ledgers)
