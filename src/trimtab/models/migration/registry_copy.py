"""Registered models and their versions from a source into a workspace.

A version keeps its number. Its content becomes a snapshot, as of any version here: of the run or the logged
model that it was made from, or of what is at its address. A model comes in one transaction with all its
versions; one that is here already gets the versions that it lacks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models import aliases, versions
from trimtab.models.addresses import Place
from trimtab.models.contents import tree_at, tree_of_address
from trimtab.models.migration.artifact_places import is_below, owner_at
from trimtab.models.migration.entities import Owner, SourceRegisteredModel, SourceVersion
from trimtab.models.migration.report import ImportReport, Tell
from trimtab.models.migration.run_copy import checked_texts, time_of
from trimtab.models.migration.source import Source
from trimtab.models.registry import STAGES
from trimtab.models.schema import model_tags_table, model_versions_table, models_table
from trimtab.models.versions import VersionRecord
from trimtab.store.blobs import TreeFile
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.tracking import logged_models
from trimtab.tracking.artifacts import confined
from trimtab.tracking.imports import standing_models, standing_runs
from trimtab.tracking.params_and_tags import checked_text
from trimtab.workspace import Workspace

_OF_MODEL = 0


class Content(msgspec.Struct, frozen=True):
    """What a version holds: the digest of its tree, and the address that it is known by here."""

    digest: str
    source: str


class Written(msgspec.Struct, kw_only=True):
    """What one model's transaction wrote."""

    new: bool
    versions: int
    aliases: int = 0
    notes: list[str] = []


