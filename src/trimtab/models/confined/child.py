"""The process of one model: loads it, by its own code, and answers what it is asked.

    python -m trimtab.models.confined.child --folder DIR --socket FD --memory MB

Its standard input is a lifeline: when that ends, so does the process, whatever the model is doing. This is no
sandbox: the process runs as the same user. It keeps a crash, a leak and a hang away from the gateway.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Protocol

from trimtab.errors import TrimtabError
from trimtab.models.confined.messages import (
    Answers,
    Ask,
    Channel,
    Hello,
    Refusal,
    greeting,
    read_ask,
    reply,
)
from trimtab.models.specification import SPECIFICATION_FILE, STEPS_RUNTIME, read_specification

_MEGABYTE = 2**20
_OPEN_FILES = 512
_SET_SIGNAL = 10  # F_SETSIG of Linux, which Python's fcntl does not name


class Child(Protocol):
    """A loaded model at the end of a channel."""

    def hello(self) -> Hello:
        """What the model takes, and what it says to its own example."""
        ...

    def answer(self, asked: Ask) -> Answers:
        """Answer rows; raises TrimtabError."""
        ...


def load(folder: Path) -> Child:
    """Load the model in a folder: one that Trimtab packaged, a program or with its steps, or else MLflow's
    way."""
    if (folder / SPECIFICATION_FILE).is_file():
        if read_specification(folder).runtime == STEPS_RUNTIME:
            from trimtab.models.confined.steps_child import StepsChild  # noqa: PLC0415  (Polars: 0.3 s)

            return StepsChild(folder)
        from trimtab.models.confined.program_child import ProgramChild  # noqa: PLC0415  (PyTorch: 2 s)

        return ProgramChild(folder)
    from trimtab.models.confined.mlflow_child import MlflowChild  # noqa: PLC0415  (mlflow, pandas: 2 s)

    return MlflowChild(folder)


def _follow_lifeline() -> None:
    """End with the process that holds the other end of standard input, even if this one never comes back from
    a model's native code."""
    if sys.platform == "linux":
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, _SET_SIGNAL, signal.SIGKILL)
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, name="trimtab-lifeline", daemon=True).start()


def _limit(memory_mb: int) -> None:
    limits = [(resource.RLIMIT_NOFILE, _OPEN_FILES), (resource.RLIMIT_CORE, 0)]
    if memory_mb:
        limits.append((resource.RLIMIT_AS, memory_mb * _MEGABYTE))
    for which, wanted in limits:
        hard = resource.getrlimit(which)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (limit, limit))


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, TrimtabError):
        return Refusal(type(error).__name__, error.message, error.hint)
    return Refusal("ModelCorruptError", f"The model raised {type(error).__name__}: {error}.")


def main() -> None:
    """Load, say hello, and answer until the other end is gone."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.models.confined.child")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    asked = parser.parse_args()
    _follow_lifeline()
    _limit(asked.memory)
    os.dup2(2, 1)  # what the model prints is no answer
    channel = Channel(socket.socket(fileno=asked.socket))
    try:
        child = load(asked.folder)
        hello: Hello | Refusal = child.hello()
    except Exception as error:  # noqa: BLE001  (whatever its code raises is told, and this process ends)
        channel.send(greeting(_refusal(error)))
        os._exit(0)
    channel.send(greeting(hello))
    try:
        while True:
            question = read_ask(channel.receive())
            try:
                said: Answers | Refusal = child.answer(question)
            except Exception as error:  # noqa: BLE001  (whatever its code raises fails this question only)
                said = _refusal(error)
            channel.send(reply(said))
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main()
