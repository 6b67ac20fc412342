"""A buffer of metrics in memory, written to the store by a thread in the background.

Taking a value costs well under a microsecond's work and no lock; what was taken is durable within
`DELAY` and the time of one write, and at `close` and at the end of the process in any case.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections import deque
from datetime import datetime
from typing import SupportsFloat, TypeAlias, cast

from trimtab.errors import ConflictError, TrimtabError, UnavailableError
from trimtab.store.types import to_microseconds
from trimtab.tracking.metrics import Batch, MetricWriter, number, pack, whole
from trimtab.tracking.params_and_tags import checked_key
from trimtab.workspace import Workspace

DELAY = 0.02
"""Seconds for which values gather before they are written together."""

LIMIT = 100_000
"""Calls that may wait in memory; the caller that finds more of them writes them itself."""

PATIENCE = 30.0
"""Seconds for which a store that does not answer is tried again before `flush` gives up."""

_LONGEST_PAUSE = 1.0

Column: TypeAlias = "tuple[list[int], list[int], list[float]]"


class MetricBuffer:
    """Takes metrics of one run and writes them in batches, each exactly once.

    A store that does not answer is tried again with the same batch. Any other failure to write (the run
    was deleted) is raised by the next call. Close it, or use it as a context manager.
    """

    def __init__(self, workspace: Workspace, run_id: str) -> None:
        self.run_id = run_id
        self._clock = workspace.clock
        self._actor = workspace.actor
        self._writer = MetricWriter(workspace.database)
        self._entries: deque[tuple[dict[str, SupportsFloat], int | None, datetime]] = deque()
        self._checked: set[str] = set()
        self._next_steps: dict[str, int] = {}
        self._batch: Batch = {}  # what was taken out of the entries and is not yet known to be written
        self._sequence = 0
        self._failure: TrimtabError | None = None
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def take(self, values: dict[str, SupportsFloat], step: int | None = None) -> None:
        """Take values of this moment. The dictionary is kept and may be changed here: leave it alone then.

        Without a step, each key counts on from its last one in this buffer, from 0. Raises
        InvalidInputError for what is no number, and what an earlier write failed with.
        """
        for key, value in values.items():
            if type(value) is not float:
                values[key] = number(value)  # no key is added, so going on is safe
            if key not in self._checked:
                self._checked.add(checked_key(key))
        if step is not None:
            step = whole(step)
        if self._failure is not None or self._thread is None or self._process != os.getpid():
            self._begin()
        self._entries.append((values, step, self._clock.now()))
        if not self._wake.is_set():
            self._wake.set()
        if len(self._entries) > LIMIT:
            self.flush()

    def flush(self) -> None:
        """Return once all that was taken is durable; raises UnavailableError if the store has not
        answered for `PATIENCE` seconds, and what else the write fails with."""
        deadline = time.monotonic() + PATIENCE
        pause = DELAY
        while True:
            try:
                self._write()
                break
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._raise_failure()

    def close(self) -> None:
        """Flush and stop. Closing twice is fine."""
        atexit.unregister(self.close)
        if self._process != os.getpid():
            return  # a forked child holds a copy; what is in it is the parent's to write
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()

    def _begin(self) -> None:
        """What comes before the first value, or hinders any more of them."""
        self._raise_failure()
        if self._process != os.getpid():
            raise ConflictError(
                f"This process was forked from the one that logs the run {self.run_id}.",
                hint="Start processes by 'spawn' or 'forkserver', and open the run in each.",
            )
        if self._closed.is_set():
            raise ConflictError(f"The log of run {self.run_id} is closed.", hint="Open the run again.")
        with self._writing:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="trimtab-log", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _write_on(self) -> None:
        pause = DELAY
        while not self._closed.is_set():
            self._wake.wait()
            self._closed.wait(pause)
            self._wake.clear()  # before the entries are read, so that whatever comes later wakes again
            try:
                self._write()
                pause = DELAY
            except UnavailableError:
                self._wake.set()
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _write(self) -> None:
        """Write what was taken until now, in the order in which it was; raises UnavailableError, keeps
        what else goes wrong for `_raise_failure`."""
        with self._writing:
            waiting = len(self._entries)  # what comes later gathers for the next time
            while self._failure is None and (self._batch or waiting > 0):
                if not self._batch:
                    self._batch = self._drain()
                    self._sequence += 1
                    waiting -= LIMIT
                try:
                    self._writer.write(self.run_id, self._batch, self._sequence, actor=self._actor)
                except UnavailableError:
                    raise
                except TrimtabError as error:
                    self._failure = error
                self._batch = {}

    def _drain(self) -> Batch:
        columns: dict[str, tuple[list[int], list[int], list[SupportsFloat]]] = {}
        steps = self._next_steps
        at: datetime | None = None
        microseconds = 0
        with contextlib.suppress(IndexError):  # the deque is empty: all are taken
            for _ in range(LIMIT):
                values, step, taken_at = self._entries.popleft()
                if taken_at is not at:
                    at, microseconds = taken_at, to_microseconds(taken_at)
                for key, value in values.items():
                    column = columns.get(key)
                    if column is None:
                        column = columns[key] = ([], [], [])
                    at_step = steps.get(key, 0) if step is None else step
                    steps[key] = at_step + 1
                    column[0].append(at_step)
                    column[1].append(microseconds)
                    column[2].append(value)
        return {key: pack(*cast("Column", column)) for key, column in columns.items()}

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> MetricBuffer:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except TrimtabError as failure:
            if error is None:
                raise
            # What went wrong first is what the caller has to see first.
            error.add_note(f"The last metrics of run {self.run_id} were not written: {failure}")
