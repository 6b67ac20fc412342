"""Durations ("6h", "2d") and schedules ("day", "week", "6h", "0 3 * * 1"), all in event time and UTC.

A schedule is a set of moments that does not depend on when anybody asks: a duration is counted from
Monday 1970-01-05 00:00, so two controllers, or a replay and the real thing, agree on every moment.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from croniter import croniter

from trimtab.errors import InvalidInputError

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_WORDS = {"hour": "0 * * * *", "day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}
_EPOCH = datetime(1970, 1, 5, tzinfo=UTC)


def duration(text: str) -> timedelta:
    """The length that `text` names: a number and s, m, h, d or w. Raises InvalidInputError otherwise."""
    found = _DURATION.fullmatch(str(text).strip())
    if found is None:
        raise InvalidInputError(
            f"{text!r} is not a duration.", hint="Write a number and s, m, h, d or w, as in '6h' or '2d'."
        )
    return float(found[1]) * _UNITS[found[2]]


def check_schedule(text: str) -> None:
    """Raises InvalidInputError unless `text` is a schedule."""
    if text in _WORDS:
        return
    if _DURATION.fullmatch(str(text)):
        if duration(text) < timedelta(minutes=1):
            raise InvalidInputError(f"The schedule '{text}' is too fast.", hint="Give at least one minute.")
        return
    if len(str(text).split()) != 5 or not croniter.is_valid(text):
        raise InvalidInputError(
            f"{text!r} is not a schedule.",
            hint="Write hour, day, week or month, a duration ('6h'), or five cron fields ('0 3 * * 1').",
        )


@lru_cache(maxsize=4096)
def next_time(text: str, after: datetime) -> datetime:
    """The first moment of the schedule later than `after`."""
    if _DURATION.fullmatch(text):
        length = duration(text)
        return _EPOCH + ((after - _EPOCH) // length + 1) * length
    found: datetime = croniter(_WORDS.get(text, text), after).get_next(datetime)
    return found.astimezone(UTC)


@lru_cache(maxsize=4096)
def latest_time(text: str, at: datetime) -> datetime:
    """The last moment of the schedule not later than `at`."""
    if _DURATION.fullmatch(text):
        length = duration(text)
        return _EPOCH + ((at - _EPOCH) // length) * length
    found: datetime = croniter(_WORDS.get(text, text), at + timedelta(microseconds=1)).get_prev(datetime)
    return found.astimezone(UTC)
