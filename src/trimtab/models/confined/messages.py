"""What a confined process and the one beside it say to each other: MessagePack frames behind their length.

Numbers travel as raw float64 in row order, texts as lists; neither side reads what could run code.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import msgspec

from trimtab.errors import TrimtabError
from trimtab.models.signature import Column

Texts = list[list[str | None]]

_LENGTH = struct.Struct("<I")
LONGEST = 2**30
"""Bytes of a frame that either side takes at most."""
_CHUNK = 2**20


class ModelRaisedError(TrimtabError):
    """A model's own code raised, or gave what is no answer."""

    code = "model_failed"


class Hello(msgspec.Struct, frozen=True):
    """What a process says once its model is loaded: the columns (those in `whole` take whole numbers only),
    the target, and the model's answers to its own example."""

    columns: tuple[Column, ...]
    whole: tuple[str, ...]
    target: str
    example: dict[str, list[Any]]
    answers: tuple[float, ...]


class Refusal(msgspec.Struct, frozen=True):
    """Why a model is not loaded, or rows are not answered: a class of `trimtab.errors` and its words."""

    error: str
    message: str
    hint: str = ""


class Ask(msgspec.Struct, frozen=True):
    """Rows: the numbers and booleans as a matrix of float64 (NaN: missing), and each column of texts.

    With a `width`, what is wanted are not answers but the matrix of so many columns that the steps of the
    model make for its inner model.
    """

    rows: int
    numbers: bytes
    texts: Texts
    width: int = 0

    @property
    def wanted(self) -> int:
        """How many numbers are wanted for each row."""
        return self.width or 1


class Answers(msgspec.Struct, frozen=True):
    """One float64 for each row, or as many as were wanted."""

    values: bytes


class _Greeting(msgspec.Struct, frozen=True):
    hello: Hello | None = None
    refusal: Refusal | None = None


class _Reply(msgspec.Struct, frozen=True):
    answers: Answers | None = None
    refusal: Refusal | None = None


_encoder = msgspec.msgpack.Encoder()
_greetings = msgspec.msgpack.Decoder(_Greeting)
_asks = msgspec.msgpack.Decoder(Ask)
_replies = msgspec.msgpack.Decoder(_Reply)


def greeting(said: Hello | Refusal) -> bytes:
    """The bytes of what a process says first."""
    return _encoder.encode(_Greeting(said) if isinstance(said, Hello) else _Greeting(refusal=said))


def read_greeting(data: bytes) -> Hello | Refusal:
    """What a process says first; raises msgspec.MsgspecError for bytes that are none."""
    read = _greetings.decode(data)
    return read.hello or read.refusal or Refusal("ModelCorruptError", "The model's process said nothing.")


def ask(said: Ask) -> bytes:
    """The bytes of a question."""
    return _encoder.encode(said)


def read_ask(data: bytes) -> Ask:
    """A question."""
    return _asks.decode(data)


def reply(said: Answers | Refusal) -> bytes:
    """The bytes of an answer."""
    return _encoder.encode(_Reply(said) if isinstance(said, Answers) else _Reply(refusal=said))


def read_reply(data: bytes) -> Answers | Refusal:
    """An answer; raises msgspec.MsgspecError for bytes that are none."""
    read = _replies.decode(data)
    return read.answers or read.refusal or Refusal("ModelCorruptError", "The model's process said nothing.")


class Channel:
    """One end of the connection. What a deadline cut in two is kept for the next call."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = bytearray()

    def send(self, payload: bytes, deadline: float | None = None) -> None:
        """Send a frame; raises TimeoutError at the deadline (`time.monotonic()`), OSError if nobody reads."""
        self._wait_until(deadline)
        self._socket.sendall(_LENGTH.pack(len(payload)) + payload)

    def receive(self, deadline: float | None = None) -> bytes:
        """The next frame; raises TimeoutError at the deadline, EOFError when the other end is gone."""
        (length,) = _LENGTH.unpack(self._first(_LENGTH.size, deadline))
        if length > LONGEST:
            raise EOFError(f"a frame of {length} bytes was announced")
        frame = self._first(_LENGTH.size + length, deadline)[_LENGTH.size :]
        del self._received[: _LENGTH.size + length]
        return frame

    def _first(self, count: int, deadline: float | None) -> bytes:
        while len(self._received) < count:
            self._wait_until(deadline)
            data = self._socket.recv(_CHUNK)
            if not data:
                raise EOFError("the other end is gone")
            self._received += data
        return bytes(self._received[:count])

    def _wait_until(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
