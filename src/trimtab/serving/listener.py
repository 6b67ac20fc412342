"""Opening a port that nobody else listens on."""

from __future__ import annotations

import socket

from trimtab.errors import ConflictError

BACKLOG = 1024


def listen(host: str, port: int, *, who: str, option: str) -> socket.socket:
    """A socket that listens on a port of its own.

    Raises ConflictError, in the name of `who`, if the port is taken or the address is not this machine's;
    `option` is where another port is named.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
