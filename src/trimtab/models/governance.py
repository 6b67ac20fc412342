"""What a governed model's registry demands before its champion changes.

Forward: a version becomes champion on a gate report that passed, bound to its very digest and to the policy
in force, that has a result for each of the policy's gates, is the newest of its kind, and is newer than the
last rejection of that digest. Nothing else about the version counts: no name, number or tag stands in for it.

Back: undoing the last promotion is always possible at once: the champion before it was accepted when it came,
by a report or by a person, and stood until a moment ago. Further back the target must have been promoted on
a passing report and have reigned under the policy in force now, so that a stricter policy is not undone by
going back behind it. What was rolled back from is rejected: the reports that it had count no more, so nobody
swings between two versions.

Otherwise: by override, which names a person and a reason and is journaled.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select, update

from trimtab.errors import ConflictError, RefusedError
from trimtab.models import aliases
from trimtab.models.aliases import CHAMPION, FREE, Basis
from trimtab.models.policy import Override, Policy
from trimtab.models.reigns import Line, Reign, line_of
from trimtab.models.reports import GateReport
from trimtab.models.schema import gate_reports_table as gate_reports
from trimtab.models.schema import model_policies_table as policies
from trimtab.models.schema import model_versions_table as versions
from trimtab.models.versions import find_model
from trimtab.store.database import Transaction

PRODUCTION = "Production"
"""MLflow's stage that means what the alias champion means."""


def policy_in_force(connection: Connection, model: Row[Any]) -> Policy | None:
    """The gates policy of a model, or None if nobody governs it."""
    if model.policy is None:
        return None
    query = select(policies.c.policy).where(policies.c.digest == model.policy)
    return msgspec.convert(connection.execute(query).scalar_one(), Policy)


def basis_for(
    connection: Connection,
    model: Row[Any],
    version: Row[Any],
    policy: Policy | None,
    override: Override | None,
) -> Basis:
    """The ground on which a version may become champion under this policy; raises RefusedError."""
    if policy is None:
        return FREE
    found = _evidence(connection, model, version, policy)
    if isinstance(found, int):
        return Basis("report", found)
    if override is not None:
        return Basis("override")
    raise RefusedError(
        f"Version {version.version} of '{model.name}' may not become champion: {found}.",
        hint=f"Run `trimtab model validate {model.name} {version.version}`, or override this with a person "
        "and a reason.",
    )


def demand_override(model: Row[Any], override: Override | None, what: str) -> None:
    """Raise RefusedError if the model is governed and nobody takes it upon themselves to do `what`."""
    if model.policy is not None and override is None:
        raise RefusedError(
            f"The model '{model.name}' is governed by {model.governed_by}: {what} is refused, and no gate "
            "report allows it.",
            hint="Override this with a person and a reason, or free the model from its gates: "
            f"`trimtab model govern {model.name} --release`.",
        )


def line_of_champions(connection: Connection, model: Row[Any]) -> Line:
    """The champions of a model that stand on one another."""
    return line_of(aliases.champion_events(connection, model.id))


def way_back(
    connection: Connection, model: Row[Any], to: int | None, override: Override | None
) -> tuple[Row[Any], Basis]:
    """The version to roll back to (the nearest earlier champion, unless `to` names one), and the ground.

    Raises ConflictError if there is none, RefusedError if policy forbids it.
    """
    line = line_of_champions(connection, model)
    if aliases.version_of(connection, model.id, CHAMPION) is None:
        raise ConflictError(
            f"The model '{model.name}' has no champion to roll back from.", hint="Set the alias champion."
        )
    options = _targets(connection, model, line)
    chosen = next((option for option in options if to in {None, option[0].version}), None)
    if chosen is None:
        which = "no earlier champion" if to is None else f"no earlier champion {to}"
        raise ConflictError(
            f"The model '{model.name}' has {which} to go back to: a version that was deleted, rejected or "
            "rolled back from is none.",
            hint="Promote a version that passes the gates.",
        )
    reign, version = chosen
    return version, _basis_back(connection, model, line, reign, version, override)


