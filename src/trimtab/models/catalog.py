"""The part of the registry that keeps models, their versions and their tags.

A version's number, once given, is never given again, and its content never changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, Update, delete, insert, select, update

from trimtab.errors import AlreadyExistsError
from trimtab.models import aliases, governance, versions
from trimtab.models.policy import Override
from trimtab.models.schema import model_tags_table, model_versions_table, models_table
from trimtab.models.versions import ModelVersion, RegisteredModel, VersionRecord
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.tracking.params_and_tags import checked_key, checked_text
from trimtab.workspace import Workspace


class Catalog:
    """The models of a workspace. What reads takes a transaction too, to see what that has changed."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    # Models

    def create_model(
        self,
        tx: Transaction,
        name: str,
        *,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        exist_ok: bool = False,
    ) -> RegisteredModel:
        """Make a model; raises AlreadyExistsError if it is there, unless `exist_ok`.

        One that was deleted comes back without versions, and goes on with the next number and under the
        policy that it had.
        """
        row = {
            "name": versions.checked_name(name),
            "lifecycle": "active",
            "description": checked_text("the description", description),
            "next_version": 1,
            "created_at": tx.at,
            "updated_at": tx.at,
        }
        if upsert(tx, models_table, [row], keys=["name"], update=[]) == 0:
            standing = versions.find_model(tx.connection, name, deleted=True, lock=True)
            if standing.lifecycle == "active":
                if exist_ok:
                    return versions.registered_model(tx.connection, standing)
                raise AlreadyExistsError(f"There is a model '{name}' already.", hint="Choose another name.")
            del row["next_version"]
            tx.execute(update(models_table).where(models_table.c.id == standing.id).values(row))
        for key, value in (tags or {}).items():
            self._put_tag(tx, name, None, key, value)
        tx.journal("model.created", "model", name, details={"description": description, "tags": tags or {}})
        return self.model(name, tx=tx)

    def model(self, name: str, *, tx: Transaction | None = None) -> RegisteredModel:
        """The model of that name; raises NotFoundError."""
        with self._reading(tx) as connection:
            return versions.registered_model(connection, versions.find_model(connection, name))

    def models(self) -> list[RegisteredModel]:
        """All models by name."""
        query = select(models_table).where(models_table.c.lifecycle == "active").order_by(models_table.c.name)
        with self._workspace.read() as connection:
            return [versions.registered_model(connection, row) for row in connection.execute(query)]

    def rename_model(
        self, tx: Transaction, name: str, new_name: str, *, reason: str = "", override: Override | None = None
    ) -> None:
        """Give a model another name, one that no model has ever had; raises AlreadyExistsError
        otherwise.

        For a governed model this takes an override; both names stay governed.
        """
        model = versions.find_model(tx.connection, name, lock=True)
        if new_name == name:
            return
        governance.demand_override(model, override, "renaming it")
        taken = select(models_table.c.id).where(models_table.c.name == versions.checked_name(new_name))
        if tx.execute(taken).first() is not None:
            raise AlreadyExistsError(
                f"The name '{new_name}' is or was that of a model, and no version number is given twice.",
                hint="Choose another name.",
            )
        entry = journal_override(tx, "model.renamed", name, {"to": new_name}, reason, override)
        left = {**model._asdict(), "lifecycle": "deleted", "updated_at": tx.at}
        del left["id"]
        tx.execute(
            update(models_table).where(models_table.c.id == model.id).values(name=new_name, updated_at=tx.at)
        )
        tx.execute(insert(models_table).values(left))
        for alias, number in versions.aliases_of(tx.connection, model.id).items():
            version = versions.find_version(tx.connection, model, number)
            for named, of_it in ((name, None), (new_name, version)):
                aliases.write_event(
                    tx, model, alias, of_it, kind="renamed", entry=entry, reason=reason, name=named
                )

    def delete_model(
        self, tx: Transaction, name: str, *, reason: str = "", override: Override | None = None
    ) -> None:
        """Delete a model with all its versions and aliases. For a governed one this takes an override."""
        model = versions.find_model(tx.connection, name, lock=True)
        governance.demand_override(model, override, "deleting it")
        entry = journal_override(tx, "model.deleted", name, {}, reason, override)
        for alias in versions.aliases_of(tx.connection, model.id):
            aliases.put(tx, model, alias, None, kind="deleted", entry=entry, reason=reason)
        tx.execute(delete(model_tags_table).where(model_tags_table.c.model_id == model.id))
        gone = model_versions_table.c.deleted_at.is_(None) & (model_versions_table.c.model_id == model.id)
        tx.execute(update(model_versions_table).where(gone).values(deleted_at=tx.at))
        tx.execute(
            update(models_table)
            .where(models_table.c.id == model.id)
            .values(lifecycle="deleted", updated_at=tx.at)
        )

    # Versions

    def register(
        self,
        tx: Transaction,
        name: str,
        digest: str,
        *,
        run_id: str | None = None,
        source: str = "",
        description: str = "",
        record: VersionRecord | None = None,
        tags: Mapping[str, str] | None = None,
        request_key: str | None = None,
    ) -> ModelVersion:
        """Make the next version of a model from the digest of its folder.

        The same `request_key` gives the version of the first time; raises ConflictError if that one has
        other content or was deleted since.
        """
        model = versions.find_model(tx.connection, name, lock=True)
        record = record or VersionRecord()
        number, new = versions.insert_version(
            tx,
            model,
            digest,
            run_id=run_id,
            source=source,
            description=description,
            record=record,
            request_key=request_key,
        )
        if not new:
            return self.get_version(name, number, tx=tx)
        for key, value in (tags or {}).items():
            self._put_tag(tx, name, number, key, value)
        details = {"version": number, "digest": digest, "run_id": run_id, "source": source}
        tx.journal("model.version_registered", "model", name, reason=description, details=details)
        return ModelVersion(
            model=name,
            version=number,
            digest=digest,
            run_id=run_id,
            source=source,
            description=description,
            record=record,
            stage=versions.NO_STAGE,
            aliases=(),
            tags=dict(sorted((tags or {}).items())),
            actor=tx.actor,
            created_at=tx.at,
        )

    def get_version(self, name: str, version: int, *, tx: Transaction | None = None) -> ModelVersion:
        """One version of a model; raises NotFoundError."""
        with self._reading(tx) as connection:
            model = versions.find_model(connection, name)
            return versions.model_versions(connection, model, version)[0]

    def versions(self, name: str, *, tx: Transaction | None = None) -> list[ModelVersion]:
        """The versions of a model, the newest first."""
        with self._reading(tx) as connection:
            return versions.model_versions(connection, versions.find_model(connection, name))

    def newest_in_stages(self, name: str, *, tx: Transaction | None = None) -> list[ModelVersion]:
        """The newest version in each stage, in the order in which the stages were first taken."""
        with self._reading(tx) as connection:
            return versions.newest_in_stages(connection, versions.find_model(connection, name))

    def delete_version(
        self,
        tx: Transaction,
        name: str,
        version: int,
        *,
        reason: str = "",
        override: Override | None = None,
    ) -> None:
        """Delete a version, and the aliases that name it.

        Of a governed model the champion, what stands in Production, and the version that a rollback would go
        to take an override.
        """
        model = versions.find_model(tx.connection, name, lock=True)
        row = versions.find_version(tx.connection, model, version)
        held = {each.version for each in governance.standing(tx.connection, model)}
        if version in held or version == governance.next_way_back(tx.connection, model):
            governance.demand_override(model, override, f"deleting version {version}, which it relies on,")
        details = {"version": version, "digest": row.digest}
        entry = journal_override(tx, "model.version_deleted", name, details, reason, override)
        for alias, number in versions.aliases_of(tx.connection, model.id).items():
            if number == version:
                aliases.put(tx, model, alias, None, kind="deleted", entry=entry, reason=reason)
        table = model_versions_table
        this = (table.c.model_id == model.id) & (table.c.version == version)
        tx.execute(update(table).where(this).values(deleted_at=tx.at))
        tx.execute(update(models_table).where(models_table.c.id == model.id).values(updated_at=tx.at))

    def reject_version(self, tx: Transaction, name: str, version: int, *, reason: str) -> None:
        """Say that a version failed where it was tried: the gate reports that its content has so far count
        no more, so it cannot become champion without a new one, and no rollback goes to it."""
        model = versions.find_model(tx.connection, name, lock=True)
        row = versions.find_version(tx.connection, model, version)
        details = {"version": version, "digest": row.digest}
        entry = tx.journal("model.version_rejected", "model", name, reason=reason, details=details)
        governance.reject(tx, model, row.digest, entry)

    def describe(self, tx: Transaction, name: str, description: str, *, version: int | None = None) -> None:
        """Replace the description of a model, or of one of its versions."""
        model = versions.find_model(tx.connection, name, lock=True)
        statement: Update
        if version is None:
            statement = update(models_table).where(models_table.c.id == model.id).values(updated_at=tx.at)
        else:
            versions.find_version(tx.connection, model, version)
            table = model_versions_table
            statement = update(table).where(table.c.model_id == model.id, table.c.version == version)
        tx.execute(statement.values(description=checked_text("the description", description)))
        details = {"version": version, "description": description}
        tx.journal("model.described", "model", name, details=details)

    def set_tag(
        self, tx: Transaction, name: str, key: str, value: str, *, version: int | None = None
    ) -> None:
        """Set a tag of a model, or of one of its versions."""
        self._put_tag(tx, name, version, key, value)
        tx.journal("model.tag_set", "model", name, details={"version": version, "key": key, "value": value})

    def delete_tag(self, tx: Transaction, name: str, key: str, *, version: int | None = None) -> None:
        """Take a tag off a model, or off one of its versions."""
        model = versions.find_model(tx.connection, name, lock=True)
        if version is not None:
            versions.find_version(tx.connection, model, version)
        table = model_tags_table
        this = (table.c.model_id == model.id) & (table.c.version == (version or 0)) & (table.c.key == key)
        if tx.execute(delete(table).where(this)).rowcount:
            tx.journal("model.tag_deleted", "model", name, details={"version": version, "key": key})

    def _put_tag(self, tx: Transaction, name: str, version: int | None, key: str, value: str) -> None:
        model = versions.find_model(tx.connection, name, lock=True)
        if version is not None:
            versions.find_version(tx.connection, model, version)
        row = {
            "model_id": model.id,
            "version": version or 0,
            "key": checked_key(key),
            "value": checked_text(f"'{key}'", value),
        }
        upsert(tx, model_tags_table, [row], keys=["model_id", "version", "key"])

    @contextlib.contextmanager
    def _reading(self, tx: Transaction | None) -> Iterator[Connection]:
        if tx is not None:
            yield tx.connection
        else:
            with self._workspace.read() as connection:
                yield connection


def journal_override(
    tx: Transaction,
    action: str,
    name: str,
    details: dict[str, object],
    reason: str,
    override: Override | None,
) -> int:
    """Write the entry of a change that may have taken an override, and name who overrode what and why."""
    if override is not None:
        details = {**details, "override": override}
        reason = reason or override.reason
    return tx.journal(action, "model", name, reason=reason, details=details)
