"""The fork server: one small, warm process that forks a child for each step attempt and each job.

It imports what its client asks for, and uses none of it, so a child starts in milliseconds with all of it
in place. It has one thread. Clients speak to it over stream sockets; a child may get a socket of its own
and become a client. When a client goes away, its children are killed with all their descendants, so
nothing outlives who wanted it.

A request is a letter, the length of its JSON body, and the body:

    I  import modules, as well as they can be
    F  fork; two descriptors come along: the child's channel and the file for its output
    K  kill a child and its descendants: {"pid": ..., "signal": ...}

Answers are a letter and two numbers: P (forked: pid), X (ended: pid, wait status).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from trimtab.pipelines.channel import Channel, serve_task

REQUEST = struct.Struct("!cI")
ANSWER = struct.Struct("!cqq")

_PR_SET_PDEATHSIG = 1


@dataclass(eq=False)
class _Client:
    socket: socket.socket
    children: set[int] = field(default_factory=set)


class Zygote:
    """Serves fork requests until its first client goes away."""

    def __init__(self, first: socket.socket) -> None:
        self._first = _Client(first)
        self._clients = {self._first}
        self._owners: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._prctl = _load_prctl()

    def serve(self) -> None:
        """Run the loop."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the client decides; its end is this one's end
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._selector.register(self._first.socket, selectors.EVENT_READ, self._first)
        while self._first in self._clients:
            for key, _ in self._selector.select():
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                    self._reap()
                elif key.data in self._clients:
                    self._answer(key.data)
        for client in list(self._clients):
            self._drop(client)

    def _answer(self, client: _Client) -> None:
        request = _receive(client.socket)
        if request is None:
            self._drop(client)
            return
        letter, body, descriptors = request
        if letter == b"I":
            _import_modules(body["modules"])
        elif letter == b"F":
            self._fork(client, body, descriptors)
        elif letter == b"K" and body["pid"] in client.children:
            _kill_group(body["pid"], body["signal"])

    def _fork(self, client: _Client, body: dict[str, Any], descriptors: list[int]) -> None:
        channel, output = descriptors
        ours, theirs = socket.socketpair() if body["client"] else (None, None)
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError:
            # No process to be had; the client sees a child that ended at once.
            self._tell(client, b"P", 0, 0)
            self._tell(client, b"X", 0, 127 << 8)
            pid = -1
        if pid == 0:
            self._become_child(channel, output, theirs)
        for descriptor in descriptors:
            os.close(descriptor)
        if theirs is not None:
            theirs.close()
        if pid > 0:
            client.children.add(pid)
            self._owners[pid] = client
            if ours is not None:
                nested = _Client(ours)
                self._clients.add(nested)
                self._selector.register(ours, selectors.EVENT_READ, nested)
            self._tell(client, b"P", pid, 0)
        elif ours is not None:
            ours.close()

    def _become_child(self, channel: int, output: int, theirs: socket.socket | None) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            if self._prctl is not None:
                self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            for client in self._clients:
                client.socket.close()
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            _refresh_streams()
            with Channel(socket.socket(fileno=channel)) as opened:
                code = serve_task(opened, theirs)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:  # noqa: BLE001  (the child's last word goes to its log)
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for pid in list(self._owners):
            if not _has_ended(pid):
                continue
            _kill_group(pid, signal.SIGKILL)  # what the child itself may have started
            _, status = os.waitpid(pid, 0)
            owner = self._owners.pop(pid)
            if owner in self._clients:
                owner.children.discard(pid)
                self._tell(owner, b"X", pid, status)

    def _tell(self, client: _Client, letter: bytes, pid: int, status: int) -> None:
        with contextlib.suppress(OSError):  # a client that is gone; its socket's end is seen soon
            client.socket.sendall(ANSWER.pack(letter, pid, status))

    def _drop(self, client: _Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.socket)
        client.socket.close()
        for pid in client.children:
            _kill_group(pid, signal.SIGKILL)


def _import_modules(names: Sequence[str]) -> None:
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        with contextlib.suppress(Exception):  # whoever really needs it gets the error then
            importlib.import_module(name)
    if missing:
        gc.collect()
        gc.freeze()  # so that children's collections do not copy these pages


def _receive(source: socket.socket) -> tuple[bytes, dict[str, Any], list[int]] | None:
    try:
        head, ancillary, _, _ = source.recvmsg(REQUEST.size, socket.CMSG_LEN(2 * array.array("i").itemsize))
        while 0 < len(head) < REQUEST.size:
            more = source.recv(REQUEST.size - len(head))
            if not more:
                return None
            head += more
        if not head:
            return None
        letter, length = REQUEST.unpack(head)
        body = b""
        while len(body) < length:
            more = source.recv(length - len(body))
            if not more:
                return None
            body += more
    except OSError:
        return None
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return letter, json.loads(body) if body else {}, list(descriptors)


def _has_ended(pid: int) -> bool:
    """Whether a child is over; its id stays its own until it is waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _refresh_streams() -> None:
    """Give a forked child unbuffered lines on the files that its descriptors are now."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        cast("Any", stream).reconfigure(line_buffering=True)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:  # the copy must not repeat its siblings' numbers
        numpy_random.seed()


def _load_prctl() -> Any:
    """The system call that lets a child die with its parent; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    return ctypes.CDLL(None, use_errno=True).prctl


def main(arguments: Sequence[str]) -> None:
    """Serve on the socket whose descriptor is the first argument."""
    Zygote(socket.socket(fileno=int(arguments[0]))).serve()
