"""The process of one model, seen from the one that serves it: started, asked, started again when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab import errors
from trimtab.errors import InvalidInputError, ModelCorruptError, TrimtabError, UnavailableError
from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.messages import (
    Ask,
    Channel,
    Hello,
    ModelRaisedError,
    Refusal,
    ask,
    read_greeting,
    read_reply,
)

START_SECONDS = 60.0
LONGEST_PAUSE = 30.0
MOST_ROWS = 1024
"""Rows of several questions that share one call at most."""

_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV")
"""What of the environment such a process is given; nothing that may be a secret."""

_log = logging.getLogger(__name__)


class _Life:
    """One run of the process: everything that has to be gone after it."""

    def __init__(self, folder: Path, confinement: Confinement, threads: int) -> None:
        self._home = tempfile.mkdtemp(prefix="trimtab-model-")
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.started = time.monotonic()
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "trimtab.models.confined.child"),
                    *("--folder", str(folder.resolve())),
                    *("--socket", str(theirs.fileno())),
                    *("--memory", str(confinement.memory_mb)),
                ],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                cwd=self._home,
                env=_environment(self._home, threads),
                start_new_session=True,
            )

    def end(self) -> str:
        """Kill the process, if it still runs, and all that it started; answers how it ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.process.kill()
        status = self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.channel.close()
        shutil.rmtree(self._home, ignore_errors=True)
        return (
            f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        )


class _Lives:
    """The present run of the process, if there is one; outlives the object that asks it, to end it."""

    def __init__(self) -> None:
        self.present: _Life | None = None

    def end(self) -> str:
        life, self.present = self.present, None
        return life.end() if life is not None else "is gone"


class _Waiting:
    """A question whose asker waits for an outcome."""

    __slots__ = ("asked", "outcome")

    def __init__(self, asked: Ask) -> None:
        self.asked = asked
        self.outcome: NDArray[np.float64] | TrimtabError | None = None