def next_way_back(connection: Connection, model: Row[Any]) -> int | None:
    """The version that a rollback would go to now, or None."""
    options = _targets(connection, model, line_of_champions(connection, model))
    return options[0][0].version if options else None


def reject(tx: Transaction, model: Row[Any], digest: str, entry: int) -> None:
    """From the journal's `entry` on, older gate reports of this content count no more."""
    tx.execute(
        update(versions)
        .where(versions.c.model_id == model.id, versions.c.digest == digest)
        .values(rejected_entry=entry)
    )


def standing(connection: Connection, model: Row[Any]) -> list[Row[Any]]:
    """The versions that governance watches over: the champion, and those in the stage Production."""
    champion = aliases.version_of(connection, model.id, CHAMPION)
    query = select(versions).where(versions.c.model_id == model.id, versions.c.deleted_at.is_(None))
    if champion is None:
        query = query.where(versions.c.stage == PRODUCTION)
    else:
        query = query.where((versions.c.stage == PRODUCTION) | (versions.c.version == champion))
    return list(connection.execute(query.order_by(versions.c.version)))


def standing_versions(connection: Connection, name: str) -> list[int]:
    """The numbers of the versions of a model that a policy must let pass before it comes into force."""
    return [row.version for row in standing(connection, find_model(connection, name))]


def _targets(connection: Connection, model: Row[Any], line: Line) -> list[tuple[Reign, Row[Any]]]:
    """The earlier champions that stand, differ from the present one, and were not rejected since."""
    found = []
    for reign in line.earlier:
        query = select(versions).where(versions.c.model_id == model.id, versions.c.version == reign.version)
        version = connection.execute(query).one()
        rejected = _rejected_entry(connection, model, reign.digest) > reign.since
        if version.deleted_at is None and not rejected and reign.digest != line.reigns[-1].digest:
            found.append((reign, version))
    return found


def _basis_back(
    connection: Connection,
    model: Row[Any],
    line: Line,
    reign: Reign,
    version: Row[Any],
    override: Override | None,
) -> Basis:
    if model.policy is None:
        return FREE
    undoes_promotion = line.promoted and reign is line.earlier[0] and reign.ground != "free"
    same_policy = reign.until is None or reign.until > model.policy_since
    if undoes_promotion or (reign.ground == "report" and same_policy):
        return Basis("rollback", reign.report)
    return basis_for(connection, model, version, policy_in_force(connection, model), override)


def _evidence(connection: Connection, model: Row[Any], version: Row[Any], policy: Policy) -> int | str:
    """The number of the gate report that lets this content pass, or what is missing."""
    row = connection.execute(
        select(gate_reports)
        .where(
            gate_reports.c.model_id == model.id,
            gate_reports.c.digest == version.digest,
            gate_reports.c.policy == policy.digest,
        )
        .order_by(gate_reports.c.number.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return f"its content has no gate report under the policy in force (gates: {', '.join(policy.names)})"
    report = msgspec.convert(row.report, GateReport)
    missing = sorted(set(policy.names) - {result.gate for result in report.results})
    if missing:
        return f"its newest gate report says nothing about: {', '.join(missing)}"
    if not report.passed:
        failed = "; ".join(
            result.gate + (f" ({result.reason})" if result.reason else "") for result in report.failed
        )
        return f"it did not pass: {failed}"
    if _rejected_entry(connection, model, version.digest) > row.entry:
        return "it was rejected after its newest gate report, which therefore counts no more"
    return int(row.number)


def _rejected_entry(connection: Connection, model: Row[Any], digest: str) -> int:
    query = select(func.max(versions.c.rejected_entry)).where(
        versions.c.model_id == model.id, versions.c.digest == digest
    )
    return connection.execute(query).scalar() or 0
