"""Keeps a gateway's workers and its shipper alive.

    python -m trimtab.serving.supervision --project DIR --host HOST --port PORT --socket FD --workers N

SIGHUP puts new workers in the place of those that run, one after the other; nobody is refused meanwhile.
Each of them ends once the one that follows it answers, so it stays if that one cannot begin.

The gateway role becomes this program once it has checked what there is to check, so that the process that
waits for years holds nothing but the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from trimtab.errors import UnavailableError
from trimtab.serving.lifeline import follow_lifeline

GRACE_SECONDS = 15.0
SUCCESSION_SECONDS = 60.0
"""How long a worker that is to follow another one may take to know its routes and load their models."""
TICK_SECONDS = 0.1
PATIENCE_SECONDS = 3.0
"""How long the shipper waits for a worker to be ready."""
SHIPPER_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "16777216",
    "OPENBLAS_NUM_THREADS": "1",
}
"""It does one thing at a time, and is to give back what a burst of predictions took."""
HEALTHY_SECONDS = 5.0
LONGEST_PAUSE = 5.0
MOST_QUICK_DEATHS = 6

_log = logging.getLogger(__name__)


class Child:
    """A process that is started by the first `tend`, and again when it dies. Its standard input is a pipe
    that ends with us, so that it knows when we are gone. One that `announces` itself gets the option
    `--ready HANDLE`, a pipe that it writes to once it answers."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        handles: Sequence[int] = (),
        announces: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._announces = announces
        self._announcement: int | None = None
        self._ready = False
        self._environment = environment
        self._command = [sys.executable, "-m", *command]
        self._handles = tuple(handles)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._again_at = 0.0
        self._deaths = 0

    def another(self) -> Child:
        """Another of its kind, not started yet."""
        return Child(
            self.name,
            self._command[2:],
            handles=self._handles,
            announces=self._announces,
            environment=self._environment,
        )

    def start(self, *more: str) -> None:
        """Start the process, with `more` arguments this once."""
        command, handles = [*self._command, *more], self._handles
        with contextlib.ExitStack() as ours:
            if self._announces:
                self._forget_announcement()
                self._announcement, handle = os.pipe()
                ours.callback(os.close, handle)
                os.set_blocking(self._announcement, False)
                command += ["--ready", str(handle)]
                handles = (*handles, handle)
            self._started = time.monotonic()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                pass_fds=handles,
                process_group=0,  # out of reach of Ctrl-C; in a session of its own, niceness would not count
                env=None if self._environment is None else {**os.environ, **self._environment},
            )

    def _forget_announcement(self) -> None:
        self._ready = False
        if self._announcement is not None:
            os.close(self._announcement)
            self._announcement = None

    @property
    def running(self) -> bool:
        """Whether it has a process that did not end."""
        return self._process is not None and self._process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether the process announced that it answers."""
        if not self._ready and self._announcement is not None:
            with contextlib.suppress(BlockingIOError):
                self._ready = bool(os.read(self._announcement, 1))
        return self._ready

    def tend(self) -> None:
        """Start it again if it died; later and later if it keeps dying. Raises UnavailableError when it
        has died too often."""
        if self._process is not None and self._process.poll() is not None:
            status, self._process = self._process.returncode, None
            now = time.monotonic()
            self._deaths = 1 if now - self._started > HEALTHY_SECONDS else self._deaths + 1
            if self._deaths > MOST_QUICK_DEATHS:
                raise UnavailableError(f"The gateway's {self.name} keeps dying (status {status}).")
            pause = 0.0 if self._deaths == 1 else min(0.1 * 2**self._deaths, LONGEST_PAUSE)
            self._again_at = now + pause
            _log.error("the %s died (status %s); starting it again", self.name, status)
        if self._process is None and time.monotonic() >= self._again_at:
            self.start()

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            self._process.terminate()

    def dismiss(self) -> None:
        """Ask it to end by the end of its standard input, which it sees even if it has only just begun."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, deadline: float) -> None:
        """Wait for its end until `deadline` (monotonic), then kill it. It is not started again."""
        self._forget_announcement()
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.error("the %s did not end in time and is killed", self.name)
            self._process.kill()
            self._process.wait()


