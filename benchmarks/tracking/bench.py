"""What all parts of the benchmark work with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from benchmarks.tracking.report import Turn, Verdicts, median
from benchmarks.tracking.servers import Client, Server, stock, trimtab


class Bench(msgspec.Struct, frozen=True):
    """The folder of all stores, the client, and how long to measure."""

    folder: Path
    python: Path
    client: Client
    verdicts: Verdicts
    rounds: int
    seconds: float
    parts: frozenset[str]

    def server(self, name: str, place: str) -> AbstractContextManager[Server]:
        """One of the two servers, over a store of its own that stays for the next start."""
        if name == "stock":
            return stock(self.python, self.folder / f"stock-{place}")
        return trimtab(self.folder / f"trimtab-{place}")

    def warm(self, client: Client, uri: str, what: str, **given: object) -> None:
        """Have a client do one thing once, with all that has to stand for it."""
        client.ask("turn", uri=uri, what=what, seconds=0, **given)

    def turn(
        self, client: Client, uri: str, what: str, server: Server | None = None, **given: object
    ) -> Turn:
        """Have a client do one thing for a while."""
        before = server.cpu() if server else 0.0
        done = client.ask("turn", uri=uri, what=what, seconds=self.seconds, **given)
        spent = server.cpu() - before if server else 0.0
        calls, threads = int(done["calls"]), int(str(given.get("threads", 1)))
        return Turn(
            rate=done["units"] / done["seconds"],
            call=threads * done["seconds"] / calls,
            server_cpu=spent / calls,
            client_cpu=done["client_cpu"] / calls,
        )


def rates(turns: Sequence[Turn]) -> list[float]:
    """Units a second, a turn each."""
    return [turn.rate for turn in turns]


def spent(turns: Sequence[Turn]) -> list[float]:
    """Processor seconds of the client and the server for a call, a turn each."""
    return [turn.client_cpu + turn.server_cpu for turn in turns]


def parts_of_a_call(turns: Sequence[Turn]) -> str:
    """Where the time of a call goes."""
    whole, client, server = (
        1000 * median(part)
        for part in (
            [turn.call for turn in turns],
            [turn.client_cpu for turn in turns],
            [turn.server_cpu for turn in turns],
        )
    )
    return (
        f"of {whole:,.2f} ms a call the client worked {client:,.2f} and the server {server:,.2f}, and "
        f"{max(0.0, whole - client - server):,.2f} went by waiting for the disk and for a processor"
    )


def figure(turns: Sequence[Turn], unit: str) -> str:
    """The median: units a second, or seconds a call where nothing is counted."""
    if unit:
        return f"{median(rates(turns)):,.0f}/s"
    return f"{median([turn.call for turn in turns]):.3f} s"


def milliseconds(turns: Sequence[Turn]) -> str:
    """The server's processor time for a call."""
    return f"{1000 * median([turn.server_cpu for turn in turns]):,.2f}"


class Measure(msgspec.Struct, frozen=True):
    """One thing that the client does. `unit` is what is counted; without one the time of a call is shown.

    `aim` is the least ratio to stock, `near_null` that to the null server. `given` names what must stand
    beforehand.
    """

    name: str
    title: str
    what: str
    unit: str = "calls"
    aim: float | None = None
    near_null: float | None = None
    threads: int = 1
    given: str = ""
    more: Mapping[str, object] = {}
