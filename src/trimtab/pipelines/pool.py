"""The client of the fork server: children for steps and jobs, and what becomes of them."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from trimtab.errors import UnavailableError
from trimtab.pipelines.channel import Assignment, FrameReader, framed

_REQUEST = struct.Struct("!cI")
_ANSWER = struct.Struct("!cqq")
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""mlflow starts a thread to report its use where this is not set, and a process with threads cannot fork."""

_COMMAND = "import sys; from trimtab.pipelines.zygote import main; main(sys.argv[1:])"


class Child:
    """One child process. `pid` is None until the fork server has made it."""

    def __init__(self, channel: socket.socket, log: Path) -> None:
        self.log = log
        self.pid: int | None = None
        self.started = time.monotonic()
        self._channel = channel
        self._reader = FrameReader()
        self._killed: int | None = None

    def read(self) -> list[bytes]:
        """The messages that have arrived; does not wait."""
        messages: list[bytes] = []
        while True:
            try:
                data = self._channel.recv(2**16)
            except BlockingIOError:
                return messages
            except OSError:
                data = b""
            if not data:
                return messages
            messages.extend(self._reader.feed(data))


class Ended(msgspec.Struct, frozen=True):
    """How a child ended: its exit code, or the number of the signal that killed it."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with code {self.code}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = str(self.signal)
        return f"was killed by {name}"


Event = tuple[Child, bytes | Ended]


class Pool:
    """A connection to a fork server. One thread uses it.

    All children and their descendants are killed when it is closed, or when this process dies.
    """

    def __init__(self, server: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        self._server = server
        self._process = process
        self._answers = bytearray()
        self._awaiting: deque[Child] = deque()
        self._children: dict[int, Child] = {}
        self._ready: deque[Event] = deque()
        self._gone = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(server, selectors.EVENT_READ, None)

    @classmethod
    def start(cls, preload: Iterable[str] = ()) -> Self:
        """Start a fork server of this process's own, with these modules imported."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_QUIET},
                start_new_session=True,
            )
        pool = cls(ours, process)
        pool.preload(preload)
        return pool

    def preload(self, modules: Iterable[str]) -> None:
        """Let the server import these modules before it forks again; what fails is left to the children."""
        names = list(modules)
        if names:
            self._request(b"I", {"modules": names})

    def spawn(self, entry: str, body: bytes, *, log: Path, client: bool = False) -> Child:
        """Start a child that calls `entry` ("module:function") with its channel and `body`.

        Its output goes to the end of the file `log`. With `client` it may start children of its own.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        child = Child(ours, log)
        try:
            with theirs, log.open("ab") as output:
                self._request(b"F", {"client": client}, [theirs.fileno(), output.fileno()])
        except BaseException:
            ours.close()
            raise
        self._awaiting.append(child)
        self._selector.register(ours, selectors.EVENT_READ, child)
        self._send(child, msgspec.msgpack.encode(Assignment(entry, body)))
        return child

    def kill(self, child: Child, number: int = signal.SIGKILL) -> None:
        """Send a signal to a child and its descendants; nothing happens if it has ended."""
        while child in self._awaiting:
            self._take_answers(block=True)
        if child.pid is not None:
            self._request(b"K", {"pid": child.pid, "signal": int(number)})

    def wait(self, timeout: float | None) -> list[Event]:
        """What happened: messages of children and their ends, each child's in order.

        Waits up to `timeout` seconds (None: as long as it takes), and may answer nothing earlier."""
        if not self._ready:
            for key, _ in self._selector.select(timeout):
                if key.data is None:
                    self._take_answers(block=False)
                else:
                    self._take_messages(key.data)
        events = list(self._ready)
        self._ready.clear()
        return events

    @property
    def closed(self) -> bool:
        """Whether the server is gone."""
        return self._gone

    def close(self) -> None:
        """Kill what is left and end the server."""
        self._selector.close()
        self._server.close()
        for child in (*self._children.values(), *self._awaiting):
            child._channel.close()
        if self._process is not None:
            self._process.wait()

    def _send(self, child: Child, message: bytes) -> None:
        """Send a message as fast as the child takes it; a child that died shows as ended anyway."""
        child._channel.setblocking(True)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            child._channel.sendall(framed(message))
        child._channel.setblocking(False)

    def _request(self, letter: bytes, body: dict[str, object], descriptors: list[int] | None = None) -> None:
        data = msgspec.json.encode(body)
        try:
            self._server.setblocking(True)
            whole = _REQUEST.pack(letter, len(data)) + data
            sent = socket.send_fds(self._server, [whole], descriptors or [])
            self._server.sendall(whole[sent:])
        except OSError as error:
            raise self._lost() from error

    def _take_answers(self, *, block: bool) -> None:
        self._server.setblocking(block)
        try:
            data = self._server.recv(_ANSWER.size * 64)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lost() from error
        if not data:
            raise self._lost()
        self._answers += data
        while len(self._answers) >= _ANSWER.size:
            letter, pid, status = _ANSWER.unpack_from(self._answers)
            del self._answers[: _ANSWER.size]
            if letter == b"P":
                child = self._awaiting.popleft()
                child.pid = pid
                self._children[pid] = child
            else:
                self._end(self._children.pop(pid), status)

    def _take_messages(self, child: Child) -> None:
        messages = child.read()
        self._ready.extend((child, message) for message in messages)
        if not messages and child._channel.fileno() >= 0 and _at_end(child._channel):
            self._selector.unregister(child._channel)  # its end is told by the server

    def _end(self, child: Child, status: int) -> None:
        self._ready.extend((child, message) for message in child.read())
        with contextlib.suppress(KeyError):
            self._selector.unregister(child._channel)
        child._channel.close()
        code = os.waitstatus_to_exitcode(status)
        self._ready.append((child, Ended(code, None) if code >= 0 else Ended(None, -code)))

    def _lost(self) -> UnavailableError:
        self._gone = True
        return UnavailableError(
            "The process that starts steps has died.", hint="Run the pipeline again; what is done is cached."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _at_end(channel: socket.socket) -> bool:
    try:
        return channel.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
