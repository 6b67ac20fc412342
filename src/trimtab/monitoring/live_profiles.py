"""Live profiles: mergeable statistics of what an endpoint was asked and answered, by version and day.

They are merged in the transaction that indexes the log rows they describe, so a kill neither loses nor
doubles them. Monitoring costs by features, not by traffic.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, select

from trimtab.data.profiles import Profile
from trimtab.monitoring.schema import live_profiles_table as profiles
from trimtab.monitoring.schema import service_counts_table as counts
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.workspace import Workspace

ANSWER = "(answer)"
"""The column of a live profile that describes the answers; the others are the request's."""

LATENCY = "(latency ms)"
"""The column that describes how long the gateway worked on a request, in milliseconds."""


def bucket_of(at: datetime) -> datetime:
    """The bucket of an event time: its day in UTC, by its first moment."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


class LiveProfiles:
    """Reads live profiles."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def read(
        self, endpoint: str, start: datetime, end: datetime, *, version: int | None = None
    ) -> Profile | None:
        """The profile of the days that reach into the span from `start` to `end` (excluded), of one version
        or of all; None if there is none."""
        query = select(profiles.c.profile).where(
            profiles.c.endpoint == endpoint, profiles.c.bucket >= bucket_of(start), profiles.c.bucket < end
        )
        if version is not None:
            query = query.where(profiles.c.version == version)
        with self._workspace.read() as connection:
            found = connection.execute(query.order_by(profiles.c.bucket, profiles.c.version)).scalars().all()
        return Profile.merged(Profile.from_bytes(bytes(data)) for data in found) if found else None

    def service(self, endpoint: str, start: datetime, end: datetime) -> tuple[int, int]:
        """How many requests there were on the days that reach into this span, and how many of them the
        gateway failed."""
        with self._workspace.read() as connection:
            found = connection.execute(
                select(counts.c.requests, counts.c.failures).where(
                    counts.c.endpoint == endpoint, counts.c.bucket >= bucket_of(start), counts.c.bucket < end
                )
            ).all()
        return sum(row.requests for row in found), sum(row.failures for row in found)


def merge_profile(
    tx: Transaction, endpoint: str, version: int, bucket: datetime, profile: Profile, rows: int
) -> None:
    """Add the statistics of `rows` predictions to a bucket."""
    standing = tx.execute(
        select(profiles.c.rows, profiles.c.profile)
        .where(profiles.c.endpoint == endpoint, profiles.c.version == version, profiles.c.bucket == bucket)
        .with_for_update()
    ).one_or_none()
    if standing is not None:
        profile = Profile.from_bytes(bytes(standing.profile)).merge(profile)
        rows += standing.rows
    row = {
        "endpoint": endpoint,
        "version": version,
        "bucket": bucket,
        "rows": rows,
        "profile": profile.to_bytes(),
    }
    upsert(tx, profiles, [row], keys=["endpoint", "version", "bucket"])


def count_service(tx: Transaction, endpoint: str, bucket: datetime, *, requests: int, failures: int) -> None:
    """Add to a bucket's counts."""
    standing = tx.execute(
        select(counts.c.requests, counts.c.failures)
        .where(counts.c.endpoint == endpoint, counts.c.bucket == bucket)
        .with_for_update()
    ).one_or_none()
    if standing is not None:
        requests += standing.requests
        failures += standing.failures
    row = {"endpoint": endpoint, "bucket": bucket, "requests": requests, "failures": failures}
    upsert(tx, counts, [row], keys=["endpoint", "bucket"])


def prune_profiles(tx: Transaction, before: datetime) -> None:
    """Drop buckets that begin before a time."""
    tx.execute(delete(profiles).where(profiles.c.bucket < before))
    tx.execute(delete(counts).where(counts.c.bucket < before))
