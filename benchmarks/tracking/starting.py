"""How soon the servers answer, and what they hold then."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec
from benchmarks.tracking.bench import Bench
from benchmarks.tracking.report import median
from benchmarks.tracking.servers import Server, stock

SETTLE_SECONDS = 2.0
STARTS = 3


class Start(msgspec.Struct, frozen=True):
    """One start: seconds, processor seconds, megabytes."""

    ready: float
    cpu: float
    memory: float
    processes: int


def ready(bench: Bench) -> None:
    """Start each server several times over the same store, and print the medians."""
    print(
        "\nready: from the start of the process to the first 200 at /health, over a store that stands; CPU: "
        "processor\ntime of all its processes until then; memory: PSS of all its processes "
        f"{SETTLE_SECONDS:.0f} s later"
    )
    kinds: dict[str, Callable[[], AbstractContextManager[Server]]] = {
        "stock, with its job runners (default)": lambda: stock(
            bench.python, bench.folder / "stock-ready", jobs=True
        ),
        "stock, without them": lambda: bench.server("stock", "ready"),
        "trimtab": lambda: bench.server("trimtab", "ready"),
    }
    for name in ("stock", "trimtab"):
        with bench.server(name, "ready") as server:
            print(f"  {name + ', making its store':38} {server.ready:6.2f} s")
    found: dict[str, list[Start]] = {}
    for _ in range(min(bench.rounds, STARTS)):
        for name, start in kinds.items():
            with start() as server:
                time.sleep(SETTLE_SECONDS)
                found.setdefault(name, []).append(
                    Start(server.ready, server.starting, server.pss(), server.processes())
                )
    for name, starts in found.items():
        took, held = median([start.ready for start in starts]), median([start.memory for start in starts])
        cpu = median([start.cpu for start in starts])
        verdict = ""
        if name == "trimtab":
            soon = bench.verdicts.below("ready", took, 1.5, "{:.2f} s")
            small = bench.verdicts.below("memory after start", held, 150, "{:.0f} MB")
            verdict = f"{soon}; {small}"
        print(
            f"  {name:38} {took:6.2f} s (CPU {cpu:.2f} s) {held:6.0f} MB in {starts[0].processes} processes  "
            f"{verdict}",
            flush=True,
        )
