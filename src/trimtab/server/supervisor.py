"""The supervisor behind `trimtab up`: runs the four roles as processes and restarts what dies.

A role that the supervisor loses ends by itself, since it watches a pipe that only the supervisor holds
open. A folder workspace has one supervisor at a time, held by a lock that dies with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from trimtab.errors import AlreadyRunningError, RefusedError, UnavailableError
from trimtab.serving.listener import listen

ROLES = ("server", "gateway", "worker", "controller")

MISCONFIGURED = 2
"""The exit status by which a role says that starting it again cannot help."""

FIRST_DELAY = 0.05
LONGEST_DELAY = 5.0
HOPELESS_DELAY = 30.0
STEADY_SECONDS = 10.0
TRIM_SECONDS = 10.0
LARGEST_LOG = 16 * 2**20
STOP_SECONDS = 20.0


class Address(msgspec.Struct, frozen=True):
    """Where the two HTTP roles listen."""

    host: str
    port: int
    gateway_port: int

    @classmethod
    def unused(cls) -> Address:
        """Two ports of the loopback that nobody listens on at this moment."""
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            return cls("127.0.0.1", one.getsockname()[1], two.getsockname()[1])

    def url(self, role: str) -> str:
        """The base URL of the server or the gateway, as seen from this machine."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104  (compared, not bound)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.gateway_port if role == 'gateway' else self.port}"


class RoleProcess:
    """One role: its process, if it runs, and when to start it again if it does not."""

    def __init__(self, role: str, command: list[str], log: Path) -> None:
        self.role = role
        self.restarts = -1
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._started = 0.0
        self._delay = FIRST_DELAY
        self._due = 0.0
        self._worked = False
        self._trimmed = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def tend(self) -> str | None:
        """Start or restart the process if that is due; answers what happened, if anything did.

        Raises RefusedError when the role says that it cannot work as it is configured, and never has: one
        that has worked is tried again, since the others can go on without it.
        """
        self._trim_log()
        if self.pid is not None:
            if time.monotonic() - self._started > STEADY_SECONDS:
                self._delay = FIRST_DELAY
                self._worked = True
            return None
        if self._process is not None:
            status = self._process.wait()
            self._process = None
            os.close(self._lifeline)
            if status == MISCONFIGURED:
                if not self._worked:
                    raise RefusedError(f"The {self.role} cannot start: {self.last_words()}")
                self._due = time.monotonic() + HOPELESS_DELAY
                return f"{self.role} cannot start and is tried again later: {self.last_words()}"
            self._due = time.monotonic() + self._delay
            self._delay = min(self._delay * 2, LONGEST_DELAY)
            ending = f"signal {-status}" if status < 0 else f"status {status}"
            return f"{self.role} ended by {ending}; it is started again"
        if time.monotonic() < self._due:
            return None
        self._start()
        return None

    def _start(self) -> None:
        watched, self._lifeline = os.pipe()
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._command, "--lifeline", str(watched)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(watched,),
                    start_new_session=True,  # the terminal's Ctrl-C goes to the supervisor alone
                )
        finally:
            os.close(watched)
        self._started = time.monotonic()
        self.restarts += 1

    def _trim_log(self) -> None:
        """Keep the log below a size, and its last part beside it: a role that has the same trouble for weeks
        must not fill the disk."""
        if time.monotonic() < self._trimmed:
            return
        self._trimmed = time.monotonic() + TRIM_SECONDS
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > LARGEST_LOG:
                shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                os.truncate(self._log, 0)  # the role appends, wherever the end is

    def stop(self) -> None:
        """Ask the process to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until it has ended; past the deadline end it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._lifeline)
        self._process = None

    def last_words(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1]
        return f"see {self._log}"


class Supervisor:
    """Runs the roles of one project until told to stop.

    `report` is told in plain words about what happens to the roles.
    """

    def __init__(self, project: Path, address: Address, *, report: Callable[[str], None]) -> None:
        self.address = address
        self._report = report
        self._state = project.resolve() / ".trimtab"
        self._logs = self._state / "logs"
        self.roles = {
            role: RoleProcess(
                role,
                [
                    sys.executable, "-m", "trimtab.server.roles", role, "--dir", str(project.resolve()),
                    "--host", address.host, "--port", str(address.port),
                    "--gateway-port", str(address.gateway_port),
                ],
                self._logs / f"{role}.log",
            )
            for role in ROLES
        }  # fmt: skip
        self._stopping = threading.Event()

    def run(
        self, ready: Callable[[], None] | None = None, *, first: Callable[[], None] | None = None
    ) -> None:
        """Supervise until `stop`; `ready` is called once, when both ports answer, and `first` before any role
        starts, once this is the only supervisor.

        Raises AlreadyRunningError if another supervisor holds this folder, RefusedError if a role cannot
        work as configured, ConflictError if a port is taken.
        """
        with self._alone():
            self._check_ports()
            if first is not None:
                first()
            self._logs.mkdir(exist_ok=True)
            try:
                told = ready is None
                while not self._stopping.is_set():
                    for role in self.roles.values():
                        if (event := role.tend()) is not None:
                            self._report(event)
                    if not told and self.healthy():
                        told = True
                        assert ready is not None
                        ready()
                    self._stopping.wait(0.05)
            finally:
                self._end_roles()

    @contextlib.contextmanager
    def running(self, *, timeout: float = 60.0) -> Iterator[Supervisor]:
        """Supervise in a thread while the block runs, from when both ports answer.

        Raises UnavailableError if they do not within `timeout` seconds.
        """
        ready = threading.Event()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                self.run(ready.set)
            except BaseException as error:  # noqa: BLE001  (raised again in the thread that waits)
                failures.append(error)
                ready.set()

        thread = threading.Thread(target=run, name="trimtab-supervisor")
        thread.start()
        try:
            if not ready.wait(timeout):
                raise UnavailableError(
                    f"The roles did not become ready within {timeout:.0f} s.",
                    hint=f"See {self._logs}.",
                )
            if failures:
                raise failures[0]
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Make `run` end the roles and return; may be called from a signal handler or another thread."""
        self._stopping.set()

    def healthy(self) -> bool:
        """Whether both ports answer their health route, and all roles run."""
        return all(role.pid is not None for role in self.roles.values()) and all(
            answers(f"{self.address.url(role)}/health") for role in ("server", "gateway")
        )

    def _check_ports(self) -> None:
        """Find out now what the roles would find out only once they are up: another program that answers on
        a port of theirs looks like the role itself."""
        address = self.address
        with (
            listen(address.host, address.port, who="server", option="--port"),
            listen(address.host, address.gateway_port, who="gateway", option="--gateway-port"),
        ):
            pass

    def _end_roles(self) -> None:
        # The controller and the worker first: what they still decide, server and gateway can still serve.
        deadline = time.monotonic() + STOP_SECONDS
        for group in (("controller", "worker"), ("server", "gateway")):
            for role in group:
                self.roles[role].stop()
            for role in group:
                self.roles[role].wait(deadline)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._state.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._state / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 32).decode() or "another process"
                raise AlreadyRunningError(
                    f"`trimtab up` is already running on this folder (process {holder}).",
                    hint="Stop that one first, or use another folder.",
                ) from None
            os.truncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            yield
        finally:
            os.close(handle)


def answers(url: str) -> bool:
    """Whether a GET of `url` gives 200 within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310  (our own http address)
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
