"""How often a loop may start a cycle by itself."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from trimtab.errors import InvalidInputError
from trimtab.loop.schedule import duration


class Budget(msgspec.Struct, frozen=True):
    """At most `cycles_per_day` cycles in any 24 hours, `cooldown` between the end of one and the next, and
    `after_promotion` before a new champion is challenged again. The first version's own cycle starts no
    cooldown. A cycle that a person asks for is never refused, but counts."""

    cycles_per_day: int = 4
    cooldown: str = "6h"
    after_promotion: str = "0h"

    def __post_init__(self) -> None:
        if self.cycles_per_day < 1:
            raise InvalidInputError(
                f"Budget(cycles_per_day={self.cycles_per_day}) lets no cycle start.",
                hint="Give at least 1, or pause the loop.",
            )
        duration(self.cooldown)
        duration(self.after_promotion)


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What a loop has used of its budget: the unfinished cycle, the starts of the last day, the last end,
    and the last promotion that replaced a champion."""

    active: str | None = None
    started: tuple[datetime, ...] = ()
    last_end: datetime | None = None
    last_promotion: datetime | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why no cycle may start now, and from when one may (None where time alone does not help)."""

    because: str
    explanation: str
    until: datetime | None = None


def refusal(budget: Budget, spent: Spent, at: datetime) -> Refusal | None:
    """Why a trigger that fires at `at` starts no cycle; None if it may."""
    if spent.active is not None:
        return Refusal(because="active_cycle", explanation=f"cycle {spent.active} is not finished")
    day = timedelta(days=1)
    recent = sorted(start for start in spent.started if start > at - day)
    if len(recent) >= budget.cycles_per_day:
        until = recent[-budget.cycles_per_day] + day
        words = f"{len(recent)} cycles started within 24 hours (budget {budget.cycles_per_day})"
        return Refusal(because="budget", explanation=words, until=until)
    if spent.last_end is not None and (until := spent.last_end + duration(budget.cooldown)) > at:
        words = f"the last cycle ended at {spent.last_end.isoformat()} (cooldown {budget.cooldown})"
        return Refusal(because="cooldown", explanation=words, until=until)
    if (
        spent.last_promotion is not None
        and (until := spent.last_promotion + duration(budget.after_promotion)) > at
    ):
        since = spent.last_promotion.isoformat()
        words = f"the champion is new since {since} (after_promotion {budget.after_promotion})"
        return Refusal(because="cooldown", explanation=words, until=until)
    return None
