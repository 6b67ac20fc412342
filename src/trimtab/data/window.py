"""Which rows of a dataset somebody wants: a span of event time, a share of all rows, or both."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import msgspec

from trimtab.clock import as_utc
from trimtab.errors import InvalidInputError

Part = tuple[float, float]
"""A share of rows: those whose place in [0, 1) lies from the first number (included) to the second
(excluded). `trimtab.data.row_places` says what a row's place is."""


class Window(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Rows of a dataset, as asked for at some time; `last`, `everything` and `share` make one.

    The last `days` and `hours` before that time, or everything if both are 0; `lag_days` and `lag_hours` lie
    between the window's end and that time. Of these rows, those whose place in [0, 1) lies from `share_from`
    (included) to `share_to` (excluded): a row keeps its place for ever, so a share grows with the dataset
    and no row of it ever leaves.
    """

    days: float = 0
    hours: float = 0
    lag_days: float = 0
    lag_hours: float = 0
    share_from: float = 0
    share_to: float = 1

    def __post_init__(self) -> None:
        if (self.days, self.hours) != (0, 0) and not self.length > timedelta(0):
            raise _empty()
        if self.lag < timedelta(0):
            raise InvalidInputError("A window cannot end after the time that it is asked at.")
        if not 0 <= self.share_from < self.share_to <= 1:
            raise InvalidInputError(
                f"There is no share of rows from {self.share_from:g} to {self.share_to:g}.",
                hint="Give a part of them, for example share(0.1).",
            )

    @property
    def length(self) -> timedelta:
        """How much time the window spans; 0 if it is not limited."""
        return _span(self.days, self.hours)

    @property
    def lag(self) -> timedelta:
        """How long before the asking time the window ends."""
        return _span(self.lag_days, self.lag_hours)

    @property
    def timed(self) -> bool:
        """Whether it is limited in event time, so that only a dataset with a time column has it."""
        return self.length > timedelta(0) or self.lag > timedelta(0)

    @property
    def part(self) -> Part | None:
        """The share of rows that it is limited to; None for all."""
        return None if (self.share_from, self.share_to) == (0, 1) else (self.share_from, self.share_to)

    def bounds(self, as_of: datetime) -> tuple[datetime | None, datetime | None]:
        """Start (included) and end (excluded) in event time as asked at `as_of`, in UTC; None where it is
        not limited."""
        if not self.timed:
            return None, None
        end = as_utc(as_of) - self.lag
        return (end - self.length if self.length else None), end

    def before(self, later: Window) -> Window:
        """A window that has no row of `later`: what to train on when `later` is held out.

        It ends where `later` starts in event time, and keeps its length; if `later` is a share of the rows,
        it is what remains of its own. Raises InvalidInputError if nothing can remain.
        """
        if later.part is None and not later.length:
            raise InvalidInputError(
                "Nothing lies before a window of all rows.", hint="Hold out last(days=...) or share(0.1)."
            )
        changes: dict[str, float] = {}
        if later.length:
            changes |= {"lag_days": later.days + later.lag_days, "lag_hours": later.hours + later.lag_hours}
        if later.part is not None:
            changes |= {"share_from": max(self.share_from, later.share_to)}
        return msgspec.structs.replace(self, **changes)


def last(*, weeks: float = 0, days: float = 0, hours: float = 0) -> Window:
    """The window of the last `weeks`, `days` and `hours` (added up). Raises InvalidInputError if empty."""
    window = Window(days=weeks * 7 + days, hours=hours)
    if not window.length:
        raise _empty()
    return window


def everything() -> Window:
    """All rows up to the time that it is asked at; the window for datasets without event time."""
    return Window()


def share(part: float) -> Window:
    """A fixed pseudo-random share of all rows, `part` of them (between 0 and 1): what to hold out of a
    dataset without event time. Where there is time, hold out the last rows instead: a share lets a model
    learn from the future."""
    if not (math.isfinite(part) and 0 < part < 1):
        raise InvalidInputError(f"{part:g} of the rows is no share of them.", hint="Give share(0.1), say.")
    return Window(share_to=part)


def _empty() -> InvalidInputError:
    return InvalidInputError(
        "A window must have a length.", hint="Say how long, for example last(days=30) or last(hours=6)."
    )


def _span(days: float, hours: float) -> timedelta:
    try:
        return timedelta(days=days, hours=hours)
    except (OverflowError, ValueError) as error:
        raise InvalidInputError(f"{days} days and {hours} hours are not a length of time: {error}.") from None
