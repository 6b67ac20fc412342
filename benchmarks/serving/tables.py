"""The tables, and the aims beside what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil
from benchmarks.serving.contenders import HEAVY_PEERS, LIMIT, LIMIT_TREES, OURS, PEERS, Contender
from benchmarks.serving.measuring import BATCH_CONNECTIONS, CONNECTIONS, Figures
from benchmarks.serving.subject import BATCH
from benchmarks.tracking.report import Verdicts, load, median, processor, ratio

Found = Mapping[str, Figures]

SHARE = 0.8
TIMES_PEER = 2.5
TIMES_P99 = 1.5
TIMES_BINARY = 3.0
SECONDS = 1.0
MEGABYTES = 150.0

NAMES = {
    "row": "v2 JSON",
    "plain": "plain JSON",
    "batch": "v2 JSON",
    "binary": "v2 binary",
    "plain batch": "plain JSON",
}


class Paper:
    """Prints lines and keeps them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, *lines: str) -> None:
        """Print and keep."""
        for line in lines:
            print(line, flush=True)
            self.lines.append(line.rstrip())


def machine() -> str:
    """The machine, and how busy it is. It is left out of what is recorded."""
    return (
        f"  machine: {processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"{platform.system()} {platform.release()}; load averages {load()}"
    )


def versions(contenders: Sequence[Contender]) -> str:
    """The versions of all that is compared."""
    own = ", ".join(
        f"{name} {version(package)}"
        for name, package in (
            ("Trimtab", "trimtab"),
            ("Granian", "granian"),
            ("ONNX Runtime", "onnxruntime"),
            ("LightGBM", "lightgbm"),
            ("msgspec", "msgspec"),
        )
    )
    peers = [f"{each.title} {each.version}" for each in contenders if each.name in PEERS + HEAVY_PEERS]
    return f"  Python {platform.python_version()}, {', '.join([own, *peers])}"


def rows_table(paper: Paper, found: Found) -> None:
    """One row a request."""
    paper.say(
        f"  {'':36}{'requests/s at ' + ' / '.join(map(str, CONNECTIONS)):>26}{'p50 / p99 us':>17}"
        f"{'CPU us a request at':>22}{'first':>9}{'memory MB':>14}",
        f"  {'':36}{'connections':>26}{'at 16':>17}{'1 / 16 / 64':>22}{'answer':>9}{'fresh / used':>14}",
    )
    for figures in found.values():
        for asked in ("row", "plain"):
            if not figures.asked(asked):
                continue
            title = figures.contender.title + (
                f", {NAMES[asked]}" if figures.contender.name.startswith(OURS) else ""
            )
            rates = " / ".join(f"{figures.median(asked, each, 'rate'):,.0f}" for each in CONNECTIONS)
            cpu = " / ".join(f"{figures.median(asked, each, 'cpu'):,.0f}" for each in CONNECTIONS)
            late = f"{figures.median(asked, 16, 'p50'):,.0f} / {figures.median(asked, 16, 'p99'):,.0f}"
            memory = f"{median(figures.start('memory')):.0f} / {median(figures.start('loaded')):.0f}"
            ready = f"{median(figures.start('ready')):.2f} s"
            paper.say(f"  {title:36}{rates:>26}{late:>17}{cpu:>22}{ready:>9}{memory:>14}")


def batches_table(paper: Paper, found: Found) -> None:
    """Many rows a request."""
    paper.say(f"  {'':48}{'rows/s':>12}{'CPU us a request':>19}{'of it shipping':>16}{'p99 ms':>9}")
    for figures in found.values():
        for asked in ("batch", "plain batch", "binary"):
            if figures.asked(asked):
                title = f"{figures.contender.title}, {NAMES[asked]}"
                if figures.contender.name in PEERS + HEAVY_PEERS:
                    title = figures.contender.title
                at = BATCH_CONNECTIONS
                paper.say(
                    f"  {title:48}{BATCH * figures.median(asked, at, 'rate'):>12,.0f}"
                    f"{figures.median(asked, at, 'cpu'):>19,.0f}{figures.median(asked, at, 'behind'):>16,.0f}"
                    f"{figures.median(asked, at, 'p99') / 1000:>9,.1f}"
                )


def judge_rows(paper: Paper, verdicts: Verdicts, found: Found, where: str) -> None:
    """What was aimed at for one row a request."""
    for own, limit in ((OURS, LIMIT), (f"{OURS} trees", LIMIT_TREES)):
        if own not in found or limit not in found:
            continue
        for asked in ("row", "plain"):
            if found[own].asked(asked):
                _near_limit(paper, verdicts, found[own], found[limit], asked, where)
    _times_peer(paper, verdicts, found, where)
    for own in (OURS, f"{OURS} trees"):
        if own in found:
            _frugal(paper, verdicts, found[own], where)


