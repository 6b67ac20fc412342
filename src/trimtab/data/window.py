"""Spans of event time that end at, or shortly before, the time that somebody asks at."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from trimtab.clock import as_utc
from trimtab.errors import InvalidInputError


class Window(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The last `days` and `hours` before some time; `last(...)` makes one.

    `lag_days` and `lag_hours` lie between the window's end and that time.
    """

    days: float = 0
    hours: float = 0
    lag_days: float = 0
    lag_hours: float = 0

    def __post_init__(self) -> None:
        if not self.length > timedelta(0):
            raise InvalidInputError(
                "A window must have a length.",
                hint="Say how long, for example last(days=30) or last(hours=6).",
            )
        if self.lag < timedelta(0):
            raise InvalidInputError("A window cannot end after the time that it is asked at.")

    @property
    def length(self) -> timedelta:
        """How much time the window spans."""
        return _span(self.days, self.hours)

    @property
    def lag(self) -> timedelta:
        """How long before the asking time the window ends."""
        return _span(self.lag_days, self.lag_hours)

    def bounds(self, as_of: datetime) -> tuple[datetime, datetime]:
        """Start (included) and end (excluded) of the window as asked at `as_of`, in UTC."""
        end = as_utc(as_of) - self.lag
        return end - self.length, end

    def before(self, later: Window) -> Window:
        """A window of this length that ends where `later` starts: the rows to train on when `later` is
        held out."""
        return msgspec.structs.replace(
            self, lag_days=later.days + later.lag_days, lag_hours=later.hours + later.lag_hours
        )


def last(*, weeks: float = 0, days: float = 0, hours: float = 0) -> Window:
    """The window of the last `weeks`, `days` and `hours` (added up). Raises InvalidInputError if empty."""
    return Window(days=weeks * 7 + days, hours=hours)


def _span(days: float, hours: float) -> timedelta:
    try:
        return timedelta(days=days, hours=hours)
    except (OverflowError, ValueError) as error:
        raise InvalidInputError(f"{days} days and {hours} hours are not a length of time: {error}.") from None
