"""Leases: who may do a thing now, with a token that grows so that a stale holder can be refused.

Leases run on the system's clock. A holder that was asleep may believe that it still holds one, so each
of its transactions calls `check_fence`, which compares tokens, not times.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import insert, select, update

from trimtab.errors import LeaseLostError
from trimtab.store.database import Database, Transaction
from trimtab.store.schema import leases_table as leases

CLOCK_SKEW = timedelta(seconds=60)
"""How far the clocks of two machines may lie apart. What is further ahead than that was written before a
clock was set back, and is not waited for."""


class Lease(msgspec.Struct, frozen=True):
    """A lease as it was granted; `token` is larger than that of every earlier holder."""

    name: str
    holder: str
    token: int
    expires_at: datetime


class Leases:
    """Grants leases out of the metadata store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """The lease, or None while somebody else's has not run out. Asking again as the same holder
        gives a new token."""

        def work(tx: Transaction) -> Lease | None:
            return acquire_lease(tx, name, holder, seconds=seconds)

        return self._database.write(work, actor=holder)

    def renew(self, lease: Lease, *, seconds: float) -> Lease:
        """The same lease, running `seconds` from now; raises LeaseLostError if it was taken over."""

        def work(tx: Transaction) -> Lease:
            check_fence(tx, lease)
            expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
            tx.execute(update(leases).where(leases.c.name == lease.name).values(expires_at=expires_at))
            return msgspec.structs.replace(lease, expires_at=expires_at)

        return self._database.write(work, actor=lease.holder)

    def release(self, lease: Lease) -> None:
        """Let go, if it is still held; the token keeps counting."""

        def work(tx: Transaction) -> None:
            tx.execute(
                update(leases)
                .where(leases.c.name == lease.name, leases.c.token == lease.token)
                .values(expires_at=datetime.fromtimestamp(0, UTC))
            )

        self._database.write(work, actor=lease.holder)


def acquire_lease(tx: Transaction, name: str, holder: str, *, seconds: float) -> Lease | None:
    """Grant the lease within the caller's transaction; see `Leases.acquire`."""
    now = datetime.now(UTC)
    expires_at = now + timedelta(seconds=seconds)
    standing = tx.execute(select(leases).where(leases.c.name == name).with_for_update()).one_or_none()
    if standing is None:
        tx.execute(insert(leases).values(name=name, holder=holder, token=1, expires_at=expires_at))
        return Lease(name, holder, 1, expires_at)
    runs = now < standing.expires_at <= expires_at + CLOCK_SKEW
    if runs and standing.holder != holder:
        return None
    token = standing.token + 1
    tx.execute(
        update(leases).where(leases.c.name == name).values(holder=holder, token=token, expires_at=expires_at)
    )
    return Lease(name, holder, token, expires_at)


def check_fence(tx: Transaction, lease: Lease) -> None:
    """Raise LeaseLostError unless `lease` is still the newest of its name.

    The row stays locked until the transaction ends, so nobody can take over in between.
    """
    token = tx.execute(
        select(leases.c.token).where(leases.c.name == lease.name).with_for_update()
    ).scalar_one_or_none()
    if token != lease.token:
        raise LeaseLostError(f"'{lease.holder}' lost the lease '{lease.name}' to another holder.")
