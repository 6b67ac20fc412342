"""What a gateway worker knows at one moment, swapped whole so that no request sees half of a change."""

from __future__ import annotations

import msgspec

from trimtab.serving.access import Access
from trimtab.serving.loaded_endpoints import EMPTY, EndpointTable
from trimtab.serving.prediction_ids import PredictionIds


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
    """Holds the present view. Readers take `view` once for each request; only the watcher replaces it."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.draining = False
        self.in_flight = 0
