"""Search in an experiment of very many runs."""

from __future__ import annotations

import time

from benchmarks.tracking import filling
from benchmarks.tracking.bench import Bench
from benchmarks.tracking.report import median
from benchmarks.tracking.servers import trimtab

AIM = 0.5
PAGES = 20

QUESTIONS: dict[str, dict[str, object]] = {
    "top 100 by a metric": {"limit": 100, "expected": 100, "order": ["metrics.loss ASC"]},
    "top 100 by a metric, descending": {"limit": 100, "expected": 100, "order": ["metrics.loss DESC"]},
    "page of 1,000, newest first": {"limit": 1000, "expected": 1000},
    "100 with a param": {"limit": 100, "expected": 100, "filter": "params.optimizer = 'sgd'"},
    "100 with metric, param and tag": {
        "limit": 100,
        "expected": 100,
        "filter": "metrics.loss < 0.1 and params.optimizer = 'adam' and tags.team = 'team 3'",
    },
    "top 100 with a filter": {
        "limit": 100,
        "expected": 100,
        "filter": "metrics.accuracy > 0.9",
        "order": ["metrics.loss ASC"],
    },
    "100 by a param": {"limit": 100, "expected": 100, "order": ["params.depth DESC"]},
    "one by its param": {"limit": 100, "expected": 1, "filter": "params.seed = '777'"},
    "100 by name pattern": {"limit": 10, "expected": 10, "filter": "attributes.run_name LIKE 'run 77%'"},
}


def many_runs(bench: Bench, runs: int) -> None:
    """Fill a workspace, and ask the server in several ways."""
    project = bench.folder / "many"
    began = time.perf_counter()
    experiment = filling.fill_trimtab(project, runs)
    size = (project / ".trimtab" / "metadata.db").stat().st_size / 1e9
    print(
        f"\nan experiment of {runs:,} runs (4 params, 3 metrics, 4 tags each), written into the tables in "
        f"{time.perf_counter() - began:.0f} s, {size:.1f} GB;\nseconds from the client's call to its "
        f"answer: the first, and the median of {bench.rounds} turns; and the processor\ntime of the server "
        "and of the client for one"
    )
    with trimtab(project) as server:
        print(f"  ready in {server.ready:.2f} s")
        questions = dict(QUESTIONS)
        for title, order in (("newest first", None), ("by a metric", ["metrics.loss ASC"])):
            token = bench.client.ask(
                "token", uri=server.url, experiment=experiment, pages=PAGES, limit=1000, order=order
            )["token"]
            questions[f"page {PAGES + 1} of 1,000, {title}"] = {
                "limit": 1000, "expected": 1000, "token": token, "order": order,
            }  # fmt: skip
        for title, given in questions.items():
            ask = {**given, "experiment": experiment}
            first = bench.client.ask("turn", uri=server.url, what="search", seconds=0, **ask)
            turns = [
                bench.turn(bench.client, server.url, "search", server, **ask) for _ in range(bench.rounds)
            ]
            took = median([turn.call for turn in turns])
            verdict = bench.verdicts.below(f"{title} of {runs:,} runs", took, AIM, "{:.3f} s")
            server_cpu = 1000 * median([turn.server_cpu for turn in turns])
            client_cpu = 1000 * median([turn.client_cpu for turn in turns])
            print(
                f"  {title:36}{first['seconds']:>9.3f} s{took:>9.3f} s"
                f"{server_cpu:>9,.0f} ms{client_cpu:>9,.0f} ms   {verdict}",
                flush=True,
            )
        print(f"  memory after that (PSS): {server.pss():.0f} MB")
