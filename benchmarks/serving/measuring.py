"""One server at a time is started, asked, loaded and ended; who begins changes from round to round."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from benchmarks.serving.contenders import Contender
from benchmarks.serving.load import Turn, background, held_apart, turn
from benchmarks.tracking.report import median
from benchmarks.tracking.servers import Server

CONNECTIONS = (1, 16, 64)
BATCH_CONNECTIONS = 4
LOADED_SECONDS = 2.0
"""After so long all processes of a server have loaded what they need."""

WARM_SECONDS = 1.0
SETTLE_SECONDS = 5.0
"""How long to wait for the log to be shipped before the next turn."""


class Stay(msgspec.Struct):
    """What one start of a server gave. `turns` by what was asked and over how many connections; `memory` and
    `loaded` in megabytes before and after the load, `apart` what background processes hold of the latter."""

    ready: float
    starting: float
    memory: float
    loaded: float
    apart: float
    turns: dict[tuple[str, int], Turn]


class Figures(msgspec.Struct, frozen=True):
    """All stays of one server."""

    contender: Contender
    stays: list[Stay]

    def over(self, asked: str, connections: int, figure: str) -> list[float]:
        """One figure of a turn, for each round."""
        return [getattr(stay.turns[asked, connections], figure) for stay in self.stays]

    def median(self, asked: str, connections: int, figure: str) -> float:
        """Its median."""
        return median(self.over(asked, connections, figure))

    def start(self, figure: str) -> list[float]:
        """One figure of the start, for each round."""
        return [getattr(stay, figure) for stay in self.stays]

    def asked(self, asked: str) -> bool:
        """Whether it was asked so."""
        return any(name == asked for name, _ in self.stays[0].turns)


def measure(
    contenders: Sequence[Contender],
    wanted: Sequence[str],
    *,
    workers: int,
    rounds: int,
    seconds: float,
    folder: Path,
) -> dict[str, Figures]:
    """The figures of all, by name. `wanted`: of "row", "plain", "batch", "binary" and "plain batch"."""
    found = {contender.name: Figures(contender, []) for contender in contenders}
    for number in range(rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            print(f"    round {number + 1}: {contender.name}", file=sys.stderr, flush=True)
            with contender.running(workers, folder) as server:
                found[contender.name].stays.append(stayed(contender, server, wanted, seconds, folder))
    return found


def stayed(contender: Contender, server: Server, wanted: Sequence[str], seconds: float, folder: Path) -> Stay:
    """All turns of one server that has just started."""
    questions = {"row": contender.row, **contender.others}
    time.sleep(LOADED_SECONDS)
    stay = Stay(server.ready, server.starting, server.pss(), 0.0, 0.0, {})
    for asked in wanted:
        if asked not in questions:
            continue
        question = questions[asked]
        turn(server, question, 4, WARM_SECONDS, folder)
        for connections in CONNECTIONS if question.rows == 1 else (BATCH_CONNECTIONS,):
            stay.turns[asked, connections] = turn(server, question, connections, seconds, folder)
        # The log that is still being shipped is not to slow down what is asked next.
        settle(server)
    stay.loaded, stay.apart = server.pss(), held_apart(server)
    return stay


def settle(server: Server) -> None:
    """Wait until the processes behind a server have done their work."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before = background(server)
    while before and time.monotonic() < deadline:
        time.sleep(0.5)
        now = background(server)
        if now - before < 0.05:
            return
        before = now
