"""The tables of the model registry.

The row of a deleted model or version stays, so that no number is ever given twice and history can be told.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, Text

from trimtab.store.types import BigSerial, JsonText, UtcTime, metadata

models_table = Table(
    "models",
    metadata,
    Column("id", BigSerial, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("lifecycle", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("next_version", Integer, nullable=False),
    Column("policy", Text),  # digest of the gates policy in force; NULL: nobody governs it
    Column("governed_by", Text),
    Column("policy_since", BigInteger),  # the journal entry by which the policy came into force
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)

model_policies_table = Table(
    "model_policies",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("policy", JsonText, nullable=False),
)

model_versions_table = Table(
    "model_versions",
    metadata,
    Column("model_id", BigInteger, ForeignKey("models.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("run_id", Text),
    Column("source", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("record", JsonText, nullable=False),
    Column("stage", Text, nullable=False),
    Column("request_key", Text),
    Column("rejected_entry", BigInteger),  # the journal entry by which this content was last rejected
    Column("actor", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Index("ix_model_versions_request", "model_id", "request_key", unique=True),
    Index("ix_model_versions_digest", "digest"),
    Index("ix_model_versions_run", "run_id"),
)

model_aliases_table = Table(
    "model_aliases",
    metadata,
    Column("model_id", BigInteger, ForeignKey("models.id"), primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)

alias_events_table = Table(
    "model_alias_events",
    metadata,
    Column("number", BigSerial, primary_key=True),
    Column("model_id", BigInteger, ForeignKey("models.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("version", Integer),
    Column("digest", Text),
    Column("basis", Text, nullable=False),
    Column("report", BigInteger),
    Column("policy", Text),
    Column("entry", BigInteger, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_model_alias_events_name", "model", "alias", "number"),
    Index("ix_model_alias_events_model", "model_id", "alias", "number"),
)

model_tags_table = Table(
    "model_tags",
    metadata,
    Column("model_id", BigInteger, ForeignKey("models.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),  # 0: of the model itself
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

gate_reports_table = Table(
    "gate_reports",
    metadata,
    Column("number", BigSerial, primary_key=True),
    Column("model_id", BigInteger, ForeignKey("models.id"), nullable=False),
    Column("digest", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("report", JsonText, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_gate_reports_evidence", "model_id", "digest", "policy", "number"),
)
