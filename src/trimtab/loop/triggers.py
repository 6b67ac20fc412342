"""What starts a cycle, as pure rules over what a controller observes."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from trimtab.errors import InvalidInputError
from trimtab.loop.schedule import check_schedule, latest_time
from trimtab.monitoring.monitors import Finding, Number


class OnDrift(msgspec.Struct, frozen=True, tag="on_drift", tag_field="kind"):
    """Fires when a drift monitor raises an alert."""


class OnPerformance(msgspec.Struct, frozen=True, tag="on_performance", tag_field="kind"):
    """Fires when a performance monitor raises an alert."""


class OnBias(msgspec.Struct, frozen=True, tag="on_bias", tag_field="kind"):
    """Fires when a bias monitor raises an alert: answers lean one way against the labels."""


class Every(msgspec.Struct, frozen=True, tag="every", tag_field="kind"):
    """Fires at each moment of a schedule: "day", "week", "month", a duration, or five cron fields (UTC)."""

    schedule: str

    def __post_init__(self) -> None:
        check_schedule(self.schedule)


class OnAge(msgspec.Struct, frozen=True, tag="on_age", tag_field="kind"):
    """Fires when the champion has been champion for this many days."""

    days: float

    def __post_init__(self) -> None:
        if not self.days > 0:
            raise InvalidInputError(f"OnAge(days={self.days}) fires always.", hint="Give more than 0.")


class OnNewData(msgspec.Struct, frozen=True, tag="on_new_data", tag_field="kind"):
    """Fires when the dataset holds this many rows more than the last cycle was given."""

    rows: int

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InvalidInputError(f"OnNewData(rows={self.rows}) fires always.", hint="Give at least 1.")


Trigger = OnDrift | OnPerformance | OnBias | Every | OnAge | OnNewData

WATCHED_BY: dict[type, str] = {OnDrift: "drift", OnPerformance: "performance", OnBias: "bias"}
"""The kind of monitor that each alert-driven trigger listens to."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that triggers may depend on, at one moment of event time.

    `since` is the moment of the last look. `rows` counts the dataset's rows now, `rows_given` those of the
    version that the last cycle was given (None before the first).
    """

    at: datetime
    since: datetime
    findings: tuple[Finding, ...] = ()
    dataset_version: int | None = None
    rows: int = 0
    rows_given: int | None = None
    champion: int | None = None
    champion_since: datetime | None = None


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger that fired: why, in words and in numbers. `occasion` is the same for the same occurrence."""

    trigger: str
    occasion: str
    reason: str
    numbers: dict[str, Number]


def fire(trigger: Trigger, seen: Observation) -> Firing | None:
    """Whether `trigger` fires on what was seen; only a schedule fires while there is no champion."""
    match trigger:
        case Every(schedule=schedule):
            moment = latest_time(schedule, seen.at)
            if moment <= seen.since:
                return None
            return _firing(trigger, moment, f"scheduled: every {schedule}", {"moment": moment.isoformat()})
        case OnAge(days=days):
            if seen.champion is None or seen.champion_since is None:
                return None
            age = (seen.at - seen.champion_since) / timedelta(days=1)
            if age < days:
                return None
            reason = f"version {seen.champion} has been champion for {age:.1f} days (limit {days:g})"
            return _firing(trigger, seen.at, reason, {"age_days": age, "limit_days": days})
        case OnNewData(rows=rows):
            new = seen.rows - (seen.rows_given or 0)
            if seen.champion is None or new < rows:
                return None
            reason = f"{new} new rows since the last cycle (limit {rows})"
            return _firing(trigger, seen.at, reason, {"new_rows": new, "limit_rows": rows, "rows": seen.rows})
        case _:
            return _on_alert(trigger, seen)


def _on_alert(trigger: Trigger, seen: Observation) -> Firing | None:
    if seen.champion is None:
        return None
    alerts = [f for f in seen.findings if f.kind == WATCHED_BY[type(trigger)] and f.status == "alert"]
    if not alerts:
        return None
    numbers: dict[str, Number] = {}
    for found in alerts:
        numbers |= {
            f"{found.monitor}.{key}" if len(alerts) > 1 else key: v for key, v in found.numbers.items()
        }
    return _firing(trigger, seen.at, f"alert of {', '.join(f.monitor for f in alerts)}", numbers)


def _firing(trigger: Trigger, moment: datetime, reason: str, numbers: dict[str, Number]) -> Firing:
    return Firing(trigger=name(trigger), occasion=moment.isoformat(), reason=reason, numbers=numbers)


def name(trigger: Trigger) -> str:
    """The trigger's name in the records: its kind, "on_drift" say."""
    return str(trigger.__struct_config__.tag)
