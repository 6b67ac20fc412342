"""What protocols ask of the data plane, and what it answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from numpy.typing import NDArray

from trimtab.errors import TrimtabError, UnavailableError
from trimtab.models.encoding import Columns
from trimtab.serving.loaded_endpoints import LoadedEndpoint

LONGEST_KEY = 512

OUTPUT = "prediction"
"""What protocols whose models have outputs by name call the one there is."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request, of whatever protocol: about `columns`, about one `row` by column name, or about a `matrix`:
    rows of numbers in the order of the columns of the version that leads (the one that is pinned, or else
    the primary), all of them numbers, NaN where one is missing.

    `keys` has one key for each row, `key` one for all of them; `request_id` decides who answers where there
    is no key. `version` pins one; `at` is event time in microseconds since 1970; `started` is
    `time.perf_counter_ns()` at its arrival, and `deadline` when its caller stops to wait, by the same clock.
    """

    endpoint: LoadedEndpoint
    columns: Columns = {}
    row: Mapping[str, Any] | None = None
    matrix: NDArray[Any] | None = None
    at: int
    started: int
    key: str | None = None
    keys: list[str | None] | None = None
    request_id: str | None = None
    version: str | None = None
    deadline: int | None = None

    def check_deadline(self) -> None:
        """Raise DeadlineError if nobody waits for the answer any more."""
        limit = self.endpoint.options.timeout_ms
        if limit or self.deadline is not None:
            now = time.perf_counter_ns()
            if (self.deadline is not None and now > self.deadline) or (
                limit and now > self.started + limit * 1_000_000
            ):
                raise DeadlineError(
                    "The request was not begun in time, and is not computed any more.",
                    hint="Send fewer at once, or allow more time.",
                )


class Answer(msgspec.Struct, frozen=True):
    """One prediction for each row, the id of the request (`row_ids` makes the rows' ids), and the version
    that answered each row."""

    id: str
    predictions: list[float]
    versions: list[int]


class OverloadedError(UnavailableError):
    """An endpoint works on as many requests as it may."""

    code = "overloaded"
    http_status = 429


class DeadlineError(UnavailableError):
    """A request's time was over before it was begun."""

    code = "deadline_exceeded"
    http_status = 504


class ModelFailedError(TrimtabError):
    """The model of the version that had to answer raised."""

    code = "model_failed"
