"""What protocols ask of the data plane, and what it answers."""

from __future__ import annotations

import msgspec

from trimtab.errors import TrimtabError
from trimtab.models.encoding import Columns
from trimtab.serving.loaded_endpoints import LoadedEndpoint

LONGEST_KEY = 512


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request, of whatever protocol. `keys` has one key for each row, `key` one for all of them;
    `request_id` decides who answers where there is no key. `version` pins one; `at` is event time in
    microseconds since 1970; `started` is `time.perf_counter_ns()` at its arrival."""

    endpoint: LoadedEndpoint
    columns: Columns
    at: int
    started: int
    key: str | None = None
    keys: list[str | None] | None = None
    request_id: str | None = None
    version: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """One prediction for each row, the id of the request (`row_ids` makes the rows' ids), and the version
    that answered each row."""

    id: str
    predictions: list[float]
    versions: list[int]


class ModelFailedError(TrimtabError):
    """The model of the version that had to answer raised."""

    code = "model_failed"
