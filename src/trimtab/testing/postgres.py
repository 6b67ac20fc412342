"""A private PostgreSQL for tests, run from the system's own binaries.

It lives in a temporary folder (in memory where there is room), listens on loopback alone, syncs nothing to
disk and dies with the process that started it. Postgres refuses to run as root, so root starts it as an
ordinary account.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from trimtab.errors import NotFoundError, UnavailableError, missing_extra

START_SECONDS = 60.0
"""How long a server may take to answer, on a busy machine."""

ROOM = 2 * 2**30
"""Bytes that must be free in memory before the server keeps its files there."""

_SUPERUSER = "trimtab"
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "log_min_messages": "error",
}


class _Account(NamedTuple):
    """Whom the server runs as; all None for whoever runs the tests."""

    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None


class PostgresServer:
    """A running server; `url` names one of its databases."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.port = port
        self._process = process
        self._folder = folder

    @classmethod
    def start(cls) -> Self:
        """Make a cluster and serve it on a free port.

        Raises NotFoundError where PostgreSQL is not installed, UnavailableError if it does not start.
        """
        binaries = find_binaries()
        account = _ordinary_account()
        folder = Path(tempfile.mkdtemp(prefix="trimtab-postgres-", dir=_memory()))
        try:
            if account.user is not None and account.group is not None:
                os.chown(folder, account.user, account.group)
            _initialise(binaries, folder, account)
            for _ in range(5):  # somebody else may take the port between our look and the server's
                port = _free_port()
                process = _serve(binaries, folder, port, account)
                if _answers(port, process):
                    return cls(port, process, folder)
                _end(process)
            raise UnavailableError(
                f"PostgreSQL does not start: {_last_words(folder)}", hint=f"Look at {folder}/log."
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def url(self, database: str) -> str:
        """The address of one of the server's databases."""
        return f"postgresql://{_SUPERUSER}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self, *, template: str = "template1") -> Iterator[str]:
        """The address of a fresh database, a copy of `template`, dropped at the end with all that is
        still connected to it."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url(name)
        finally:
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run one statement outside any transaction."""
        try:
            import psycopg
        except ImportError:
            raise missing_extra("psycopg", "postgres") from None
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def stop(self) -> None:
        """End the server and remove its files."""
        _end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`, the newest version that is installed; raises NotFoundError
    if there is none."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    raise NotFoundError(
        "PostgreSQL is not installed (no initdb in /usr/lib/postgresql or on PATH).",
        hint="Install it with: sudo apt-get install postgresql",
    )


def _memory() -> Path | None:
    """A file system in memory with room enough, if there is one: databases are made twenty times faster."""
    shared = Path("/dev/shm")  # noqa: S108  (the folder in it is made by mkdtemp)
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > ROOM
    return shared if roomy else None


def _ordinary_account() -> _Account:
    if os.geteuid() != 0:
        return _Account()
    accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in accounts:
            return _Account(accounts[name].pw_uid, accounts[name].pw_gid, ())
    raise NotFoundError(
        "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody' to run it as."
    )


def _initialise(binaries: Path, folder: Path, account: _Account) -> None:
    made = subprocess.run(
        [
            *(str(binaries / "initdb"), "--pgdata", str(folder / "data"), "--username", _SUPERUSER),
            *("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=_environment(),
        user=account.user,
        group=account.group,
        extra_groups=account.extra_groups,
    )
    if made.returncode:
        raise UnavailableError(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")


def _serve(binaries: Path, folder: Path, port: int, account: _Account) -> subprocess.Popen[bytes]:
    settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port), *settings],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            preexec_fn=_die_with_parent(os.getpid()),
            env=_environment(),
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
        )


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """On Linux, have the kernel end the server when the tests are killed: otherwise it would stay."""
    if sys.platform != "linux":
        return None
    set_death_signal = ctypes.CDLL(None).prctl

    def prepare() -> None:
        set_death_signal(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG; SIGQUIT is Postgres's immediate shutdown
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server lets clients in on `port`; False if it ended instead."""
    # The protocol's greeting. "R" is the answer of a server that is up; one that still starts, and would
    # answer an SSL request already, says "E".
    parameters = f"user\0{_SUPERUSER}\0database\0postgres\0\0".encode()
    greeting = struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(greeting)
            if client.recv(1) == b"R" and process.poll() is None:
                return True
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _last_words(folder: Path) -> str:
    log = folder / "log"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
