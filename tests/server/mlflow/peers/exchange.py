"""Requests as bytes on a socket of their own, and the answers, whatever they are."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import msgspec

SECONDS = 20.0
"""How long an answer may take before the connection counts as hanging."""


class Answer(msgspec.Struct, frozen=True):
    """The status and the body of an answer; status 0 if the server hung up without one."""

    status: int
    body: bytes

    @property
    def error_code(self) -> Any:
        """MLflow's code, or None if the body is not in MLflow's shape."""
        try:
            told = json.loads(self.body)
        except ValueError:
            return None
        whole = isinstance(told, dict) and isinstance(told.get("message"), str)
        return told.get("error_code") if whole else None


def request_bytes(
    method: str, target: str, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """A request as it goes out; a header that is given replaces what it would be otherwise."""
    usual = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{method} {target} HTTP/1.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (usual | dict(headers)).items()]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def exchange(url: str, sent: bytes, *, ends: bool = False) -> Answer:
    """Send bytes and read until the server hangs up; raises TimeoutError. With `ends` it is told that no more
    bytes will come."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port), SECONDS) as connection:
        received = b""
        try:
            connection.sendall(sent)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            while some := connection.recv(65536):
                received += some
        except (ConnectionResetError, BrokenPipeError):
            pass  # it hung up while we were still sending
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return Answer(0, b"")
    if b"transfer-encoding: chunked" in head.lower():
        body = _dechunked(body)
    return Answer(int(head.split(b" ", 2)[1]), body)


def _dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        whole, body = whole + body[:length], body[length + 2 :]
    return whole
