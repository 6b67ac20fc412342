"""The figures, the aims beside them, and what was missed."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil


class Turn(msgspec.Struct, frozen=True):
    """What one turn gave: units a second, the time of a call, and the processor time for each call."""

    rate: float
    call: float
    server_cpu: float
    client_cpu: float


class Verdicts:
    """Collects how the figures stand to their aims."""

    def __init__(self) -> None:
        self.missed: list[str] = []
        self.met = 0

    def at_least(
        self, title: str, figure: float, aim: float, shown: str = "{:,.1f}x", *, why: str = ""
    ) -> str:
        """Note a figure whose aim is a least value; answers what to print beside it. `why` is said if it is
        missed."""
        return self._note(title, figure >= aim, shown.format(figure), f"aim >= {shown.format(aim)}", why)

    def below(self, title: str, figure: float, aim: float, shown: str) -> str:
        """Note a figure whose aim is to stay below a value."""
        return self._note(title, figure < aim, shown.format(figure), f"aim < {shown.format(aim)}")

    def _note(self, title: str, met: bool, figure: str, aim: str, why: str = "") -> str:
        if met:
            self.met += 1
            return f"{aim}: met"
        self.missed.append(f"{title}: {figure}, {aim}" + (f"; {why}" if why else ""))
        return f"{aim}: MISSED"

    def print(self) -> None:
        """Say plainly what was missed."""
        print(f"\n{self.met} aims met, {len(self.missed)} missed")
        for line in self.missed:
            print(f"  missed: {line}")


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the rounds' ratios: what both met in one round, such as a busy machine, cancels out."""
    return statistics.median([a / b for a, b in zip(over, under, strict=True)])


def load() -> str:
    """How busy the machine is."""
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


def machine(folder: Path, peer: dict[str, str]) -> str:
    """The machine and the versions."""
    return "\n".join(
        [
            f"  machine: {processor()}, {os.cpu_count()} cores, "
            f"{psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()} {platform.release()}, "
            f"{filesystem(folder)}",
            f"  Trimtab {version('trimtab')}: Python {platform.python_version()}, "
            f"SQLite {sqlite3.sqlite_version}, Granian {version('granian')}, "
            f"SQLAlchemy {version('sqlalchemy')}, mlflow-skinny {version('mlflow-skinny')}",
            f"  stock and client: MLflow {peer['version']}, Python {peer['python']}",
            f"  one fdatasync of 4 KB in the stores' folder: {sync_milliseconds(folder):.3f} ms; "
            f"load averages before: {load()}",
        ]
    )


def sync_milliseconds(folder: Path) -> float:
    """How long the disk takes to keep 4 KB for good: what each durable call waits for at the least."""
    times = []
    handle = os.open(folder / "sync", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        for _ in range(200):
            os.pwrite(handle, bytes(4096), 0)
            began = time.perf_counter()
            os.fdatasync(handle)
            times.append(1000 * (time.perf_counter() - began))
    finally:
        os.close(handle)
    return statistics.median(times)


def processor() -> str:
    """The name of the processor, where Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def filesystem(folder: Path) -> str:
    """The kind of file system that the stores are on."""
    holding = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(holding, key=lambda part: len(part.mountpoint)).fstype if holding else "unknown file system"
