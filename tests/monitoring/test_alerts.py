"""Alerts stand in the journal with their numbers, one open at a time for each monitor."""

from __future__ import annotations

from datetime import timedelta

import pytest

from trimtab.errors import NotFoundError
from trimtab.monitoring.alerts import Alerts, open_alert, raise_alert, record_finding
from trimtab.monitoring.monitors import Finding, Status
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace


def find(workspace: Workspace, status: Status, value: float = 0.2, owner: str = "bikes") -> None:
    finding = Finding(monitor="log bias", kind="bias", status=status, numbers={"value": value, "labels": 168})
    workspace.write(lambda tx: record_finding(tx, owner, finding, tx.at))


def told(workspace: Workspace) -> list[tuple[str, str, object]]:
    with workspace.read() as connection:
        return [
            (entry.action, entry.name, entry.details["numbers"].get("value"))
            for entry in journal.entries(connection, kind="alert")
        ]


def test_an_alert_is_opened_once_and_resolved_once_with_their_numbers(any_workspace: Workspace) -> None:
    for status, value in (("ok", 0.0), ("alert", 0.2), ("alert", 0.3), ("ok", 0.05), ("ok", 0.04)):
        find(any_workspace, status, value)  # type: ignore[arg-type]  # the literals above
    assert told(any_workspace) == [
        ("alert.opened", "bikes/log bias", 0.2),
        ("alert.resolved", "bikes/log bias", 0.05),
    ]
    with any_workspace.read() as connection:
        journal.verify(connection)


def test_too_little_to_judge_by_leaves_an_open_alert_open(workspace: Workspace) -> None:
    find(workspace, "alert")
    find(workspace, "insufficient")
    (alert,) = Alerts(workspace).alerts("bikes", only_open=True)
    assert (alert.name, alert.status, alert.numbers["labels"]) == ("log bias", "open", 168)


def test_an_alert_may_open_again_after_it_was_resolved(any_workspace: Workspace) -> None:
    for status in ("alert", "ok", "alert"):
        find(any_workspace, status)
    assert [alert.status for alert in Alerts(any_workspace).alerts("bikes")] == ["open", "resolved"]


def test_owners_have_alerts_of_their_own(any_workspace: Workspace) -> None:
    find(any_workspace, "alert", owner="bikes")
    find(any_workspace, "alert", owner="cars")
    find(any_workspace, "ok", owner="cars")
    assert [alert.owner for alert in Alerts(any_workspace).alerts(only_open=True)] == ["bikes"]


def test_a_person_resolves_an_alert_once_and_says_why(any_workspace: Workspace) -> None:
    find(any_workspace, "alert")
    alerts = Alerts(any_workspace)
    (alert,) = alerts.alerts()
    for _ in range(2):
        assert alerts.resolve(alert.id, reason="known outage").status == "resolved"
    with any_workspace.read() as connection:
        (entry,) = journal.entries(connection, action="alert.resolved")
    assert (entry.reason, entry.actor) == ("known outage", "tester")
    with pytest.raises(NotFoundError):
        alerts.resolve(999, reason="")


def test_what_happened_once_is_told_once_and_stays_closed(any_workspace: Workspace) -> None:
    any_workspace.write(
        lambda tx: raise_alert(tx, "bikes", "rollback", reason="worse", numbers={"mean": 1.4})
    )
    (alert,) = Alerts(any_workspace).alerts()
    assert (alert.status, alert.resolved_at) == ("resolved", alert.opened_at)
    assert [action for action, *_ in told(any_workspace)] == ["alert.raised"]


def test_an_alert_whose_transaction_fails_was_never_there(any_workspace: Workspace) -> None:
    def work(tx: Transaction) -> None:
        open_alert(tx, "bikes", "drift", reason="", numbers={})
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        any_workspace.write(work)
    assert Alerts(any_workspace).alerts() == []
    assert told(any_workspace) == []


def test_findings_are_kept_with_their_event_time(workspace: Workspace) -> None:
    find(workspace, "ok", 0.01)
    workspace.clock.set(workspace.clock.now() + timedelta(days=1))  # type: ignore[attr-defined]  # a FixedClock
    find(workspace, "insufficient", 0.02)
    newest, before = Alerts(workspace).findings("bikes")
    assert (newest.status, newest.numbers["value"]) == ("insufficient", 0.02)
    assert newest.at - before.at == timedelta(days=1)
