"""A project with real roles around it, replayed: gateway, shipper, worker and controller are processes."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from tests.serving.running_gateway import RunningGateway

from trimtab.data.datasets import Datasets
from trimtab.data.sources import Sources
from trimtab.demo.gateway_client import GatewayClient
from trimtab.loop.applying import apply_reference
from trimtab.loop.loops import Loops
from trimtab.loop.replay import Replay
from trimtab.workspace import Workspace

START = datetime(2011, 9, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NAME = "demand"


def demand(at: datetime, level: float) -> float:
    """What is asked for in an hour."""
    return level * (50 + 30 * math.sin(at.hour / 24 * 2 * math.pi) + at.day % 7)


def rows(start: datetime, days: int, level: float) -> pl.DataFrame:
    """Hours with their demand."""
    at = [start + hour * HOUR for hour in range(days * 24)]
    return pl.DataFrame(
        {"at": at, "hour": [each.hour for each in at], "demand": [demand(each, level) for each in at]}
    )


class World:
    """The project, its roles, and a driver that asks and tells hour by hour."""

    def __init__(self, workspace: Workspace, gateway: RunningGateway) -> None:
        self.workspace = workspace
        self.loops = Loops(workspace)
        self.replay = Replay(workspace)
        self.gateway = gateway
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.at = START
        self.requests = 0

    def start(self, role: str) -> None:
        """Start a role's process."""
        command = [sys.executable, "-m", "trimtab.server.roles", role, "--dir", str(self.workspace.project)]
        unused = ["--host", "127.0.0.1", "--port", "0", "--gateway-port", "0"]
        with (self.workspace.root / f"{role}.log").open("ab") as log:
            self.processes[role] = subprocess.Popen([*command, *unused], stdout=log, stderr=log)

    def kill(self, role: str) -> None:
        """End a role's process by SIGKILL."""
        self.processes[role].kill()
        self.processes[role].wait()

    def stop(self) -> None:
        """End all roles as they should be ended."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)

    def log(self, role: str) -> str:
        """What a role wrote."""
        return (self.workspace.root / f"{role}.log").read_text()

    def live(self, days: int, level: float) -> None:
        """Ask for each hour's demand, tell it when the hour is over, and drop the day's rows in a folder."""
        with GatewayClient(self.gateway.url, NAME) as client:
            for _ in range(days):
                day = self.at
                for _ in range(24):
                    answer = client.predict({"hour": self.at.hour}, key=self.at.isoformat(), at=self.at)
                    client.feedback(answer.ids[0], demand(self.at, level), at=self.at)
                    self.at += HOUR
                    self.requests += 1
                rows(day, 1, level).write_parquet(self.workspace.project / "incoming" / f"{day:%F}.parquet")
                while self.replay.next_due < self.at:
                    self.replay.advance(self.replay.next_due)
                self.replay.advance(self.at)


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A replayed project whose first version is already champion."""
    project = folder / "project"
    shutil.copytree(Path(__file__).parent / "project", project)
    (project / "incoming").mkdir()
    with ExitStack() as stack:
        workspace = stack.enter_context(Workspace.create(project, actor="driver"))
        Replay(workspace).start(START)
        datasets = Datasets(workspace)
        datasets.create("demand", time="at")
        datasets.append("demand", rows(START - 20 * DAY, 20, 1.0), key="history")
        Sources(workspace).register("demand", "incoming", every=DAY, settle=timedelta(0))
        apply_reference(workspace, "loop:loop")
        gateway = stack.enter_context(RunningGateway(project))
        made = World(workspace, gateway)
        stack.callback(made.stop)
        for role in ("worker", "controller"):
            made.start(role)
        made.replay.advance(START)
        yield made
