"""Event time: what the code asks for when it says "now".

Leases, heartbeats and timeouts alone use the system's clock; everything else takes its time from a
`Clock`, so that history can be replayed through the real system. All times are aware and in UTC.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Protocol

from trimtab.errors import ClockWentBackError, InvalidInputError


class Clock(Protocol):
    """Tells event time."""

    def now(self) -> datetime:
        """The present event time, aware, in UTC."""
        ...

    def refresh(self) -> datetime:
        """Catch up with where event time comes from, and tell it. Roles call this once at the start of
        each pass, so that one pass sees one time."""
        ...


class SystemClock:
    """The machine's clock, made monotone: if the machine's clock goes back, time stands still here."""

    def __init__(self) -> None:
        self._last = datetime.fromtimestamp(0, UTC)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The machine's time, never earlier than an answer given before."""
        with self._lock:
            self._last = max(self._last, datetime.now(UTC))
            return self._last

    def refresh(self) -> datetime:
        """The same as `now`."""
        return self.now()


class FixedClock:
    """A clock that stands where it was set."""

    def __init__(self, at: datetime) -> None:
        self._at = as_utc(at)

    def now(self) -> datetime:
        """The time it was last set to."""
        return self._at

    def refresh(self) -> datetime:
        """The same as `now`."""
        return self._at

    def set(self, at: datetime) -> None:
        """Move to `at`; raises ClockWentBackError if that is earlier than now."""
        at = as_utc(at)
        if at < self._at:
            raise went_back(self._at, at)
        self._at = at


def went_back(present: datetime, asked: datetime) -> ClockWentBackError:
    """The error for moving event time from `present` back to `asked`."""
    return ClockWentBackError(
        f"Event time cannot go back from {present.isoformat()} to {asked.isoformat()}.",
        hint="Start a new workspace to replay from an earlier time.",
    )


def as_utc(at: datetime) -> datetime:
    """`at` in UTC; raises InvalidInputError if it has no time zone."""
    if at.tzinfo is None:
        raise InvalidInputError(
            f"The time {at.isoformat()} has no time zone.", hint="Give one, for example 2011-09-01T00:00:00Z."
        )
    return at.astimezone(UTC)


def parse_time(text: str) -> datetime:
    """An RFC 3339 time ("2011-09-01T00:00:00Z"); raises InvalidInputError if it is not one."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"'{text}' is not a time.", hint="Write it as in 2011-09-01T00:00:00Z (RFC 3339)."
        ) from None
    return as_utc(at)
