"""Granian on a socket that is open already.

Left to itself it opens one that others may share, so that of two workspaces on one port each would take the
other's requests.
"""

from __future__ import annotations

from typing import Any

from granian._granian import SocketHolder
from granian.server.embed import Server

from trimtab.serving.listener import BACKLOG


class InheritedServer(Server):
    """Granian in this process, on the socket of this file descriptor, which it closes at its end; `options`
    are Granian's own."""

    def __init__(self, target: Any, handle: int, **options: Any) -> None:
        super().__init__(target, websockets=False, **options)
        self._inherited = handle

    def _init_shared_socket(self) -> None:
        self._ssp = None
        # As Granian pickles it; its stub tells less.
        self._shd: Any = SocketHolder(self._inherited, False, BACKLOG)  # type: ignore[call-arg]  # granian has no types here
