"""The gateway beside other model servers, and beside the least that a server could do.

`make bench-serving`, with ARGS such as "--quick", "--only rows,trees", "--rounds 5" or "--peers all".

wrk asks each server in turn, over 1, 16 and 64 connections, for one row of 30 features, and in batches of
1,000 rows; the model is a scaler with a logistic regression, and once more LightGBM with 200 trees. The
gateway routes, checks, logs each prediction before it answers, and ships its log meanwhile. The peers are in
environments of their own (see peers.py); the limits are Granian with nothing else or with nothing but the
model, and the gateway's own HTTP with nothing but the model. Everything runs on this machine, one server at a
time, started anew in each round.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from benchmarks.serving import load
from benchmarks.serving.contenders import HEAVY_PEERS, MAKERS, PEERS, Contender, bare, ours
from benchmarks.serving.measuring import BATCH_CONNECTIONS, measure
from benchmarks.serving.subject import BATCH, FEATURES, TREES, Subject, make
from benchmarks.serving.tables import (
    Paper,
    batches_table,
    finish,
    judge_batches,
    judge_rows,
    machine,
    rows_table,
    versions,
)
from benchmarks.tracking.report import Verdicts

PARTS = ("rows", "batches", "trees", "two")
RECORD = Path(__file__).with_name("recorded.txt")


class Settings(msgspec.Struct, frozen=True):
    """How long and what to measure. `record`: keep the tables for the page on performance."""

    rounds: int
    seconds: float
    parts: frozenset[str]
    peers: tuple[str, ...]
    record: bool


def settings() -> Settings:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving")
    parser.add_argument("--quick", action="store_true", help="one short round: whether all works")
    parser.add_argument("--rounds", type=int, help="starts of each server (default 3)")
    parser.add_argument("--seconds", type=float, help="length of a turn in whole seconds (default 3)")
    parser.add_argument("--only", default="", help=f"some of: {','.join(PARTS)}")
    parser.add_argument(
        "--peers",
        default="",
        help=f"'all', 'none', or some of: {','.join(PEERS + HEAVY_PEERS)} (default {','.join(PEERS)}; the "
        "others bring hundreds of megabytes)",
    )
    parser.add_argument("--record", action="store_true", help="keep the tables for docs/performance.md")
    given = parser.parse_args()
    parts = frozenset(given.only.split(",")) if given.only else frozenset(PARTS)
    if unknown := parts - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    peers = {"": PEERS, "all": PEERS + HEAVY_PEERS, "none": ()}.get(
        given.peers, tuple(given.peers.split(","))
    )
    if strange := set(peers) - set(MAKERS):
        parser.error(f"there is no peer {', '.join(sorted(strange))}; there are: {', '.join(MAKERS)}")
    rounds, seconds = (1, 1.0) if given.quick else (3, 3.0)
    return Settings(given.rounds or rounds, given.seconds or seconds, parts, peers, given.record)


class Bench(msgspec.Struct, frozen=True):
    """All that the parts need."""

    chosen: Settings
    folder: Path
    subject: Subject
    peers: list[Contender]
    paper: Paper
    verdicts: Verdicts

    def part(
        self, title: str, where: str, contenders: Sequence[Contender], wanted: Sequence[str], workers: int
    ) -> None:
        """Measure some servers, and print their tables."""
        chosen, paper = self.chosen, self.paper
        found = measure(
            contenders,
            wanted,
            workers=workers,
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            folder=self.folder,
        )
        if "row" in wanted:
            paper.say("", f"{title}, one row a request")
            rows_table(paper, found)
            judge_rows(paper, self.verdicts, found, where)
        if "batch" in wanted:
            paper.say("", f"{title}, batches of {BATCH:,} rows over {BATCH_CONNECTIONS} connections")
            batches_table(paper, found)
            judge_batches(paper, self.verdicts, found, where)


def compare(bench: Bench) -> None:
    """All parts that were asked for."""
    subject, parts = bench.subject, bench.chosen.parts
    rows, batches = ("row", "plain"), ("batch", "plain batch", "binary")
    limits = [bare(subject, "onnx"), bare(subject, "none"), bare(subject, "onnx", "own")]
    everybody = [ours(subject, "onnx"), *limits, *bench.peers]
    wanted = (*(rows if "rows" in parts else ()), *(batches if "batches" in parts else ()))
    if wanted:
        bench.part("Scaler and logistic regression, one worker", "one worker", everybody, wanted, 1)
    if "trees" in parts:
        pair = [ours(subject, "trees"), bare(subject, "trees")]
        bench.part(f"LightGBM with {TREES} trees, one worker", f"{TREES} trees", pair, (*rows, *batches), 1)
    if "two" in parts:
        bench.part("Scaler and logistic regression, two workers", "two workers", everybody, rows, 2)


def main() -> None:
    chosen = settings()
    if not load.possible():
        raise SystemExit(load.NEEDED)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all processes are ended
    paper, verdicts = Paper(), Verdicts()
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as name:
        folder = Path(name)
        subject = make(folder)
        peers = [MAKERS[each](subject) for each in chosen.peers]
        paper.say(
            machine(),
            versions(peers),
            f"  {FEATURES} features; medians of {chosen.rounds} rounds of {chosen.seconds:g} s, each server "
            "alone in its turn; CPU and memory (PSS) of all its processes;",
            "  'by CPU' is the ratio of what the answering processes use, which a busy machine changes less",
        )
        compare(Bench(chosen, folder, subject, peers, paper, verdicts))
    paper.say(machine())
    finish(paper, verdicts, RECORD if chosen.record else None)


if __name__ == "__main__":
    main()
