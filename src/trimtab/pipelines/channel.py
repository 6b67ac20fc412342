"""Messages between a process and a child that the fork server made for it."""

from __future__ import annotations

import importlib
import socket
import struct
from types import TracebackType
from typing import Any, Self, cast

import msgspec

_FRAME = struct.Struct("!I")


class Channel:
    """A child's end of its channel: whole messages, blocking."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._socket.sendall(_FRAME.pack(len(message)) + message)

    def receive(self) -> bytes:
        """The next message; raises EOFError if the other side is gone."""
        (length,) = _FRAME.unpack(self._exactly(_FRAME.size))
        return self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(min(size - len(parts), 2**20))
            if not part:
                raise EOFError("the process that asked for this task is gone")
            parts += part
        return bytes(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


class Assignment(msgspec.Struct, frozen=True):
    """A child's first message: the function "module:name" to call with the channel, the body, and the
    child's own socket to the fork server, if it asked for one."""

    entry: str
    body: bytes


class FrameReader:
    """Puts messages together from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete with these bytes."""
        self._buffer += data
        messages: list[bytes] = []
        while len(self._buffer) >= _FRAME.size:
            (length,) = _FRAME.unpack_from(self._buffer)
            end = _FRAME.size + length
            if len(self._buffer) < end:
                break
            messages.append(bytes(self._buffer[_FRAME.size : end]))
            del self._buffer[:end]
        return messages


def framed(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return _FRAME.pack(len(message)) + message


def serve_task(channel: Channel, pool: socket.socket | None) -> int:
    """A child's life: receive the assignment, carry it out, answer the exit code."""
    try:
        assignment = msgspec.msgpack.decode(channel.receive(), type=Assignment)
    except EOFError:
        return 0
    module, _, name = assignment.entry.partition(":")
    entry = cast("Any", getattr(importlib.import_module(module), name))
    entry(channel, assignment.body, pool)
    return 0
