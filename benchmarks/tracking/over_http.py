"""The three servers in turn under the same client, and their own cost under wrk."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.tracking import filling, limits, replay
from benchmarks.tracking.bench import Bench, Measure, figure, milliseconds, parts_of_a_call, rates, spent
from benchmarks.tracking.report import Turn, load, median, ratio
from benchmarks.tracking.servers import Server, null, stock_database

HISTORY = 100_000
RUNS = 10_000
SIDES = ("stock", "trimtab", "null")
REPLAY_AIM = 20.0

MEASURES = (
    Measure("create_run", "create_run", "create_run", aim=4),
    Measure("log_metric", "log_metric, 1 thread", "log_metric", near_null=0.85),
    Measure("log_metric_8", "log_metric, 8 threads", "log_metric", threads=8),
    Measure("log_batch", "log_batch of 1000 (values)", "log_batch", unit="values", aim=5),
    Measure("artifacts", "4 KB artifacts", "log_artifact"),
    Measure("model_version", "model version + alias", "model_version", aim=6),
    Measure("history", f"history of {HISTORY:,} points", "history", unit="", aim=8, given="history"),
    Measure(
        "search_top", f"top 100 of {RUNS:,} runs", "search", unit="", aim=5, given="runs",
        more={"limit": 100, "expected": 100, "order": ["metrics.loss ASC"]},
    ),
    Measure(
        "search_page", f"1,000 of {RUNS:,} runs", "search", unit="", aim=5, given="runs",
        more={"limit": 1000, "expected": 1000},
    ),
)  # fmt: skip
NAMES = (*(measure.name for measure in MEASURES), "replay", "limits")


def over_http(bench: Bench) -> None:
    """Start the servers, prepare what is asked for, and measure."""
    chosen = [measure for measure in MEASURES if measure.name in bench.parts]
    with ExitStack() as stack:
        experiment = ""
        if any(measure.given == "runs" for measure in chosen):
            experiment = filling.fill_trimtab(bench.folder / "trimtab-http", RUNS)
        servers = {name: stack.enter_context(bench.server(name, "http")) for name in ("stock", "trimtab")}
        servers["null"] = stack.enter_context(null(servers["trimtab"].url, bench.folder))
        if chosen:
            prepared: dict[str, dict[str, dict[str, Any]]] = {
                "": {name: {} for name in SIDES},
                "history": histories(bench, servers) if any(m.given == "history" for m in chosen) else {},
                "runs": experiments(bench, servers, experiment) if experiment else {},
            }
            headline(bench)
            for measure in chosen:
                print(
                    line(bench, measure, turns(bench, measure, servers, prepared[measure.given])), flush=True
                )
            print(f"  memory after all that (PSS): {held(servers)}; load averages {load()}")
        if "replay" in bench.parts:
            replayed(bench, servers)
        if "limits" in bench.parts:
            limited(bench, servers["null"])


def histories(bench: Bench, servers: dict[str, Server]) -> dict[str, dict[str, Any]]:
    """A long history at both servers; the null server is asked for Trimtab's."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("stock", "trimtab"):
        done = bench.client.ask("fill_history", uri=servers[name].url, points=HISTORY)
        found[name] = {"run": done["run"], "points": HISTORY}
    return {**found, "null": found["trimtab"]}


def experiments(bench: Bench, servers: dict[str, Server], ours: str) -> dict[str, dict[str, Any]]:
    """An experiment of many runs at both servers; the null server is asked for Trimtab's."""
    theirs: str = bench.client.ask("create_experiment", uri=servers["stock"].url)["experiment"]
    filling.fill_stock(stock_database(bench.folder / "stock-http"), theirs, RUNS)
    return {name: {"experiment": theirs if name == "stock" else ours} for name in SIDES}


def turns(
    bench: Bench, measure: Measure, servers: dict[str, Server], prepared: dict[str, dict[str, Any]]
) -> dict[str, list[Turn]]:
    """Each server's turns; who begins changes from round to round."""
    found: dict[str, list[Turn]] = {name: [] for name in SIDES}
    given = {name: {**measure.more, **prepared[name], "threads": measure.threads} for name in SIDES}
    for name in SIDES:
        bench.warm(bench.client, servers[name].url, measure.what, **given[name])
    for number in range(bench.rounds):
        first = number % len(SIDES)
        for name in (*SIDES[first:], *SIDES[:first]):
            server = servers[name]
            found[name].append(bench.turn(bench.client, server.url, measure.what, server, **given[name]))
    return found


def headline(bench: Bench) -> None:
    print(
        f"\nover HTTP: medians of {bench.rounds} rounds of {bench.seconds:g} s (or one call, if that takes "
        "longer) for each server in turn,\ndriven by one process of the same MLflow client. Ratios are "
        "medians of the rounds' ratios; 'most' is that of the null\nserver to stock, about the bound "
        "that this client sets. CPU is the processor time of all of a server's\nprocesses during its "
        "turns, in milliseconds for a call; 'client' is the client's own, against the null server. 'by CPU'\n"
        "is the ratio of what client and server spend together: what 'x stock' comes to on processors and a "
        "disk that\nnobody else uses."
    )
    print(
        f"  {'':28}{'stock':>10}{'trimtab':>11}{'null':>11}{'x stock':>9}{'most':>8}{'by CPU':>8}"
        f"{'of null':>9}"
        f"{'CPU stock':>11}{'trimtab':>9}{'client':>8}"
    )


