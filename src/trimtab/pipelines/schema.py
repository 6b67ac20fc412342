"""The tables of pipelines: step runs, the step cache, jobs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, Table, Text

from trimtab.store.types import BigSerial, JsonText, UtcTime, metadata

step_runs_table = Table(
    "step_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("step", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("cache_key", Text, nullable=False),
    Column("inputs", JsonText, nullable=False),
    Column("output", JsonText),
    Column("output_digest", Text),
    Column("log_digest", Text),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("seconds", Float),
    Column("error", Text, nullable=False),
)

step_cache_table = Table(
    "step_cache",
    metadata,
    Column("cache_key", Text, primary_key=True),
    Column("step", Text, nullable=False),
    Column("output", JsonText, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_step_cache_step", "step"),
)

jobs_table = Table(
    "jobs",
    metadata,
    Column("number", BigSerial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("spec", JsonText, nullable=False),
    Column("dedupe_key", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("lease_until", UtcTime, nullable=False),
    Column("cancel_requested", Integer, nullable=False),
    Column("result", JsonText),
    Column("error", JsonText),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Index("ix_jobs_state_kind", "state", "kind", "number"),
)
