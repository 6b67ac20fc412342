"""Threads that work on small requests.

What the standard pool and asyncio do around a call takes longer than most of these calls: a future of each
kind, a condition, and copies from one to the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_Task = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Threads:
    """Up to `most` threads, begun as they are needed and ended with the process."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._begun = 0
        self._busy = 0

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Call `work` in one of the threads; raises what it raises. For one event loop."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._busy += 1
        if self._busy > self._begun and self._begun < self._most:
            self._begun += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._begun}", daemon=True).start()
        self._tasks.put((loop, answer, work, arguments))
        try:
            return await answer
        finally:
            self._busy -= 1

    def _serve(self) -> None:
        while True:
            loop, answer, work, arguments = self._tasks.get()
            outcome: Any = None
            failure: BaseException | None = None
            try:
                outcome = work(*arguments)
            except BaseException as error:  # noqa: BLE001  (raised again where the work was asked for)
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(_settle, answer, outcome, failure)
            del answer, outcome, failure, arguments


def _settle(answer: asyncio.Future[Any], outcome: Any, failure: BaseException | None) -> None:
    if answer.cancelled():
        return
    if failure is None:
        answer.set_result(outcome)
    else:
        answer.set_exception(failure)
