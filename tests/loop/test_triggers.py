from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from trimtab.errors import InvalidInputError
from trimtab.loop.triggers import (
    Every,
    Observation,
    OnAge,
    OnBias,
    OnDrift,
    OnNewData,
    OnPerformance,
    Trigger,
    fire,
)
from trimtab.monitoring.monitors import Finding

MONDAY = datetime(2011, 9, 5, tzinfo=UTC)
QUIET = Observation(
    at=MONDAY, since=MONDAY - timedelta(days=1), champion=1, champion_since=MONDAY - timedelta(days=30)
)


def seen(**changes: object) -> Observation:
    return msgspec.structs.replace(QUIET, **changes)


def found(kind: str, status: str) -> Finding:
    return Finding(monitor=f"{kind}-7d", kind=kind, status=status, numbers={"value": 0.3})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trigger", "kind"), [(OnDrift(), "drift"), (OnPerformance(), "performance"), (OnBias(), "bias")]
)
def test_an_alert_fires_the_trigger_that_listens_to_it(trigger: Trigger, kind: str) -> None:
    assert fire(trigger, seen(findings=(found(kind, "ok"),))) is None
    assert fire(trigger, seen(findings=(found(kind, "insufficient"),))) is None
    assert fire(trigger, seen(findings=(found("service_level", "alert"),))) is None
    fired = fire(trigger, seen(findings=(found(kind, "alert"),)))
    assert fired is not None
    assert fired.numbers == {"value": 0.3}


def test_an_alert_fires_nothing_while_there_is_no_champion() -> None:
    assert fire(OnBias(), seen(champion=None, findings=(found("bias", "alert"),))) is None


def test_a_schedule_fires_once_for_each_of_its_moments() -> None:
    weekly = Every("week")
    fired = fire(weekly, QUIET)
    assert fired is not None
    assert fired.occasion == MONDAY.isoformat()
    assert fire(weekly, seen(since=MONDAY, at=MONDAY + timedelta(days=6))) is None
    late = fire(weekly, seen(since=MONDAY, at=MONDAY + timedelta(days=9)))
    assert late is not None
    assert late.occasion == (MONDAY + timedelta(days=7)).isoformat()


def test_age_counts_from_the_promotion() -> None:
    assert fire(OnAge(31), QUIET) is None
    fired = fire(OnAge(30), QUIET)
    assert fired is not None
    assert fired.numbers == {"age_days": 30.0, "limit_days": 30}


def test_new_data_counts_from_what_the_last_cycle_was_given() -> None:
    assert fire(OnNewData(100), seen(rows=1099, rows_given=1000)) is None
    fired = fire(OnNewData(100), seen(rows=1100, rows_given=1000))
    assert fired is not None
    assert fired.numbers["new_rows"] == 100


def test_triggers_that_would_always_fire_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="fires always"):
        OnAge(0)
    with pytest.raises(InvalidInputError, match="fires always"):
        OnNewData(rows=0)
    with pytest.raises(InvalidInputError, match="not a schedule"):
        Every("now and then")


def test_triggers_survive_json() -> None:
    triggers: list[Trigger] = [OnDrift(), OnPerformance(), OnBias(), Every("6h"), OnAge(3.5), OnNewData(7)]
    text = msgspec.json.encode(triggers)
    assert msgspec.json.decode(text, type=list[Trigger]) == triggers