class RegistryCopy:
    """Copies registered models. With `only`, the ids of runs and logged models, just the versions that were
    made from these."""

    def __init__(
        self,
        workspace: Workspace,
        source: Source,
        report: ImportReport,
        tell: Tell,
        only: Collection[str] | None = None,
    ) -> None:
        self._workspace = workspace
        self._source = source
        self._report = report
        self._tell = tell
        self._only = only

    def models(self) -> None:
        """Copy all models."""
        for given in self._source.registered_models():
            chosen = self.chosen(given)
            if self._only is not None and not chosen:
                continue
            try:
                self._copy(given, chosen)
            except (InvalidInputError, NotFoundError) as error:
                self._report.problems.append(f"model '{given.name}' was not copied. {error}")
            self._tell(f"model {given.name}", self._report.copied)

    def chosen(self, given: SourceRegisteredModel) -> list[SourceVersion]:
        """The versions of a model that are to be copied."""
        return [version for version in given.versions if self._is_chosen(version)]

    def _is_chosen(self, version: SourceVersion) -> bool:
        if self._only is None or version.run in self._only:
            return True
        owner = owner_at(version.source)
        return owner is not None and owner[1] in self._only

    def _copy(self, given: SourceRegisteredModel, chosen: list[SourceVersion]) -> None:
        versions.checked_name(given.name)
        standing = self._standing(given.name)
        missing = [version for version in chosen if version.version not in standing]
        self._report.here.model_versions += len(chosen) - len(missing)
        if self._report.dry_run:
            self._report.copied.registered_models += not standing and self._row(given.name) is None
            self._report.copied.model_versions += len(missing)
            return
        contents = {}
        for version in missing:
            try:
                contents[version.version] = self.content(version)
            except (InvalidInputError, NotFoundError) as error:
                self._report.problems.append(
                    f"version {version.version} of model '{given.name}' was not copied. {error}"
                )
        missing = [version for version in missing if version.version in contents]
        self._check(given, standing)
        written = self._workspace.write(lambda tx: self._write(tx, given, missing, contents))
        self._report.copied.registered_models += written.new
        self._report.here.registered_models += not written.new
        self._report.copied.model_versions += written.versions
        self._report.copied.aliases += written.aliases
        self._report.notes += written.notes

    def _standing(self, name: str) -> dict[int, Row[Any]]:
        """The versions that are here or were, by number."""
        model = self._row(name)
        if model is None:
            return {}
        table = model_versions_table
        with self._workspace.read() as connection:
            rows = connection.execute(select(table).where(table.c.model_id == model.id)).all()
        return {row.version: row for row in rows}

    def _row(self, name: str) -> Row[Any] | None:
        with self._workspace.read() as connection:
            return connection.execute(select(models_table).where(models_table.c.name == name)).one_or_none()

    def _check(self, given: SourceRegisteredModel, standing: dict[int, Row[Any]]) -> None:
        """Tell of versions whose number is taken by something else."""
        for version in given.versions:
            row = standing.get(version.version)
            if row is None:
                continue
            if row.deleted_at is not None:
                self._report.notes.append(
                    f"Version {version.version} of '{given.name}' was deleted here, and stays so."
                )
            elif (row.run_id, row.created_at) != (version.run, time_of(version.created_at)):
                self._report.problems.append(
                    f"version {version.version} of model '{given.name}' was not copied: another version has "
                    "this number here. Rename the model here or there, and import again."
                )

    def content(self, version: SourceVersion) -> Content:
        """The content of a version, kept; raises InvalidInputError where it cannot be read."""
        checked_text("the source", version.source)
        own = self._content_here(version.source)
        known = version.source if own is None else own[1]
        content = version.content or version.source
        if (here := self._content_here(content)) is not None:
            return Content(here[0], known)
        files: dict[str, TreeFile] = {}
        for path, place in self._source.files_at(self._where(content)):
            size = place.stat().st_size
            files[confined(path)] = TreeFile(self._workspace.blobs.put_file(place), size)
        if files:
            return Content(self._workspace.blobs.put_manifest(files), known)
        if own is not None:
            return Content(own[0], known)
        self._report.notes.append(
            f"There is nothing at {content or 'the address'} of a version that was registered as "
            f"'{version.source}': only the address is kept."
        )
        return Content(tree_of_address(self._workspace, version.source), version.source)

    def _where(self, address: str) -> str:
        """The address of files that another address stands for; "" where it stands for nothing."""
        owner = owner_at(address) if address.startswith(("runs:", "models:")) else None
        if owner is None:
            return "" if address.startswith(("runs:", "models:")) else address
        root = self._source.root_of("runs" if owner[0] == "runs" else "logged-models", owner[1])
        return "" if root is None else f"{root}/{owner[2]}".rstrip("/")

    def _content_here(self, address: str) -> tuple[str, str] | None:
        """The tree and the address here of what was copied with its run or logged model, or None."""
        owner = owner_at(address)
        if owner is None:
            return None
        kind: Owner = "runs" if owner[0] == "runs" else "logged-models"
        id, path = owner[1], owner[2]
        plain = address.startswith(("runs:", "models:"))
        if not plain:
            root = self._source.root_of(kind, id)
            if root is None or not is_below(address, root):
                return None
        with self._workspace.read() as connection:
            if kind == "runs":
                standing = standing_runs(connection, [id]).get(id)
                if standing is None:
                    return None
                place = f"mlflow-artifacts:/{standing.experiment_id}/{id}/artifacts"
            else:
                if not standing_models(connection, [id]):
                    return None
                place = _address_of_model(connection, id)
        try:
            digest = tree_at(self._workspace, Place(kind, id, path))
        except NotFoundError:  # a logged model that was deleted
            return None
        if digest is None:
            return None
        known = address if address.startswith("runs:") else f"{place}/{path}".rstrip("/")
        return digest, known

    def _write(
        self,
        tx: Transaction,
        given: SourceRegisteredModel,
        missing: list[SourceVersion],
        contents: dict[int, Content],
    ) -> Written:
        new = self._put_model(tx, given)
        model = versions.find_model(tx.connection, given.name, lock=True)
        governed = model.policy is not None
        self._put_versions(tx, model, missing, contents, governed=governed)
        written = Written(new=new, versions=len(missing))
        if not new and not missing:
            return written
        details = {
            "from": self._source.address,
            "versions": {str(version.version): contents[version.version].digest for version in missing},
        }
        entry = tx.journal("model.imported", "model", given.name, details=details)
        if governed:
            written.notes.append(
                f"The model '{given.name}' is governed here: its {len(missing)} versions came in without "
                f"alias and stage. Let one pass with `trimtab model validate {given.name} VERSION`."
            )
        else:
            self._put_aliases(tx, model, given, {version.version for version in missing}, entry, written)
        return written

    def _put_model(self, tx: Transaction, given: SourceRegisteredModel) -> bool:
        row: dict[str, object] = {
            "name": given.name,
            "lifecycle": "active",
            "description": checked_text("the description", given.description),
            "next_version": given.next_version,
            "created_at": time_of(given.created_at),
            "updated_at": time_of(given.updated_at),
        }
        new = upsert(tx, models_table, [row], keys=["name"], update=[]) == 1
        standing = versions.find_model(tx.connection, given.name, deleted=True, lock=True)
        if not new:
            changes: dict[str, object] = {"next_version": max(standing.next_version, given.next_version)}
            if standing.lifecycle != "active" or not standing.description:
                changes |= {"lifecycle": "active", "description": row["description"]}
            tx.execute(update(models_table).where(models_table.c.id == standing.id).values(changes))
        self._put_tags(tx, standing.id, _OF_MODEL, given.tags)
        return new

    def _put_versions(
        self,
        tx: Transaction,
        model: Row[Any],
        missing: list[SourceVersion],
        contents: dict[int, Content],
        *,
        governed: bool,
    ) -> None:
        for version in missing:
            content = contents[version.version]
            row = {
                "model_id": model.id,
                "version": version.version,
                "digest": content.digest,
                "run_id": version.run,
                "source": content.source,
                "description": checked_text("the description", version.description),
                "record": VersionRecord(),
                "stage": version.stage if version.stage in STAGES and not governed else versions.NO_STAGE,
                "request_key": None,
                "actor": checked_text("the user", version.user),
                "created_at": time_of(version.created_at),
            }
            tx.execute(insert(model_versions_table).values(row))
            self._put_tags(tx, model.id, version.version, version.tags)

    def _put_aliases(
        self,
        tx: Transaction,
        model: Row[Any],
        given: SourceRegisteredModel,
        here: set[int],
        entry: int,
        written: Written,
    ) -> None:
        for alias, number in given.aliases.items():
            present = aliases.version_of(tx.connection, model.id, aliases.checked_alias(alias))
            if present is not None and present != number:
                written.notes.append(
                    f"The alias '{alias}' of '{given.name}' names version {present} here, and stays so "
                    f"(version {number} at the source)."
                )
            if present is not None or number not in here:
                continue
            version = versions.find_version(tx.connection, model, number)
            reason = f"imported from {self._source.address}"
            aliases.put(tx, model, alias, version, kind="set", entry=entry, reason=reason)
            written.aliases += 1

    @staticmethod
    def _put_tags(tx: Transaction, model: int, version: int, tags: dict[str, str]) -> None:
        rows = [
            {"model_id": model, "version": version, "key": key, "value": value}
            for key, value in checked_texts(tags).items()
        ]
        upsert(tx, model_tags_table, rows, keys=["model_id", "version", "key"], update=[])


def _address_of_model(connection: Connection, id: str) -> str:
    row = logged_models.find(connection, id, deleted=True)
    return f"mlflow-artifacts:/{row.experiment_id}/models/{id}/artifacts"