def _near_limit(
    paper: Paper, verdicts: Verdicts, own: Figures, bare: Figures, asked: str, where: str
) -> None:
    title = f"{where}, {NAMES[asked]}"
    for connections in (16, 64):
        share = ratio(own.over(asked, connections, "rate"), bare.over("row", connections, "rate"))
        cpu = _share_by_cpu(own, bare, asked, connections)
        said = verdicts.at_least(
            f"{title}, requests/s of the bare limit at {connections}", share, SHARE, "{:.0%}",
            why=f"{cpu:.0%} by CPU",
        )  # fmt: skip
        paper.say(
            f"  {NAMES[asked]}, of the bare limit at {connections:2}: {share:5.0%} ({cpu:.0%} by CPU)  {said}"
        )
    late = ratio(own.over(asked, 16, "p99"), bare.over("row", 16, "p99"))
    said = verdicts.below(f"{title}, p99 at 16 (x the bare limit's)", late, TIMES_P99, "{:.2f}x")
    paper.say(f"  {NAMES[asked]}, p99 at 16 beside the bare limit's: {late:.2f}x  {said}")


def _share_by_cpu(own: Figures, bare: Figures, asked: str, connections: int) -> float:
    """What the share of the limit comes to by the processor time that the answering processes use, which a
    busy machine changes less."""
    spent = [
        cpu - behind
        for cpu, behind in zip(
            own.over(asked, connections, "cpu"), own.over(asked, connections, "behind"), strict=True
        )
    ]
    return ratio(bare.over("row" if asked in {"row", "plain"} else "batch", connections, "cpu"), spent)


def _times_peer(paper: Paper, verdicts: Verdicts, found: Found, where: str) -> None:
    peers = [found[name] for name in PEERS + HEAVY_PEERS if name in found]
    if not peers or OURS not in found:
        return
    for connections in CONNECTIONS:
        best = max(peers, key=lambda each: each.median("row", connections, "rate"))
        times = ratio(found[OURS].over("row", connections, "rate"), best.over("row", connections, "rate"))
        frugal = ratio(best.over("row", connections, "cpu"), found[OURS].over("row", connections, "cpu"))
        said = ""
        if connections == 1:
            said = verdicts.at_least(
                f"{where}, x the best peer at 1", times, TIMES_PEER, why=f"{frugal:.1f}x by CPU"
            )
        paper.say(
            f"  v2 JSON, x the best peer at {connections:2} ({best.contender.title}): {times:.1f}x "
            f"({frugal:.1f}x by CPU)  {said}"
        )


def _frugal(paper: Paper, verdicts: Verdicts, own: Figures, where: str) -> None:
    ready, memory = median(own.start("ready")), median(own.start("memory"))
    loaded, apart = median(own.start("loaded")), median(own.start("apart"))
    behind = own.median("row", 16, "behind")
    soon = verdicts.below(f"{where}, first answer", ready, SECONDS, "{:.2f} s")
    small = verdicts.below(f"{where}, memory", memory, MEGABYTES, "{:.0f} MB")
    used = verdicts.below(f"{where}, memory after the load", loaded, MEGABYTES, "{:.0f} MB")
    paper.say(
        f"  first answer after {ready:.2f} s (CPU {median(own.start('starting')):.2f} s)  {soon}",
        f"  memory {memory:.0f} MB  {small}",
        f"  memory after the load {loaded:.0f} MB, of which {apart:.0f} MB in the process that ships the "
        f"log  {used}",
        f"  of the CPU at 16 connections {behind:.0f} us a request were that process's",
    )


def judge_batches(paper: Paper, verdicts: Verdicts, found: Found, where: str) -> None:
    """What was aimed at for many rows a request."""
    at = BATCH_CONNECTIONS
    for own, limit in ((OURS, LIMIT), (f"{OURS} trees", LIMIT_TREES)):
        if own not in found or limit not in found:
            continue
        ours, bare = found[own], found[limit]
        share = ratio(ours.over("batch", at, "rate"), bare.over("batch", at, "rate"))
        cpu = _share_by_cpu(ours, bare, "batch", at)
        said = verdicts.at_least(
            f"{where}, JSON batches of the bare limit", share, SHARE, "{:.0%}", why=f"{cpu:.0%} by CPU"
        )
        paper.say(f"  v2 JSON batches, of the bare limit's: {share:.0%} ({cpu:.0%} by CPU)  {said}")
        times = ratio(ours.over("binary", at, "rate"), bare.over("batch", at, "rate"))
        cpu = _share_by_cpu(ours, bare, "binary", at)
        said = verdicts.at_least(
            f"{where}, binary batches (x the bare limit's in JSON)",
            times,
            TIMES_BINARY,
            why=f"{cpu:.1f}x by CPU",
        )
        paper.say(f"  binary batches, x the bare limit's in JSON: {times:.1f}x ({cpu:.1f}x by CPU)  {said}")


def finish(paper: Paper, verdicts: Verdicts, record: Path | None) -> None:
    """Say what was missed, and keep the tables if asked."""
    paper.say("", f"{verdicts.met} aims met, {len(verdicts.missed)} missed")
    paper.say(*(f"  missed: {line}" for line in verdicts.missed))
    if record is not None:
        kept = [line for line in paper.lines if "machine:" not in line]
        record.write_text("\n".join(kept).strip() + "\n")
