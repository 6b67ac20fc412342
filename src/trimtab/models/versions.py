"""Registered models and their versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from trimtab.digest import is_digest
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, unknown
from trimtab.models.schema import model_aliases_table, model_tags_table
from trimtab.models.schema import model_versions_table as versions
from trimtab.models.schema import models_table as models
from trimtab.models.signature import Signature
from trimtab.store.database import Transaction
from trimtab.store.prepared import Prepared
from trimtab.tracking.params_and_tags import checked_text

LONGEST_NAME = 250
NO_STAGE = "None"
_OF_MODEL = 0  # the version under which the tags of a model itself are kept


class DataVersion(msgspec.Struct, frozen=True):
    """A dataset as a model has seen it."""

    dataset: str
    version: int
    digest: str


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a version was made of, so that it can be made again.

    `pipeline` is its reference ("module:name"), `code` and `environment` are digests, `as_of` the event time
    at which it was trained, `held_out` the share of each dataset's rows that it has not seen, `metrics` what
    its training found.
    """

    signature: Signature | None = None
    data: tuple[DataVersion, ...] = ()
    features: tuple[str, ...] = ()
    pipeline: str = ""
    params: dict[str, Any] = {}
    code: str = ""
    environment: str = ""
    as_of: datetime | None = None
    held_out: dict[str, float] = {}
    metrics: dict[str, float | None] = {}


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    """A name with versions. `aliases` gives each alias' version; `policy` is the digest of the gates policy
    that `governed_by` put on it, None if nobody governs it."""

    name: str
    description: str
    aliases: dict[str, int]
    tags: dict[str, str]
    policy: str | None
    governed_by: str | None
    created_at: datetime
    updated_at: datetime


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model. `digest` is that of its folder and never changes."""

    model: str
    version: int
    digest: str
    run_id: str | None
    source: str
    description: str
    record: VersionRecord
    stage: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    actor: str
    created_at: datetime


def checked_name(name: str) -> str:
    """`name`, if a model can have it; raises InvalidInputError otherwise."""
    wrong = name != name.strip() or not name.isprintable() or any(sign in name for sign in "/:\\")
    if wrong or not name or name in {".", ".."} or len(name) > LONGEST_NAME:
        raise InvalidInputError(
            f"{name!r:.80} cannot be the name of a model.",
            hint=f"Use 1 to {LONGEST_NAME} printable characters without '/', ':' and '\\'.",
        )
    return name


def find_model(connection: Connection, name: str, *, deleted: bool = False, lock: bool = False) -> Row[Any]:
    """The row of a model; raises NotFoundError, also for a deleted one unless `deleted`, InvalidInputError
    for what cannot be a name.

    Whatever changes a model locks its row first, so that changes come one after the other.
    """
    row: Row[Any] | None = (_LOCKED_MODEL if lock else _MODEL).first(connection, name=name)
    if row is None or (row.lifecycle != "active" and not deleted):
        checked_name(name)
        names = connection.execute(select(models.c.name).where(models.c.lifecycle == "active")).scalars()
        raise unknown("model", name, names)
    return row


def find_version(connection: Connection, model: Row[Any], version: int) -> Row[Any]:
    """The row of a version; raises NotFoundError, also for a deleted one."""
    row: Row[Any] | None = _VERSION.first(connection, model=model.id, version=version)
    if row is None or row.deleted_at is not None:
        gone = "was deleted" if row is not None else "is not there"
        raise NotFoundError(
            f"Version {version} of the model '{model.name}' {gone}.",
            hint=f"List its versions with `trimtab model show {model.name}`.",
        )
    return row


def insert_version(
    tx: Transaction,
    model: Row[Any],
    digest: str,
    *,
    run_id: str | None,
    source: str,
    description: str,
    record: VersionRecord,
    request_key: str | None,
) -> tuple[int, bool]:
    """Give the next number to a model's content; answers it, and whether it is new.

    The same `request_key` gives the version of the first time; raises ConflictError if that one has other
    content or was deleted since.
    """
    if not is_digest(digest):
        raise InvalidInputError(
            f"{digest!r:.80} is no digest.", hint="Register what `blobs.put_tree` answered."
        )
    if request_key is not None:
        query = select(versions).where(versions.c.model_id == model.id, versions.c.request_key == request_key)
        earlier = tx.execute(query).one_or_none()
        if earlier is not None:
            if earlier.digest != digest or earlier.deleted_at is not None:
                raise ConflictError(
                    f"The request '{request_key}' made version {earlier.version} of '{model.name}' already, "
                    + ("which was deleted since." if earlier.deleted_at else "with other content."),
                    hint="Use a key of its own for each version.",
                )
            return int(earlier.version), False
    row = {
        "model_id": model.id,
        "version": model.next_version,
        "digest": digest,
        "run_id": run_id,
        "source": checked_text("the source", source),
        "description": checked_text("the description", description),
        "record": record,
        "stage": NO_STAGE,
        "request_key": request_key,
        "actor": tx.actor,
        "created_at": tx.at,
    }
    _NEW_VERSION.run(tx.connection, [row])
    counted = {"model": model.id, "next_version": model.next_version + 1, "updated_at": tx.at}
    _COUNTED.run(tx.connection, [counted])
    return int(model.next_version), True


def registered_model(connection: Connection, row: Row[Any]) -> RegisteredModel:
    """A model's row as it is told to the world."""
    return RegisteredModel(
        name=row.name,
        description=row.description,
        aliases=aliases_of(connection, row.id),
        tags=tags_of(connection, row.id, _OF_MODEL).get(_OF_MODEL, {}),
        policy=row.policy,
        governed_by=row.governed_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def model_versions(connection: Connection, model: Row[Any], version: int | None = None) -> list[ModelVersion]:
    """The versions of a model that stand, the newest first: all, or one (raises NotFoundError)."""
    if version is not None:
        rows = [find_version(connection, model, version)]
    else:
        rows = _STANDING.rows(connection, model=model.id)
    return described(connection, model, rows)


def newest_in_stages(connection: Connection, model: Row[Any]) -> list[ModelVersion]:
    """The newest version in each stage, in the order in which the stages were first taken."""
    return described(connection, model, _NEWEST.rows(connection, model=model.id))


def described(connection: Connection, model: Row[Any], rows: Sequence[Row[Any]]) -> list[ModelVersion]:
    """The rows of versions of a model as they are told to the world."""
    aliases: dict[int, list[str]] = {}
    for alias, number in aliases_of(connection, model.id).items():
        aliases.setdefault(number, []).append(alias)
    only = rows[0].version if len(rows) == 1 else None
    tags = tags_of(connection, model.id, only)
    return [
        ModelVersion(
            model=model.name,
            version=row.version,
            digest=row.digest,
            run_id=row.run_id,
            source=row.source,
            description=row.description,
            record=msgspec.convert(row.record, VersionRecord),
            stage=row.stage,
            aliases=tuple(aliases.get(row.version, ())),
            tags=tags.get(row.version, {}),
            actor=row.actor,
            created_at=row.created_at,
        )
        for row in rows
    ]


def is_registered(connection: Connection, digest: str) -> bool:
    """Whether this is the content of a version that stands."""
    query = select(versions.c.version).where(versions.c.digest == digest, versions.c.deleted_at.is_(None))
    return connection.execute(query.limit(1)).first() is not None


def aliases_of(connection: Connection, model_id: int) -> dict[str, int]:
    """The aliases of a model and their versions."""
    return {row.alias: row.version for row in _ALIASES.rows(connection, model=model_id)}


def tags_of(
    connection: Connection, model_id: int, version: int | None = None
) -> Mapping[int, dict[str, str]]:
    """The tags of a model's versions (of one, if given) by version; under 0 those of the model itself."""
    if version is None:
        rows = _TAGS.rows(connection, model=model_id)
    else:
        rows = _TAGS_OF_ONE.rows(connection, model=model_id, version=version)
    found: dict[int, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row.version, {})[row.key] = row.value
    return found


_BY_NAME = select(models).where(models.c.name == bindparam("name"))
_MODEL = Prepared(_BY_NAME)
_LOCKED_MODEL = Prepared(_BY_NAME.with_for_update())
_VERSION = Prepared(
    select(versions).where(
        versions.c.model_id == bindparam("model"), versions.c.version == bindparam("version")
    )
)
_STANDING = Prepared(
    select(versions)
    .where(versions.c.model_id == bindparam("model"), versions.c.deleted_at.is_(None))
    .order_by(versions.c.version.desc())
)
_STAGES = (
    select(func.min(versions.c.version).label("first"), func.max(versions.c.version).label("newest"))
    .where(versions.c.model_id == bindparam("model"), versions.c.deleted_at.is_(None))
    .group_by(versions.c.stage)
    .subquery()
)
_NEWEST = Prepared(
    select(versions)
    .join(_STAGES, versions.c.version == _STAGES.c.newest)
    .where(versions.c.model_id == bindparam("model"))
    .order_by(_STAGES.c.first)
)
_NEW_VERSION = Prepared(
    insert(versions),
    [
        "model_id",
        "version",
        "digest",
        "run_id",
        "source",
        "description",
        "record",
        "stage",
        "request_key",
        "actor",
        "created_at",
    ],
)
_COUNTED = Prepared(
    update(models)
    .where(models.c.id == bindparam("model"))
    .values(next_version=bindparam("next_version"), updated_at=bindparam("updated_at"))
)
_ALIASES = Prepared(
    select(model_aliases_table.c.alias, model_aliases_table.c.version)
    .where(model_aliases_table.c.model_id == bindparam("model"))
    .order_by(model_aliases_table.c.alias)
)
_ALL_TAGS = (
    select(model_tags_table.c.version, model_tags_table.c.key, model_tags_table.c.value)
    .where(model_tags_table.c.model_id == bindparam("model"))
    .order_by(model_tags_table.c.key)
)
_TAGS = Prepared(_ALL_TAGS)
_TAGS_OF_ONE = Prepared(_ALL_TAGS.where(model_tags_table.c.version == bindparam("version")))