class Supervision:
    """Keeps workers and shipper alive until a signal; then ends the workers first, so that the shipper
    sees all that they wrote. The shipper begins once a worker is ready, or takes long: until then it would
    only keep that from the processor.

    `handles` are of the sockets that are held for the workers. They are closed as soon as those are to end:
    who comes after the last worker is refused, and does not wait until the shipper has ended too.
    """

    def __init__(
        self,
        workers: Sequence[Child],
        shipper: Child,
        *,
        handles: Sequence[int] = (),
        succession_seconds: float = SUCCESSION_SECONDS,
    ) -> None:
        self._workers = list(workers)
        self._shipper = shipper
        self._handles = tuple(handles)
        self._succession_seconds = succession_seconds
        self._shipped_from = time.monotonic() + PATIENCE_SECONDS
        self._stopping = False
        self._reloads = 0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._ask_for_reload)
        try:
            while not self._stopping:
                self._tend()
                if self._reloads:
                    self._reloads = 0
                    self._reload()
        finally:
            self._end()

    def _tend(self) -> None:
        for worker in self._workers:
            worker.tend()
        if time.monotonic() >= self._shipped_from or any(worker.ready for worker in self._workers):
            self._shipped_from = 0.0
            self._shipper.tend()
        time.sleep(TICK_SECONDS)

    def _reload(self) -> None:
        """Replace the workers one by one. A new one takes no connection before it knows its routes, and only
        then the old one is asked to answer what it has and to end. If a new one cannot begin, those that
        were not replaced stay."""
        for place, old in enumerate(list(self._workers)):
            fresh = old.another()
            fresh.start("--successor")
            problem = self._problem_of(fresh)
            if problem:
                _log.error("a new %s %s; those that run stay, and answer as before", fresh.name, problem)
                self._let_go(fresh)
                return
            self._workers[place] = fresh
            self._let_go(old)
            if self._stopping:
                return
        _log.info("all workers were replaced")

    def _let_go(self, worker: Child) -> None:
        """Ask a worker to end and wait for that; if all are to end meanwhile, it ends with them."""
        worker.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        while worker.running and time.monotonic() < deadline:
            if self._stopping:
                self._workers.append(worker)
                return
            self._tend()
        worker.wait(deadline)

    def _problem_of(self, fresh: Child) -> str:
        """Why a worker that was started cannot follow another one; nothing once it is ready."""
        deadline = time.monotonic() + self._succession_seconds
        while not self._stopping and not fresh.ready:
            if not fresh.running:
                return "died"
            if time.monotonic() >= deadline:
                return f"was not ready within {self._succession_seconds:g} s"
            self._tend()
        return ""

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _ask_for_reload(self, _number: int, _frame: object) -> None:
        self._reloads += 1

    def _end(self) -> None:
        for handle in self._handles:
            os.close(handle)
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.terminate()
        for worker in self._workers:
            worker.wait(deadline)
        with contextlib.suppress(UnavailableError):
            self._shipper.tend()  # it may not have begun yet, and there may be something to ship
        self._shipper.dismiss()
        self._shipper.wait(time.monotonic() + GRACE_SECONDS)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.serving.supervision")
    parser.add_argument("--project", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--grpc-port", type=int)
    parser.add_argument("--grpc-socket", type=int)
    parser.add_argument("--lifeline", type=int)
    asked = parser.parse_args()
    if asked.lifeline is not None:
        follow_lifeline(asked.lifeline)
    logging.basicConfig(format="%(asctime)s gateway %(levelname)s %(message)s", level=logging.INFO)
    project = ["--project", asked.project]
    address = ["--host", asked.host, "--port", asked.port, "--socket", str(asked.socket)]
    if asked.workers > 1:
        address.append("--shared")
    if asked.grpc_port is not None:
        address += ["--grpc-port", str(asked.grpc_port)]
    workers = [
        Child(
            "worker", ["trimtab.serving.worker", *project, *address], handles=[asked.socket], announces=True
        )
        for _ in range(asked.workers)
    ]
    shipper = Child("shipper", ["trimtab.serving.shipper", *project], environment=SHIPPER_ENVIRONMENT)
    handles = [handle for handle in (asked.socket, asked.grpc_socket) if handle is not None]
    try:
        Supervision(workers, shipper, handles=handles).run()
    except UnavailableError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
