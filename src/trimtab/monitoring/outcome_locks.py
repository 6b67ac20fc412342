"""Locks of outcomes: who writes those of an endpoint sees what others wrote before, until its commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sqlalchemy import func, select

from trimtab.store.database import Transaction


def hold_outcomes(tx: Transaction, endpoints: Iterable[str]) -> None:
    """Wait until nobody else writes outcomes of these endpoints, and keep others from it until the end of the
    transaction. Whoever needs several endpoints names them all at once, since all take them in one order.

    A label that is told while the transaction runs which brings its prediction would see no prediction, and
    the prediction no label that waits. SQLite lets one transaction write at a time anyway.
    """
    if tx.connection.dialect.name != "postgresql":
        return
    for endpoint in sorted(set(endpoints)):
        key = int.from_bytes(hashlib.sha256(f"outcomes:{endpoint}".encode()).digest()[:8], "big", signed=True)
        tx.execute(select(func.pg_advisory_xact_lock(key)))
