"""The model registry: models, versions, aliases, tags, and the gates that a governed model is held to.

Every change takes a transaction, so that it can share one with what belongs to it, and writes its journal
entry there: `workspace.write(lambda tx: registry.set_alias(tx, "bikes", "champion", 3, reason="..."))`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select, update

from trimtab.clock import as_utc
from trimtab.digest import is_digest
from trimtab.errors import InvalidInputError, NotFoundError, RefusedError, unknown
from trimtab.models import aliases, governance, versions
from trimtab.models.aliases import CHAMPION, FREE, AliasEvent, Basis
from trimtab.models.catalog import Catalog, journal_override
from trimtab.models.governance import PRODUCTION
from trimtab.models.policy import Override, Policy
from trimtab.models.reports import GateReport
from trimtab.models.schema import (
    gate_reports_table,
    model_policies_table,
    model_versions_table,
    models_table,
)
from trimtab.models.versions import ModelVersion
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert

STAGES = (versions.NO_STAGE, "Staging", PRODUCTION, "Archived")
"""As in MLflow."""


class Registry(Catalog):
    """The registry of a workspace: its catalog of models, their aliases, and what governs them."""

    # Aliases

    def set_alias(
        self,
        tx: Transaction,
        name: str,
        alias: str,
        version: int,
        *,
        reason: str = "",
        override: Override | None = None,
    ) -> None:
        """Let an alias name a version; nothing happens if it does already.

        Raises RefusedError where the model is governed, the alias is `champion`, and the version has no gate
        report that lets it pass (see `trimtab.models.governance`).
        """
        model = versions.find_model(tx.connection, name, lock=True)
        row = versions.find_version(tx.connection, model, version)
        previous = aliases.version_of(tx.connection, model.id, aliases.checked_alias(alias))
        if previous == version:
            return
        basis = FREE
        if alias == CHAMPION:
            policy = governance.policy_in_force(tx.connection, model)
            basis = governance.basis_for(tx.connection, model, row, policy, override)
        elif alias.casefold() == CHAMPION:
            governance.demand_override(model, override, f"an alias '{alias}', so like '{CHAMPION}',")
        details = {"alias": alias, "previous": previous, **_ground(row, basis)}
        entry = journal_override(tx, "model.alias_set", name, details, reason, override)
        aliases.put(tx, model, alias, row, kind="set", basis=basis, entry=entry, reason=reason)

    def delete_alias(
        self, tx: Transaction, name: str, alias: str, *, reason: str = "", override: Override | None = None
    ) -> bool:
        """Take an alias away; answers whether it was there. For the champion of a governed model this takes
        an override."""
        model = versions.find_model(tx.connection, name, lock=True)
        previous = aliases.version_of(tx.connection, model.id, alias)
        if previous is None:
            return False
        if alias == CHAMPION:
            governance.demand_override(model, override, f"taking the alias '{CHAMPION}' away")
        details: dict[str, object] = {"alias": alias, "previous": previous}
        entry = journal_override(tx, "model.alias_deleted", name, details, reason, override)
        aliases.put(tx, model, alias, None, kind="deleted", entry=entry, reason=reason)
        return True

    def rollback(
        self,
        tx: Transaction,
        name: str,
        *,
        to: int | None = None,
        reason: str,
        override: Override | None = None,
    ) -> ModelVersion:
        """Make an earlier champion champion again: the nearest that stands, or version `to`.

        The version that is left is rejected (see `reject_version`). Undoing the last promotion needs nothing;
        what else a governed model demands is told in `trimtab.models.governance`. Raises ConflictError where
        there is nothing to go back to, RefusedError where the policy forbids it.
        """
        model = versions.find_model(tx.connection, name, lock=True)
        row, basis = governance.way_back(tx.connection, model, to, override)
        left = self.alias(name, CHAMPION, tx=tx)
        details = {"from": left.version, "from_digest": left.digest, **_ground(row, basis)}
        entry = journal_override(tx, "model.rolled_back", name, details, reason, override)
        aliases.put(tx, model, CHAMPION, row, kind="rolled_back", basis=basis, entry=entry, reason=reason)
        governance.reject(tx, model, left.digest, entry)
        return self.get_version(name, row.version, tx=tx)

    def alias(self, name: str, alias: str, *, tx: Transaction | None = None) -> ModelVersion:
        """The version that an alias names; raises NotFoundError."""
        with self._reading(tx) as connection:
            model = versions.find_model(connection, name)
            version = aliases.version_of(connection, model.id, alias)
            if version is None:
                raise unknown("alias", alias, versions.aliases_of(connection, model.id))
            return versions.model_versions(connection, model, version)[0]

    def champion(self, name: str, *, tx: Transaction | None = None) -> ModelVersion | None:
        """The version that is champion, or None; raises NotFoundError for an unknown model."""
        with self._reading(tx) as connection:
            model = versions.find_model(connection, name)
            version = aliases.version_of(connection, model.id, CHAMPION)
            return None if version is None else versions.model_versions(connection, model, version)[0]

    def alias_at(self, name: str, alias: str, at: datetime) -> AliasEvent | None:
        """What an alias named at an event time, or None; a change counts from its own time on. The version
        may have been deleted since. Raises NotFoundError for a name that no model ever had."""
        with self._workspace.read() as connection:
            versions.find_model(connection, name, deleted=True)
            return aliases.alias_at(connection, name, alias, as_utc(at))

    def history(self, name: str, alias: str | None = None) -> list[AliasEvent]:
        """All changes of the aliases of a name (of one, if given), the oldest first."""
        with self._workspace.read() as connection:
            versions.find_model(connection, name, deleted=True)
            return aliases.history(connection, name, alias)

    # Stages

    def set_stage(
        self,
        tx: Transaction,
        name: str,
        version: int,
        stage: str,
        *,
        archive_existing: bool = False,
        reason: str = "",
        override: Override | None = None,
    ) -> ModelVersion:
        """Put a version into a stage, as MLflow's clients still do; `archive_existing` moves those that are
        in it to Archived. For a governed model, Production demands what `champion` does, and leaving it
        without a successor takes an override."""
        if stage not in STAGES:
            raise InvalidInputError(f"'{stage}' is no stage.", hint=f"Use one of {', '.join(STAGES)}.")
        model = versions.find_model(tx.connection, name, lock=True)
        row = versions.find_version(tx.connection, model, version)
        if row.stage == stage:
            return self.get_version(name, version, tx=tx)
        basis = FREE
        if stage == PRODUCTION:
            policy = governance.policy_in_force(tx.connection, model)
            basis = governance.basis_for(tx.connection, model, row, policy, override)
        elif row.stage == PRODUCTION:
            governance.demand_override(model, override, f"taking version {version} out of {PRODUCTION}")
        table = model_versions_table
        if archive_existing:
            there = (table.c.model_id == model.id) & (table.c.stage == stage) & table.c.deleted_at.is_(None)
            tx.execute(update(table).where(there).values(stage="Archived"))
        this = (table.c.model_id == model.id) & (table.c.version == version)
        tx.execute(update(table).where(this).values(stage=stage))
        tx.execute(update(models_table).where(models_table.c.id == model.id).values(updated_at=tx.at))
        details = {"stage": stage, "archived_existing": archive_existing, **_ground(row, basis)}
        journal_override(tx, "model.stage_set", name, details, reason, override)
        return self.get_version(name, version, tx=tx)

    # Governance

    def govern(
        self,
        tx: Transaction,
        name: str,
        policy: Policy,
        *,
        by: str,
        reason: str = "",
        override: Override | None = None,
    ) -> None:
        """Put a model under a gates policy, in the name of `by` ("loop bikes"); the same again does nothing.

        What stands as champion must have passed these gates. Later, gates may be added freely; taking one
        away, declaring it otherwise, or governing in another name takes an override. Raises RefusedError.
        """
        if not by.strip():
            raise InvalidInputError("A policy is put on a model in somebody's name; this one is blank.")
        model = versions.find_model(tx.connection, name, lock=True)
        if (model.policy, model.governed_by) == (policy.digest, by):
            return
        weakened = self._check_change(tx, model, policy, by, override)
        affirmed = [] if model.policy is not None else self._check_standing(tx, model, policy, override)
        details: dict[str, object] = {
            "by": by,
            "policy": policy.digest,
            "gates": [gate.name for gate in policy.gates],
            **({} if policy.rows is None else {"rows": policy.rows}),
            "weakened": weakened,
            "affirmed": [_ground(row, basis) for row, basis in affirmed],
        }
        entry = journal_override(tx, "model.governed", name, details, reason, override)
        row = {"digest": policy.digest, "policy": policy}
        upsert(tx, model_policies_table, [row], keys=["digest"], update=[])
        changes = {"policy": policy.digest, "governed_by": by, "policy_since": entry}
        tx.execute(update(models_table).where(models_table.c.id == model.id).values(changes))
        model = versions.find_model(tx.connection, name)
        champion = aliases.version_of(tx.connection, model.id, CHAMPION)
        for version, basis in affirmed:
            if version.version == champion:
                aliases.write_event(
                    tx, model, CHAMPION, version, kind="affirmed", basis=basis, entry=entry, reason=reason
                )

    def ungovern(self, tx: Transaction, name: str, *, override: Override) -> None:
        """Free a model from its policy; nothing happens if nobody governs it."""
        model = versions.find_model(tx.connection, name, lock=True)
        if model.policy is None:
            return
        details: dict[str, object] = {"by": model.governed_by, "policy": model.policy}
        journal_override(tx, "model.ungoverned", name, details, "", override)
        changes = {"policy": None, "governed_by": None, "policy_since": None}
        tx.execute(update(models_table).where(models_table.c.id == model.id).values(changes))

    def policy(self, name: str, *, tx: Transaction | None = None) -> Policy | None:
        """The gates policy of a model, or None if nobody governs it."""
        with self._reading(tx) as connection:
            return governance.policy_in_force(connection, versions.find_model(connection, name))

    # Gate reports

    def add_gate_report(self, tx: Transaction, report: GateReport) -> int:
        """Keep a gate report and answer its number. It counts from now on as the newest of its kind.

        Only what has run the gates may call this: a report is believed. Raises InvalidInputError if the
        report does not fit what it is about.
        """
        model = versions.find_model(tx.connection, report.model, lock=True)
        names = [result.gate for result in report.results]
        if not is_digest(report.digest) or not is_digest(report.policy) or len(set(names)) < len(names):
            raise InvalidInputError("A gate report names two digests, and has one result for each gate.")
        if report.version is not None:
            row = versions.find_version(tx.connection, model, report.version)
            if row.digest != report.digest:
                raise InvalidInputError(
                    f"The gate report is about {report.digest}, but version {report.version} of "
                    f"'{model.name}' is {row.digest}.",
                    hint="Run the gates on the version's own content.",
                )
        details = {
            "digest": report.digest,
            "version": report.version,
            "policy": report.policy,
            "passed": report.passed,
            "results": report.results,
        }
        entry = tx.journal("model.gates_evaluated", "model", model.name, details=details)
        values = {
            "model_id": model.id,
            "digest": report.digest,
            "policy": report.policy,
            "passed": report.passed,
            "report": report,
            "entry": entry,
            "created_at": as_utc(report.created_at),
        }
        key = tx.execute(insert(gate_reports_table).values(values)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def gate_reports(
        self,
        name: str,
        *,
        version: int | None = None,
        digest: str | None = None,
        tx: Transaction | None = None,
    ) -> list[GateReport]:
        """The gate reports of a model, the newest first: all, or those about one version's content."""
        table = gate_reports_table
        with self._reading(tx) as connection:
            model = versions.find_model(connection, name)
            if version is not None:
                digest = versions.find_version(connection, model, version).digest
            query = select(table.c.report).where(table.c.model_id == model.id)
            if digest is not None:
                query = query.where(table.c.digest == digest)
            found = connection.execute(query.order_by(table.c.number.desc())).scalars()
            return [msgspec.convert(report, GateReport) for report in found]

    def gate_report(self, number: int) -> GateReport:
        """The gate report of that number, as aliases' history and the journal name it."""
        table = gate_reports_table
        with self._workspace.read() as connection:
            query = select(table.c.report).where(table.c.number == number)
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise NotFoundError(f"There is no gate report {number}.")
        return msgspec.convert(found, GateReport)

    def _check_change(
        self, tx: Transaction, model: Row[Any], policy: Policy, by: str, override: Override | None
    ) -> tuple[str, ...]:
        present = governance.policy_in_force(tx.connection, model)
        if present is None:
            return ()
        weakened = policy.weakened_from(present)
        if weakened:
            what = f"taking away or changing the gates {', '.join(weakened)}"
            governance.demand_override(model, override, what)
        if policy.rows != present.rows and present.rows is not None:
            governance.demand_override(model, override, "judging its gates on other rows")
        if by != model.governed_by:
            governance.demand_override(model, override, f"governing it in the name of {by}")
        return weakened

    def _check_standing(
        self, tx: Transaction, model: Row[Any], policy: Policy, override: Override | None
    ) -> list[tuple[Row[Any], Basis]]:
        affirmed = []
        for row in governance.standing(tx.connection, model):
            try:
                basis = governance.basis_for(tx.connection, model, row, policy, override)
            except RefusedError as error:
                raise RefusedError(
                    f"The model '{model.name}' cannot be governed yet. {error.message}",
                    hint=error.hint,
                ) from None
            affirmed.append((row, basis))
        return affirmed


def _ground(row: Row[Any], basis: Basis) -> dict[str, object]:
    return {
        "version": row.version,
        "digest": row.digest,
        "ground": basis.ground,
        "report": basis.report,
    }
