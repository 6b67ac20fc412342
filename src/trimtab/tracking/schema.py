"""The tables of tracking.

Runs have two keys: the 32 hexadecimal digits that the world knows, and a small number by which all other
tables refer to them. Points of metrics are kept in chunks (see `trimtab.tracking.metrics`).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)

from trimtab.store.types import BigSerial, JsonText, UtcTime, metadata

# Paths and keys are compared byte by byte on both databases, so that a range of a prefix is a range.
Bytewise = Text().with_variant(Text(collation="C"), "postgresql")

# Texts are indexed by their beginning: Postgres cannot index long ones, SQLite would keep them twice.
INDEXED_CHARACTERS = 200
_VALUE_BEGINS = text(f"substr(value, 1, {INDEXED_CHARACTERS})")
_NAME_BEGINS = text(f"substr(name, 1, {INDEXED_CHARACTERS})")

experiments_table = Table(
    "experiments",
    metadata,
    Column("id", BigSerial, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("lifecycle", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    sqlite_autoincrement=True,
)

experiment_tags_table = Table(
    "experiment_tags",
    metadata,
    Column("experiment_id", BigInteger, ForeignKey("experiments.id"), primary_key=True),
    Column("key", Bytewise, primary_key=True),
    Column("value", Text, nullable=False),
)

runs_table = Table(
    "runs",
    metadata,
    Column("number", BigSerial, primary_key=True),
    Column("id", Bytewise, nullable=False, unique=True),
    Column("experiment_id", BigInteger, ForeignKey("experiments.id"), nullable=False),
    Column("parent", Bytewise),
    Column("name", Bytewise, nullable=False),
    Column("status", Text, nullable=False),
    Column("lifecycle", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("deleted_at", UtcTime),
    Index("ix_runs_started", "experiment_id", "lifecycle", "started_at", "number"),
    Index("ix_runs_name", "experiment_id", _NAME_BEGINS),
    Index("ix_runs_parent", "parent"),
    sqlite_autoincrement=True,
)

params_table = Table(
    "params",
    metadata,
    Column("run", BigInteger, ForeignKey("runs.number"), primary_key=True),
    Column("key", Bytewise, primary_key=True),
    Column("value", Bytewise, nullable=False),
    Index("ix_params_value", "key", _VALUE_BEGINS, "run"),
)

run_tags_table = Table(
    "run_tags",
    metadata,
    Column("run", BigInteger, ForeignKey("runs.number"), primary_key=True),
    Column("key", Bytewise, primary_key=True),
    Column("value", Bytewise, nullable=False),
    Index("ix_run_tags_value", "key", _VALUE_BEGINS, "run"),
)

metric_keys_table = Table(
    "metric_keys",
    metadata,
    Column("id", BigSerial, primary_key=True),
    Column("name", Bytewise, nullable=False, unique=True),
)

metric_writers_table = Table(
    "metric_writers",
    metadata,
    Column("id", BigSerial, primary_key=True),
    Column("name", Bytewise, nullable=False, unique=True),
)

# No foreign keys on the two tables that take every point: the writer has just looked its run and keys up.
metric_chunks_table = Table(
    "metric_chunks",
    metadata,
    Column("run", BigInteger, primary_key=True),
    Column("key", BigInteger, primary_key=True),
    Column("writer", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("points", Integer, nullable=False),
    Column("first_step", BigInteger, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("encoding", SmallInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

latest_metrics_table = Table(
    "latest_metrics",
    metadata,
    Column("run", BigInteger, primary_key=True),
    Column("key", BigInteger, primary_key=True),
    Column("value", Double),  # NULL is NaN: SQLite has no other way to keep one in a column
    Column("step", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # microseconds since 1970
    Index("ix_latest_metrics_value", "key", "value", "run"),  # the best of a million runs, without a sort
    sqlite_with_rowid=False,
)

artifacts_table = Table(
    "artifacts",
    metadata,
    Column("run", BigInteger, ForeignKey("runs.number"), primary_key=True),
    Column("path", Bytewise, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_artifacts_digest", "digest"),
)

# A dataset is kept beside each run that it went into: what describes it is small, and goes with the run.
run_datasets_table = Table(
    "run_datasets",
    metadata,
    Column("run", BigInteger, ForeignKey("runs.number"), primary_key=True),
    Column("name", Bytewise, primary_key=True),
    Column("digest", Bytewise, primary_key=True),
    Column("place", Integer, nullable=False),  # the order in which they were logged
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
    Column("context", Text),  # what it was used for, by the tag mlflow.data.context
    Column("tags", JsonText, nullable=False),
    Index("ix_run_datasets_name", "name", "digest"),
)

run_models_table = Table(
    "run_models",
    metadata,
    Column("run", BigInteger, ForeignKey("runs.number"), primary_key=True),
    Column("direction", Text, primary_key=True),  # "in" or "out"
    Column("model", Bytewise, primary_key=True),
    Column("step", BigInteger, nullable=False),
    Index("ix_run_models_model", "model"),
)

logged_models_table = Table(
    "logged_models",
    metadata,
    Column("number", BigSerial, primary_key=True),
    Column("id", Bytewise, nullable=False, unique=True),
    Column("experiment_id", BigInteger, ForeignKey("experiments.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("run", Bytewise),  # the id of the run that made it
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Index("ix_logged_models_experiment", "experiment_id", "created_at"),
    Index("ix_logged_models_run", "run"),
    sqlite_autoincrement=True,
)

logged_model_params_table = Table(
    "logged_model_params",
    metadata,
    Column("model", BigInteger, ForeignKey("logged_models.number"), primary_key=True),
    Column("key", Bytewise, primary_key=True),
    Column("value", Text, nullable=False),
)

logged_model_tags_table = Table(
    "logged_model_tags",
    metadata,
    Column("model", BigInteger, ForeignKey("logged_models.number"), primary_key=True),
    Column("key", Bytewise, primary_key=True),
    Column("value", Text, nullable=False),
)

logged_model_metrics_table = Table(
    "logged_model_metrics",
    metadata,
    Column("model", BigInteger, ForeignKey("logged_models.number"), primary_key=True),
    Column("run", Bytewise, primary_key=True),
    Column("key", Bytewise, primary_key=True),
    Column("dataset", Bytewise, primary_key=True),  # name and digest, "" for none
    Column("dataset_digest", Bytewise, primary_key=True),
    Column("value", Double),  # NULL is NaN
    Column("step", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # microseconds since 1970
)

logged_model_artifacts_table = Table(
    "logged_model_artifacts",
    metadata,
    Column("model", BigInteger, ForeignKey("logged_models.number"), primary_key=True),
    Column("path", Bytewise, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_logged_model_artifacts_digest", "digest"),
)
