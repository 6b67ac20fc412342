"""The process of one model: loads it with mlflow and answers what it is asked.

    python -m trimtab.models.confined.child --folder DIR --socket FD --memory MB

Its standard input is a lifeline: when that ends, so does the process, whatever the model is doing. This is no
sandbox: the process runs as the same user. It keeps a crash, a leak and a hang away from the gateway.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, TrimtabError
from trimtab.models.confined.messages import (
    Answers,
    Ask,
    Channel,
    Hello,
    ModelRaisedError,
    Refusal,
    greeting,
    read_ask,
    reply,
)
from trimtab.models.mlflow_candidate import MlflowCandidate, MlflowColumn
from trimtab.models.signature import Column

_MEGABYTE = 2**20
_OPEN_FILES = 512
_SET_SIGNAL = 10  # F_SETSIG of Linux, which Python's fcntl does not name
_KINDS = {"number": "number", "boolean": "boolean", "text": "text", "time": "text"}


class Child:
    """A loaded model at the end of a channel."""

    def __init__(self, folder: Path) -> None:
        self._model = MlflowCandidate.load(folder, ())
        columns = self._model.columns
        if columns is None:
            raise InvalidInputError(
                "The model has no signature that says which columns it takes.",
                hint="Log it with one: mlflow.models.infer_signature(rows, answers).",
            )
        self._columns = columns
        self._doubles = all(column.type == "double" for column in columns)
        for column in columns:
            if column.kind not in _KINDS:
                raise InvalidInputError(
                    f"The column '{column.name}' is of type {column.type}, which no request can carry.",
                    hint="Numbers, texts, booleans and times can be served.",
                )

    def hello(self) -> Hello:
        """What the model takes, and what it says to its own example."""
        example = self._model.example()
        answers: list[float] = []
        if example and all(column.name in example for column in self._columns if column.required):
            count = len(next(iter(example.values())))
            frame = pl.DataFrame(
                {c.name: _series(c, example[c.name]) for c in self._columns if c.name in example}
            )
            answers = self._model.answers(frame).tolist() if count else []
        return Hello(
            columns=tuple(
                Column(column.name, _KINDS[column.kind], not column.required)  # type: ignore[arg-type]  # a kind
                for column in self._columns
            ),
            whole=tuple(column.name for column in self._columns if column.whole),
            target=self._model.target,
            example=example if answers else {},
            answers=tuple(answers),
        )

    def answer(self, asked: Ask) -> Answers:
        """Answer rows; raises TrimtabError."""
        plain = [column for column in self._columns if column.kind in ("number", "boolean")]
        numbers = np.frombuffer(asked.numbers, dtype=np.float64).reshape(asked.rows, len(plain))
        if self._doubles:
            return self._answered(functools.partial(self._model.answers_to, numbers))
        texts = iter(asked.texts)
        places = iter(range(len(plain)))
        frame = pl.DataFrame(
            [
                _numbers(column, numbers[:, next(places)])
                if column.kind in ("number", "boolean")
                else _series(column, next(texts))
                for column in self._columns
            ]
        )
        return self._answered(functools.partial(self._model.answers, frame))

    @staticmethod
    def _answered(ask: Callable[[], NDArray[np.float64]]) -> Answers:
        try:
            return Answers(ask().tobytes())
        except InvalidInputError as error:  # the rows are what the signature says, so it is not about them
            raise ModelRaisedError(error.message, hint=error.hint) from error


def _numbers(column: MlflowColumn, values: NDArray[np.float64]) -> pl.Series:
    made = pl.Series(column.name, values)
    if np.isnan(values).any():
        made = made.fill_nan(None)
    return made.cast(pl.Boolean) if column.kind == "boolean" else made


def _series(column: MlflowColumn, values: Sequence[Any]) -> pl.Series:
    if column.kind in ("number", "boolean"):
        cells = [None if value is None else float(value) for value in values]
        return _numbers(column, np.array([np.nan if cell is None else cell for cell in cells]))
    made = pl.Series(column.name, values, dtype=pl.String)
    if column.kind == "time":
        try:
            return made.str.to_datetime(time_unit="us")
        except pl.exceptions.PolarsError as error:
            raise InvalidInputError(
                f"The column '{column.name}' has a text that is no time: {error}.",
                hint="Write times as 2026-01-31T12:00:00.",
            ) from error
    return made


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
        child = Child(asked.folder)
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
