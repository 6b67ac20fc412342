"""What a loop's datasets bring: when their sources are looked at next, and up to when they reach."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import Connection, select

from trimtab.data.schema import dataset_sources_table
from trimtab.data.window import Window

AT_ONCE = datetime.min.replace(tzinfo=UTC)


def data_time(now: datetime, newest: datetime | None, holdout: Window) -> datetime:
    """The event time that a cycle counts its windows back from: now, but for data that ended before the
    hold-out would begin (`newest` is its last row's time), the end of the data.

    So "the last 30 days" of a table that ends in 2012 are its own last 30 days, where fresh data, and a
    replay, know no difference. A hold-out that is a share of all rows has no beginning: any data that ended
    counts from its end.
    """
    begins, _ = holdout.bounds(now)
    if newest is None or newest >= (begins or now):
        return now
    return newest + timedelta(microseconds=1)


def held_out_share(holdout: Window) -> float:
    """The share of all rows that training must not see; 0 if the hold-out is a span of event time."""
    return 0.0 if holdout.part is None else holdout.part[1]


class Due(msgspec.Struct, frozen=True):
    """A dataset with sources, and the earliest event time at which one of them is due."""

    dataset: str
    at: datetime

    @property
    def key(self) -> str:
        """The key under which this look is ordered, once."""
        return f"ingest:{self.dataset}:{'first' if self.at == AT_ONCE else self.at.isoformat()}"


def due_looks(connection: Connection, datasets: Sequence[str]) -> list[Due]:
    """When each of these datasets that has sources is to be looked at next."""
    table = dataset_sources_table.c
    query = select(table.dataset, table.looked_at, table.every_seconds).where(table.dataset.in_(datasets))
    earliest: dict[str, datetime] = {}
    for row in connection.execute(query):
        every = timedelta(seconds=row.every_seconds)
        at = AT_ONCE if row.looked_at is None else row.looked_at + every
        earliest[row.dataset] = min(at, earliest.get(row.dataset, at))
    return [Due(name, at) for name, at in sorted(earliest.items())]
