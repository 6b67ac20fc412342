"""What a client told of the ordinary use of MLflow, and what it asked a server for."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.server.mlflow.peers.processes import HERE, bare_environment, stock_server, trimtab_server

_ID = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-z]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FILES_OF_A_VERSION = re.compile(r"/artifacts/(?:trees/ID|\d+/models/m-ID/artifacts)(?=/|$)")


class Told:
    """The answers of one client from one server."""

    def __init__(self, answers: list[tuple[str, Any]], requests: list[dict[str, Any]]) -> None:
        self.answers = answers
        self.requests = requests

    def asked(self) -> Counter[tuple[str, str, int]]:
        """How often which path was asked for by which method, with which status. Where the files of a
        registered version are is for each server to say."""
        return Counter(
            (each["method"], _FILES_OF_A_VERSION.sub("/MODEL", _ID.sub("ID", each["path"])), each["status"])
            for each in self.requests
        )

    def unknown_endpoints(self) -> list[str]:
        """The paths that the server said it does not have."""
        return [each["path"] for each in self.requests if "ENDPOINT_NOT_FOUND" in each.get("answer", "")]

    def failures(self) -> list[dict[str, Any]]:
        """The requests that the server could not answer."""
        return [each for each in self.requests if each["status"] >= 500]


def ordinary_use(python: str, url: str, folder: Path) -> Told:
    """What the script tells when this Python runs it against a server."""
    folder.mkdir()
    answers, requests = folder / "answers.jsonl", folder / "requests.jsonl"
    done = subprocess.run(
        [python, str(HERE / "ordinary_use.py"), url, str(answers), str(requests)],
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = [json.loads(line) for line in answers.read_text().splitlines()]
    return Told(
        [(what, answer) for what, answer in told],
        [json.loads(line) for line in requests.read_text().splitlines()],
    )


def both(python: str, folder: Path) -> tuple[Told, Told]:
    """What the script tells of fresh servers: Trimtab's and MLflow's."""
    with (
        trimtab_server(folder / "trimtab" / "project") as ours,
        stock_server(folder / "mlflow" / "stock") as theirs,
        ThreadPoolExecutor() as threads,
    ):
        first = threads.submit(ordinary_use, python, ours, folder / "ours")
        second = threads.submit(ordinary_use, python, theirs, folder / "theirs")
        return first.result(), second.result()


def differences(ours: Told, theirs: Told) -> list[str]:
    """Where the answers of two servers differ, step by step."""
    assert [what for what, _ in ours.answers] == [what for what, _ in theirs.answers]
    found, chapter = [], ""
    for (what, our_answer), (_, their_answer) in zip(ours.answers, theirs.answers, strict=True):
        chapter = what if what.startswith("#") else chapter
        if our_answer != their_answer:
            found.append(f"{chapter}, {what}: Trimtab {our_answer!r:.2000}, MLflow {their_answer!r:.2000}")
    return found