class ConfinedProcess:
    """The process of the model in `folder`. May be asked from several threads, which take turns."""

    def __init__(self, folder: Path, confinement: Confinement, *, threads: int = 1) -> None:
        """Start it, and wait until the model is loaded. Raises what the model's folder deserves, or
        UnavailableError."""
        self._folder = folder
        self._confinement = confinement
        self._threads = threads
        self._seconds = confinement.timeout_ms / 1000
        self._turn = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._lives = _Lives()
        self._greeted = False
        self._deaths = 0
        self._again_at = 0.0
        weakref.finalize(self, self._lives.end)
        self._lives.present = _Life(folder, confinement, threads)
        try:
            self.hello = self._greet(time.monotonic() + START_SECONDS)
        except BaseException:
            self._lives.end()
            raise

    @property
    def pid(self) -> int | None:
        """The id of the process; None while there is none."""
        life = self._lives.present
        return None if life is None else life.process.pid

    def ask(self, asked: Ask) -> NDArray[np.float64]:
        """One answer for each row, or the rows of the matrix one after the other.

        Raises InvalidInputError for rows that the model refuses, ModelRaisedError, and UnavailableError if
        the process died, hangs or has not come back yet.
        """
        waiting = _Waiting(asked)
        self._queue.append(waiting)
        if not self._turn.acquire(timeout=self._seconds):
            with contextlib.suppress(ValueError):  # it is being worked on, too late
                self._queue.remove(waiting)
            raise UnavailableError(
                "The model's process is busy with others for too long.", hint="Come back a little later."
            )
        try:
            while waiting.outcome is None:
                self._work(self._next())
        finally:
            self._turn.release()
        if isinstance(waiting.outcome, Exception):
            raise waiting.outcome
        return waiting.outcome

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._again_at = float("inf")
            self._lives.end()

    def _next(self) -> list[_Waiting]:
        """Those who share the next call: all who wait, up to a number of rows."""
        some = [self._queue.popleft()]
        rows = some[0].asked.rows
        while (
            self._queue
            and self._queue[0].asked.width == some[0].asked.width
            and rows + self._queue[0].asked.rows <= MOST_ROWS
        ):
            some.append(self._queue.popleft())
            rows += some[-1].asked.rows
        return some

    def _work(self, some: list[_Waiting]) -> None:
        """Give each of them an outcome; what the model raises for all together, it is asked one by one."""
        try:
            self._until_ready(time.monotonic() + self._seconds)
            made = self._asked(_joined([waiting.asked for waiting in some]))
        except TrimtabError as error:
            if len(some) > 1 and isinstance(error, ModelRaisedError | InvalidInputError):
                for waiting in some:
                    self._work([waiting])
                return
            for waiting in some:
                waiting.outcome = error
        else:
            start = 0
            for waiting in some:
                end = start + waiting.asked.rows * waiting.asked.wanted
                waiting.outcome = made[start:end]
                start = end

    def _asked(self, asked: Ask) -> NDArray[np.float64]:
        life = self._lives.present
        assert life is not None
        deadline = time.monotonic() + self._seconds
        try:
            life.channel.send(ask(asked), deadline)
            said = read_reply(life.channel.receive(deadline))
        except TimeoutError:
            self._lost(f"did not answer within {self._seconds:g} s and was ended")
            raise UnavailableError(
                f"The model did not answer within {self._seconds:g} s; its process was ended and is started "
                "again.",
                hint="Send fewer rows at once, or raise the setting confined_timeout_ms.",
            ) from None
        except (EOFError, OSError, msgspec.MsgspecError):
            how = self._lost()
            raise UnavailableError(
                f"The model's process {how} while it worked on this; it is started again.",
                hint="The gateway's log has its last words. If it lacks memory: the setting "
                "confined_memory_mb.",
            ) from None
        self._deaths = 0
        if isinstance(said, Refusal):
            raise _error_of(said)
        made = np.frombuffer(said.values, dtype=np.float64)
        if made.size != asked.rows * asked.wanted:
            raise ModelRaisedError(f"The model gave {made.size} answers to {asked.rows} rows.")
        return made

    def _until_ready(self, deadline: float) -> None:
        """Have a process that has loaded the model, by the deadline."""
        life = self._lives.present
        if life is not None and life.process.poll() is not None:
            self._lost()
        if self._lives.present is None:
            if time.monotonic() < self._again_at:
                raise UnavailableError(
                    f"The model's process died {self._deaths} times in a row; it is started again later.",
                    hint="The gateway's log has its last words.",
                )
            self._start()
        if not self._greeted:
            self._greet(deadline)

    def _greet(self, deadline: float) -> Hello:
        life = self._lives.present
        assert life is not None
        try:
            said = read_greeting(life.channel.receive(deadline))
        except TimeoutError:
            if time.monotonic() - life.started > START_SECONDS:
                self._lost("did not load the model in time and was ended")
            raise UnavailableError(
                "The model's process is being started and has not loaded the model yet.",
                hint="Come back a little later.",
            ) from None
        except (EOFError, OSError, msgspec.MsgspecError):
            how = self._lives.end()
            self._died(how)
            raise UnavailableError(
                f"The model's process {how} while it loaded the model.",
                hint="Its last words stand in the log. If it lacks memory: the setting confined_memory_mb.",
            ) from None
        if isinstance(said, Refusal):
            self._died(self._lives.end())
            raise _error_of(said)
        self._greeted = True
        return said

    def _lost(self, how: str = "") -> str:
        """End what is left of the process, and start another at once if it has not died too often."""
        ended = self._lives.end()
        self._died(how or ended)
        if time.monotonic() >= self._again_at:
            self._start()
        return how or ended

    def _died(self, how: str) -> None:
        self._greeted = False
        self._deaths += 1
        pause = 0.0 if self._deaths == 1 else min(0.5 * 2.0**self._deaths, LONGEST_PAUSE)
        self._again_at = max(self._again_at, time.monotonic() + pause)
        _log.error("the process of the model in %s %s", self._folder.name, how)

    def _start(self) -> None:
        self._greeted = False
        self._lives.present = _Life(self._folder, self._confinement, self._threads)


def _joined(asked: list[Ask]) -> Ask:
    """Several questions as one."""
    if len(asked) == 1:
        return asked[0]
    columns = zip(*(each.texts for each in asked), strict=True)
    texts = [[cell for column in same for cell in column] for same in columns]
    numbers = b"".join(each.numbers for each in asked)
    return Ask(sum(each.rows for each in asked), numbers, texts, asked[0].width)


def _environment(home: str, threads: int) -> dict[str, str]:
    kept = {name: value for name in _KEPT if (value := os.environ.get(name)) is not None}
    count = str(threads)
    return {
        **kept,
        "HOME": home,
        "TMPDIR": home,
        "MPLCONFIGDIR": home,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count),
        "POLARS_MAX_THREADS": count,
        "LOKY_MAX_CPU_COUNT": count,
    }


def _error_of(refusal: Refusal) -> TrimtabError:
    if refusal.error == ModelRaisedError.__name__:
        return ModelRaisedError(refusal.message, hint=refusal.hint)
    found = getattr(errors, refusal.error, None)
    if not isinstance(found, type) or not issubclass(found, TrimtabError):
        found = ModelCorruptError
    return found(refusal.message, hint=refusal.hint)
