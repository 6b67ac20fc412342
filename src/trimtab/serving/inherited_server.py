"""Granian on a socket that is open already.

Left to itself it opens one that others may share, so that of two workspaces on one port each would take the
other's requests.

It speaks HTTP/1.1 alone: where it also takes HTTP/2, it waits for ever for the first bytes of a connection to
tell which it is, so that a few clients which say nothing keep all others out.
"""

from __future__ import annotations

import resource
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes
from granian.http import HTTP1Settings
from granian.server.embed import Server

from trimtab.serving.listener import BACKLOG

IDLE_SECONDS = 75
"""How long a connection may be without a request, and how long the headers of one may take to come. Longer
than the 60 seconds after which load balancers commonly close their own side, so that none of them sends a
request into a connection that is being closed."""

MOST_CONNECTIONS = 4096
"""Connections that are open at once; more wait until one of them is closed."""

_OTHER_FILES = 256
"""Files that a process needs beside its connections."""


class InheritedServer(Server):
    """Granian in this process, on the socket of this file descriptor, which it closes at its end; `options`
    are Granian's own."""

    def __init__(
        self, target: Any, handle: int, *, idle_seconds: float = IDLE_SECONDS, **options: Any
    ) -> None:
        super().__init__(
            target,
            websockets=False,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=round(idle_seconds * 1000)),
            backpressure=most_connections(),
            **options,
        )
        self._inherited = handle

    def _init_shared_socket(self) -> None:
        self._ssp = None
        # As Granian pickles it; its stub tells less.
        self._shd: Any = SocketHolder(self._inherited, False, BACKLOG)  # type: ignore[call-arg]  # granian has no types here


def most_connections() -> int:
    """How many connections this process may have open, having claimed as many files as it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    return max(128, files - _OTHER_FILES)
