"""How an endpoint is served, whatever version answers: limits, and what of its predictions is logged."""

from __future__ import annotations

from typing import Any

import msgspec
from blake3 import blake3

from trimtab.errors import InvalidInputError


class Options(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An endpoint's options; they hold for each gateway worker by itself.

    `max_wait_ms`: how long a single row may wait for others to share a model call with; 0: not at all.
    `max_in_flight`: requests that are worked on at once; more are told to come back. `timeout_ms`: a request
    that was not begun after so long is not computed any more; 0: no limit. `log_share`: of which share of
    requests (by key, or by id) the predictions are logged; what is not logged takes no feedback and is in
    no statistic. `redact`: columns whose values are left out of the log.
    """

    max_wait_ms: float = 0.0
    max_in_flight: int = 512
    timeout_ms: int = 0
    log_share: float = 1.0
    redact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise InvalidInputError(
                    f"The option {name} cannot be {getattr(self, name)}.", hint=f"Use {low:g} to {high:g}."
                )


_RANGES = (
    ("max_wait_ms", 0.0, 1_000.0),
    ("max_in_flight", 1, 100_000),
    ("timeout_ms", 0, 3_600_000),
    ("log_share", 0.0, 1.0),
)

DEFAULT = Options()


class Sampler:
    """Says which requests are logged: always the same of one key, so that its history is whole or none."""

    def __init__(self, share: float) -> None:
        self._limit = round(share * 2**32)

    def takes(self, key: str) -> bool:
        """Whether what belongs to this key is logged."""
        return self._limit >= 2**32 or int.from_bytes(blake3(key.encode()).digest(length=4)) < self._limit


def options_from(kept: Any) -> Options:
    """The options as the store keeps them; None is the default."""
    return DEFAULT if kept is None else msgspec.convert(kept, Options)
