from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InvalidInputError
from trimtab.loop.schedule import check_schedule, duration, latest_time, next_time

SCHEDULES = ["hour", "day", "week", "month", "6h", "2d", "1w", "0 3 * * 1", "*/15 * * * *"]
MOMENTS = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(at=MOMENTS, schedule=st.sampled_from(SCHEDULES))
def test_every_moment_lies_between_the_latest_and_the_next(at: datetime, schedule: str) -> None:
    latest, following = latest_time(schedule, at), next_time(schedule, at)
    assert latest <= at < following
    assert next_time(schedule, latest) == following
    assert latest_time(schedule, following) == following
    assert latest_time(schedule, following - timedelta(microseconds=1)) == latest


def test_words_mean_midnight_and_monday() -> None:
    thursday = datetime(2011, 9, 1, 5, 3, tzinfo=UTC)
    assert next_time("day", thursday) == datetime(2011, 9, 2, tzinfo=UTC)
    assert next_time("week", thursday) == datetime(2011, 9, 5, tzinfo=UTC)
    assert next_time("month", thursday) == datetime(2011, 10, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "6", "h", "6 h ours", "-2d", "yearly", "2y"])
def test_a_duration_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a duration"):
        duration(text)


@pytest.mark.parametrize("text", ["fortnight", "0 3 * *", "99 * * * *", "5s"])
def test_a_schedule_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        check_schedule(text)
