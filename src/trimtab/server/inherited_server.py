"""Granian on a socket that is open already.

Left to itself it opens one that others may share, so that of two workspaces on one port each would take the
other's requests.

It speaks HTTP/1.1 alone: where it also takes HTTP/2, it waits for ever for the first bytes of a connection to
tell which it is, so that a few clients which say nothing keep all others out.
"""

from __future__ import annotations

from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes
from granian.http import HTTP1Settings
from granian.server.embed import Server

from trimtab.serving.http_server import IDLE_SECONDS, possible_connections
from trimtab.serving.listener import BACKLOG


class InheritedServer(Server):
    """Granian in this process, on the socket of this file descriptor, which it closes at its end; `options`
    are Granian's own. A connection may be without a request for `idle_seconds`, and the head of one may take
    so long to come."""

    def __init__(
        self, target: Any, handle: int, *, idle_seconds: float = IDLE_SECONDS, **options: Any
    ) -> None:
        super().__init__(
            target,
            websockets=False,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=round(idle_seconds * 1000)),
            backpressure=possible_connections(),
            **options,
        )
        self._inherited = handle

    def _init_shared_socket(self) -> None:
        self._ssp = None
        # As Granian pickles it; its stub tells less.
        self._shd: Any = SocketHolder(self._inherited, False, BACKLOG)  # type: ignore[call-arg]  # granian has no types here
