"""Event time moves forward only, and is always aware."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from trimtab import clock
from trimtab.clock import FixedClock, SystemClock, as_utc, parse_time
from trimtab.errors import ClockWentBackError, InvalidInputError

NOON = datetime(2012, 3, 1, 12, tzinfo=UTC)


def test_a_fixed_clock_refuses_to_go_back() -> None:
    fixed = FixedClock(NOON)
    fixed.set(NOON + timedelta(hours=1))
    with pytest.raises(ClockWentBackError, match="cannot go back"):
        fixed.set(NOON)
    assert fixed.now() == NOON + timedelta(hours=1)


def test_the_system_clock_stands_still_while_the_machine_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [NOON, NOON - timedelta(days=1), NOON + timedelta(seconds=1)]

    class Machine(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # nobody subclasses it further
            return times.pop(0)

    system = SystemClock()
    monkeypatch.setattr(clock, "datetime", Machine)
    assert [system.now() for _ in range(3)] == [NOON, NOON, NOON + timedelta(seconds=1)]


def test_times_are_brought_to_utc_and_naive_ones_refused() -> None:
    east = NOON.astimezone(timezone(timedelta(hours=2)))
    assert as_utc(east).tzinfo is UTC
    with pytest.raises(InvalidInputError, match="no time zone"):
        as_utc(datetime(2012, 3, 1))  # noqa: DTZ001  (that it is naive is the point)


@pytest.mark.parametrize("text", ["2012-03-01T12:00:00Z", "2012-03-01T13:00:00+01:00"])
def test_a_time_is_read_as_rfc_3339(text: str) -> None:
    assert parse_time(text) == NOON


@pytest.mark.parametrize("text", ["", "yesterday", "2012-03-01T12:00:00", "2012-13-01T00:00:00Z"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInputError, match="2011-09-01T00:00:00Z"):
        parse_time(text)
