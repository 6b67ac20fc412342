"""What monitors find about a loop: evaluated as of a moment, kept, and turned into alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from trimtab.data.profiles import Profile
from trimtab.loop.champions import champion_of, champion_since
from trimtab.loop.cycle import Cycle, State
from trimtab.loop.declaration import Declaration
from trimtab.loop.machine import Move
from trimtab.loop.schema import cycles_table
from trimtab.monitoring.alerts import raise_alert, record_finding
from trimtab.monitoring.evaluation import Subject, evaluate
from trimtab.monitoring.monitors import Finding, Number, Status, runs_user_code
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

EVALUATION = "evaluation"
"""The name under which it is kept that monitors with code of the user's could be evaluated, or not."""

TOLD = {
    State.PROPOSED: "approval",
    State.AWAITING_APPROVAL: "approval",
    State.REJECTED: "rejection",
    State.ROLLED_BACK: "rollback",
    State.FAILED: "failure",
}
"""The states of a cycle that a person is told of by an alert, and the alert's name."""


def evaluate_monitors(
    workspace: Workspace, declared: Declaration, moment: datetime, *, user_code: bool
) -> tuple[Finding, ...]:
    """What the monitors find as of `moment`: those that need the user's code, or the others."""
    wanted = [monitor for monitor in declared.monitors if runs_user_code(monitor) is user_code]
    if not wanted:
        return ()
    with workspace.read() as connection:
        champion = champion_of(connection, declared.model)
        since = champion_since(connection, declared.model)
        profile = None if champion is None else _trained_on(connection, declared.name, champion.version)
    subject = Subject(
        endpoint=declared.endpoint,
        champion=None if champion is None else champion.version,
        champion_since=since,
        reference=Profile.from_bytes(workspace.blobs.get(profile)) if profile else None,
    )
    return tuple(evaluate(workspace, subject, monitor, moment) for monitor in wanted)


def record_findings(tx: Transaction, loop: str, moment: datetime, findings: Sequence[Finding]) -> None:
    """Keep the findings, and open or resolve the alerts that belong to them."""
    for finding in findings:
        record_finding(tx, loop, finding, moment)


def tell(tx: Transaction, cycle: Cycle, move: Move) -> None:
    """Raise an alert about an arrow that a person should hear of."""
    name = TOLD.get(move.to)
    if name is not None:
        numbers = {"cycle": cycle.id, "state": move.to.value, "candidate": cycle.candidate}
        raise_alert(tx, cycle.loop, name, reason=f"cycle {cycle.id}: {move.reason}", numbers=numbers)


def tell_trouble(tx: Transaction, cycle: Cycle, words: str) -> None:
    """Raise an alert about what keeps a cycle from going on."""
    raise_alert(tx, cycle.loop, "trouble", reason=f"cycle {cycle.id}: {words}", numbers={"cycle": cycle.id})


def unevaluated(failure: str) -> Finding:
    """The finding that stands for monitors that could not be evaluated, so that they fall silent aloud; for
    no failure, that they were."""
    status: Status = "alert" if failure else "ok"
    numbers: dict[str, Number] = {"failure": failure} if failure else {}
    return Finding(monitor=EVALUATION, kind=EVALUATION, status=status, numbers=numbers)


def _trained_on(connection: Connection, loop: str, version: int) -> str:
    """The digest of the profile of what a version was trained on; "" if no cycle of this loop made it."""
    table = cycles_table.c
    query = select(table.profile).where(table.loop == loop, table.candidate == version)
    return connection.execute(query.order_by(table.number.desc()).limit(1)).scalar() or ""
