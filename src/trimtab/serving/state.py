"""What a gateway worker knows at one moment, swapped whole so that no request sees half of a change."""

from __future__ import annotations

import asyncio
import threading
import time

import msgspec

from trimtab.serving.access import Access
from trimtab.serving.loaded_endpoints import EMPTY, EndpointTable
from trimtab.serving.prediction_ids import PredictionIds

LOOK_SECONDS = 2.0
START_SECONDS = 1.0
"""How long a request waits for a worker that is starting."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that answering a request needs. `replay_at` is event time (microseconds since 1970) in a
    workspace in replay, None in real time; `trouble` is why the metadata store cannot be read, if so."""

    table: EndpointTable = EMPTY
    access: Access
    ids: PredictionIds | None = None
    replay_at: int | None = None
    trouble: str = ""

    @property
    def ready(self) -> bool:
        """Whether the routes are known and each was tried."""
        return self.ids is not None


class State:
    """Holds the present view. Readers take `view` once for each request; only the watcher replaces it.

    `wanted` asks the watcher to look at the store at once; `looked_at` is when its last look began
    (`time.monotonic()`).
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.draining = False
        self.wanted = threading.Event()
        self.looked_at = 0.0

    async def fresh_view(self) -> View:
        """The view as of a look at the store that began after this call, if the store answers soon."""
        called = time.monotonic()
        self.wanted.set()
        # Polled, since the watcher is a thread of its own.
        while self.looked_at < called and time.monotonic() - called < LOOK_SECONDS:  # noqa: ASYNC110  (polled: see above)
            await asyncio.sleep(0.005)
        return self.view

    async def ready_view(self) -> View:
        """The view once the routes are known, if that is soon."""
        called = time.monotonic()
        while not self.view.ready and time.monotonic() - called < START_SECONDS:  # noqa: ASYNC110  (polled: see above)
            await asyncio.sleep(0.005)
        return self.view
