"""Without a server: MLflow's client on the plug-in, beside its own store on SQLite; and `trimtab.log`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.tracking import log_values
from benchmarks.tracking.bench import Bench, Measure, parts_of_a_call, rates, spent
from benchmarks.tracking.report import Turn, median, ratio
from benchmarks.tracking.servers import client

from trimtab.workspace import Workspace

MEASURES = (
    Measure("log_metric", "log_metric", "log_metric", aim=5_000),
    Measure("log_metric_8", "log_metric, 8 threads", "log_metric", threads=8),
    Measure("log_batch", "log_batch of 1000 (values)", "log_batch"),
    Measure("create_run", "create_run", "create_run"),
)


def in_process(bench: Bench) -> None:
    """One client by each Python, in turn."""
    print(
        "\nwithout a server, each call durable: the same client on Trimtab's plug-in (in the environment of "
        "this benchmark),\nand on MLflow's SQLite store (in the peer's); CPU is that of the whole process, "
        "in milliseconds for a call"
    )
    project = bench.folder / "in-process"
    Workspace.create(project, actor="benchmark").close()
    print(f"  {'':28}{'stock':>10}{'trimtab':>11}{'x stock':>9}{'by CPU':>8}{'CPU stock':>11}{'trimtab':>9}")
    with client(bench.python) as theirs, client(Path(sys.executable)) as ours:
        sides = {
            "stock": (theirs, f"sqlite:///{bench.folder / 'in-process.db'}"),
            "trimtab": (ours, f"trimtab://{project}"),
        }
        for measure in MEASURES:
            found: dict[str, list[Turn]] = {name: [] for name in sides}
            for used, uri in sides.values():
                bench.warm(used, uri, measure.what, threads=measure.threads)
            for number in range(bench.rounds):
                for name in sides if number % 2 else reversed(sides):
                    used, uri = sides[name]
                    found[name].append(bench.turn(used, uri, measure.what, threads=measure.threads))
            mine = median(rates(found["trimtab"]))
            verdict = ""
            if measure.aim is not None:
                verdict = bench.verdicts.at_least(
                    f"in process {measure.title}",
                    mine,
                    measure.aim,
                    "{:,.0f}/s",
                    why=parts_of_a_call(found["trimtab"]),
                )
            print(
                f"  {measure.title:28}{median(rates(found['stock'])):>8,.0f}/s{mine:>9,.0f}/s"
                f"{ratio(rates(found['trimtab']), rates(found['stock'])):>8.1f}x"
                f"{ratio(spent(found['stock']), spent(found['trimtab'])):>7.1f}x"
                f"{1000 * median(spent(found['stock'])):>11,.2f}"
                f"{1000 * median(spent(found['trimtab'])):>9,.2f}  {verdict}",
                flush=True,
            )


def values(bench: Bench) -> None:
    """`trimtab.log`."""
    print("\ntrimtab.log, in this process (peer: rows written to SQLite with executemany, 10,000 a commit)")
    rate, late = log_values.measured(bench.folder, min(bench.rounds, log_values.ROUNDS))
    print(f"  {bench.verdicts.at_least('trimtab.log', rate, 200_000, '{:,.0f} values/s')}", end="; ")
    print(bench.verdicts.below("lag of trimtab.log, 95 of 100", late, 100, "{:.0f} ms"), flush=True)
