"""Findings and alerts: what monitors found, and what somebody should know of; alerts go to the journal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import RowMapping, delete, insert, select, update

from trimtab.errors import NotFoundError
from trimtab.monitoring.monitors import Finding
from trimtab.monitoring.schema import alerts_table as alerts
from trimtab.monitoring.schema import findings_table as findings
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert: `owner` is the loop it belongs to, `name` the monitor or event it comes from."""

    id: int
    owner: str
    name: str
    status: Literal["open", "resolved"]
    reason: str
    numbers: dict[str, Any]
    opened_at: datetime
    resolved_at: datetime | None


class StoredFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A finding as it was kept."""

    owner: str
    monitor: str
    at: datetime
    status: str
    numbers: dict[str, Any]


class Alerts:
    """Reads alerts and findings, and resolves alerts by hand."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def alerts(self, owner: str | None = None, *, only_open: bool = False, limit: int = 100) -> list[Alert]:
        """Alerts, the newest first."""
        query = select(alerts).order_by(alerts.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(alerts.c.owner == owner)
        if only_open:
            query = query.where(alerts.c.active.is_not(None))
        with self._workspace.read() as connection:
            return [_alert(row) for row in connection.execute(query).mappings()]

    def findings(self, owner: str, *, limit: int = 50) -> list[StoredFinding]:
        """What an owner's monitors found, the newest first."""
        query = select(findings).where(findings.c.owner == owner).order_by(findings.c.id.desc()).limit(limit)
        with self._workspace.read() as connection:
            return [
                StoredFinding(**{name: row[name] for name in StoredFinding.__struct_fields__})
                for row in connection.execute(query).mappings()
            ]

    def resolve(self, id: int, *, reason: str) -> Alert:
        """Close an alert by hand; raises NotFoundError if it is not there. Closing it twice is fine."""

        def work(tx: Transaction) -> Alert:
            row = tx.execute(select(alerts).where(alerts.c.id == id)).mappings().one_or_none()
            if row is None:
                raise NotFoundError(f"There is no alert {id}.", hint="See `trimtab loop alerts`.")
            if row["active"] is not None:
                _resolve(tx, id, row["owner"], row["name"], reason, {})
            return _alert(tx.execute(select(alerts).where(alerts.c.id == id)).mappings().one())

        return self._workspace.write(work)


def record_finding(tx: Transaction, owner: str, finding: Finding, at: datetime) -> None:
    """Keep what a monitor found; open an alert, or resolve the one that is open.

    Too little to judge by leaves an open alert as it is.
    """
    tx.execute(
        insert(findings).values(
            owner=owner, monitor=finding.monitor, at=at, status=finding.status, numbers=finding.numbers
        )
    )
    if finding.status == "alert":
        open_alert(tx, owner, finding.monitor, reason=words(finding), numbers=finding.numbers)
    elif finding.status == "ok":
        standing = tx.execute(
            select(alerts.c.id).where(alerts.c.active == f"{owner}/{finding.monitor}")
        ).scalar_one_or_none()
        if standing is not None:
            _resolve(tx, standing, owner, finding.monitor, words(finding), finding.numbers)


def open_alert(tx: Transaction, owner: str, name: str, *, reason: str, numbers: Mapping[str, Any]) -> bool:
    """Open an alert; False, and nothing changed, while one of this name is open."""
    active = f"{owner}/{name}"
    if tx.execute(select(alerts.c.id).where(alerts.c.active == active)).one_or_none() is not None:
        return False
    tx.execute(
        insert(alerts).values(
            owner=owner,
            name=name,
            status="open",
            reason=reason,
            numbers=dict(numbers),
            opened_at=tx.at,
            active=active,
        )
    )
    tx.journal("alert.opened", "alert", active, reason=reason, details={"numbers": numbers})
    return True


def raise_alert(tx: Transaction, owner: str, name: str, *, reason: str, numbers: Mapping[str, Any]) -> None:
    """Tell of something that happened once, such as a rollback: an alert that is opened and resolved."""
    tx.execute(
        insert(alerts).values(
            owner=owner,
            name=name,
            status="resolved",
            reason=reason,
            numbers=dict(numbers),
            opened_at=tx.at,
            resolved_at=tx.at,
        )
    )
    tx.journal("alert.raised", "alert", f"{owner}/{name}", reason=reason, details={"numbers": numbers})


def prune_findings(tx: Transaction, before: datetime) -> None:
    """Drop findings older than `before`; alerts, and the journal's record of them, stay."""
    tx.execute(delete(findings).where(findings.c.at < before))


def words(finding: Finding) -> str:
    """A finding in one line, its first numbers included."""
    shown = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in list(finding.numbers.items())[:6]
    )
    return f"{finding.monitor}: {finding.status} ({shown})"


def _resolve(
    tx: Transaction, id: int, owner: str, name: str, reason: str, numbers: Mapping[str, Any]
) -> None:
    tx.execute(
        update(alerts).where(alerts.c.id == id).values(status="resolved", resolved_at=tx.at, active=None)
    )
    tx.journal("alert.resolved", "alert", f"{owner}/{name}", reason=reason, details={"numbers": numbers})


def _alert(row: RowMapping) -> Alert:
    return Alert(**{name: row[name] for name in Alert.__struct_fields__})