def line(bench: Bench, measure: Measure, found: dict[str, list[Turn]]) -> str:
    """One row of the table."""
    stock_side, ours, nothing = (found[name] for name in SIDES)
    times, near = ratio(rates(ours), rates(stock_side)), ratio(rates(ours), rates(nothing))
    by_cpu = ratio(spent(stock_side), spent(ours))
    most = ratio(rates(nothing), rates(stock_side))
    verdicts = []
    if measure.aim is not None:
        why = f"the null server reached {most:.1f}x; {parts_of_a_call(ours)}"
        verdicts.append(bench.verdicts.at_least(f"{measure.title} (x stock)", times, measure.aim, why=why))
    if measure.near_null is not None:
        verdicts.append(
            bench.verdicts.at_least(
                f"{measure.title} (of the null server)",
                near,
                measure.near_null,
                "{:.0%}",
                why=parts_of_a_call(ours),
            )
        )
    own = 1000 * median([turn.client_cpu for turn in nothing])
    return (
        f"  {measure.title:28}{figure(stock_side, measure.unit):>10}{figure(ours, measure.unit):>11}"
        f"{figure(nothing, measure.unit):>11}{times:>8.1f}x{most:>7.1f}x{by_cpu:>7.1f}x"
        f"{near:>9.0%}"
        f"{milliseconds(stock_side):>11}{milliseconds(ours):>9}{own:>8,.2f}  {'; '.join(verdicts)}"
    )


def held(servers: dict[str, Server]) -> str:
    """The memory of the two servers."""
    return ", ".join(f"{name} {servers[name].pss():.0f} MB" for name in ("stock", "trimtab"))


def replayed(bench: Bench, servers: dict[str, Server]) -> None:
    """The servers' own cost, by wrk."""
    print(
        "\nthe server's own cost: requests of the client, recorded and sent again by wrk, each with a time "
        "of its own,\nover as many connections as stands there; CPU is that of all of the server's "
        "processes, in microseconds for a request"
    )
    if not replay.possible():
        print(f"  {replay.NEEDED}")
        return
    pair = ("stock", "trimtab")
    recorded = replay.record(bench.client, servers["null"])
    runs = {name: bench.client.ask("open", uri=servers[name].url)["run"] for name in pair}
    print(f"  {'':22}{'stock':>10}{'trimtab':>11}{'ratio':>8}{'CPU stock':>11}{'trimtab':>9}{'ratio':>8}")
    micro = 1e6
    for request in recorded:
        costs: dict[str, list[replay.Cost]] = {name: [] for name in pair}
        for number in range(bench.rounds):
            for name in pair if number % 2 else reversed(pair):
                costs[name].append(replay.replay(request, servers[name], runs[name], 2 * bench.seconds))
        theirs, ours = (costs[name] for name in pair)
        rate = ratio([cost.rate for cost in ours], [cost.rate for cost in theirs])
        cpu = ratio([cost.cpu for cost in theirs], [cost.cpu for cost in ours])
        verdict = bench.verdicts.at_least(f"wrk {request.name} (requests/s)", rate, REPLAY_AIM)
        frugal = bench.verdicts.at_least(f"wrk {request.name} (CPU)", cpu, REPLAY_AIM)
        failed = {name: sum(cost.failed for cost in costs[name]) for name in pair}
        title = f"{request.name}, {request.connections}"
        print(
            f"  {title:22}{median([cost.rate for cost in theirs]):>8,.0f}/s"
            f"{median([cost.rate for cost in ours]):>9,.0f}/s{rate:>7.1f}x"
            f"{micro * median([cost.cpu for cost in theirs]):>11,.0f}"
            f"{micro * median([cost.cpu for cost in ours]):>9,.0f}"
            f"{cpu:>7.1f}x  {verdict}; CPU {frugal}"
            + "".join(f"; {name} refused {count:,}" for name, count in failed.items() if count),
            flush=True,
        )


def limited(bench: Bench, server: Server) -> None:
    """What the machine allows."""
    print("\nthe limits of this machine")
    rounds = range(bench.rounds)
    posts = median([limits.posts(server.url, bench.seconds) for _ in rounds])
    commits = median([limits.commits(bench.folder, bench.seconds) for _ in rounds])
    rows = median([limits.rows(bench.folder, bench.seconds) for _ in rounds])
    print(f"  {posts:>11,.0f}/s  keep-alive POSTs of one thread of Python's http.client to the null server")
    print(f"  {commits:>11,.0f}/s  durable commits of one row in SQLite (WAL, synchronous=FULL)")
    print(f"  {rows:>11,.0f}/s  rows in durable commits of 10,000", flush=True)
