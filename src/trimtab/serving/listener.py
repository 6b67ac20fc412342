"""Opening a port that nobody else listens on."""

from __future__ import annotations

import socket
import sys

from trimtab.errors import ConflictError

BACKLOG = 1024

SILENT_SECONDS = 60
"""After so long a client that says nothing is asked whether it is there; if not, its connection is closed."""

STALLED_SECONDS = 60
"""So long a client may take none of what is sent to it before its connection is closed."""


def listen(host: str, port: int, *, who: str, option: str) -> socket.socket:
    """A socket that listens on a port of its own.

    Raises ConflictError, in the name of `who`, if the port is taken or the address is not this machine's;
    `option` is where another port is named.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _watch_clients(listener)
        listener.bind((host.strip("[]"), port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConflictError(
            f"The {who} cannot listen on {host}:{port}: {error.strerror}.",
            hint=f"Choose another port with {option}.",
        ) from error
    return listener


def _watch_clients(listener: socket.socket) -> None:
    """Have the system close connections to clients that are gone without a word, or do not read what they
    asked for. Accepted sockets take this over from the one that listens."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":  # elsewhere these have other names, or are not there
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_SECONDS)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SECONDS * 1000)
