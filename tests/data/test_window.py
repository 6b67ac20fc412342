from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from trimtab.data.window import Window, everything, last, share
from trimtab.errors import InvalidInputError

AS_OF = datetime(2011, 9, 1, tzinfo=UTC)


def test_a_window_ends_at_the_time_it_is_asked_at() -> None:
    assert last(days=30).bounds(AS_OF) == (datetime(2011, 8, 2, tzinfo=UTC), AS_OF)


def test_weeks_days_and_hours_add_up() -> None:
    start, end = last(weeks=1, days=1, hours=12).bounds(AS_OF)
    assert start is not None
    assert end is not None
    assert end - start == timedelta(days=8, hours=12)


def test_a_window_before_another_ends_where_that_one_starts() -> None:
    held_out = last(days=14)
    train = last(days=120).before(held_out)
    assert train.bounds(AS_OF)[1] == held_out.bounds(AS_OF)[0]
    assert train.length == timedelta(days=120)


def test_bounds_are_in_utc_whatever_zone_they_are_asked_in() -> None:
    there = AS_OF.astimezone(timezone(timedelta(hours=-5)))
    end = last(hours=1).bounds(there)[1]
    assert end is not None
    assert end.tzinfo is UTC
    assert last(hours=1).bounds(there) == last(hours=1).bounds(AS_OF)


def test_a_window_travels_as_json() -> None:
    window = last(days=120).before(last(hours=6)).before(share(0.25))
    assert msgspec.json.decode(msgspec.json.encode(window), type=Window) == window


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf"), 1e300])
def test_a_window_without_a_length_is_refused(days: float) -> None:
    with pytest.raises(InvalidInputError):
        last(days=days)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="time zone"):
        last(days=1).bounds(datetime(2011, 9, 1))  # noqa: DTZ001


def test_everything_has_no_bounds_and_a_share_none_in_time() -> None:
    for window in (everything(), share(0.1)):
        assert window.bounds(AS_OF) == (None, None)
        assert not window.timed
    assert everything().part is None
    assert share(0.1).part == (0, 0.1)


def test_before_a_share_is_what_remains_of_the_rows() -> None:
    assert everything().before(share(0.1)).part == (0.1, 1)
    assert share(0.5).before(share(0.1)).part == (0.1, 0.5)
    recent = last(days=30).before(share(0.1))
    assert (recent.part, recent.bounds(AS_OF)) == ((0.1, 1), last(days=30).bounds(AS_OF))


def test_before_a_span_of_time_everything_ends_where_it_starts() -> None:
    held_out = last(days=14)
    assert everything().before(held_out).bounds(AS_OF) == (None, held_out.bounds(AS_OF)[0])


def test_where_nothing_can_remain_the_window_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="before a window of all rows"):
        last(days=1).before(everything())
    with pytest.raises(InvalidInputError, match="no share"):
        share(0.1).before(share(0.1))


@pytest.mark.parametrize("part", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_share_is_a_part_of_the_rows(part: float) -> None:
    with pytest.raises(InvalidInputError, match="share"):
        share(part)
