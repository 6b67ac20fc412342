"""The loops' tables: declarations, cycles, their moves, and what triggers led to."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint

from trimtab.store.types import BigSerial, JsonText, UtcTime, metadata

loops_table = Table(
    "loops",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("mode", Text, nullable=False),
    Column("paused", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    # Up to which moment of the schedule monitors and triggers were looked at.
    Column("watched_at", UtcTime, nullable=False),
)

loop_versions_table = Table(
    "loop_versions",
    metadata,
    Column("loop", Text, ForeignKey("loops.name"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("declaration", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
)

cycles_table = Table(
    "cycles",
    metadata,
    Column("id", Text, primary_key=True),
    Column("loop", Text, ForeignKey("loops.name"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("active", Text),
    Column("declaration", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("baseline", Integer),
    Column("params", JsonText, nullable=False),
    Column("triggered_at", UtcTime, nullable=False),
    Column("moved_at", UtcTime, nullable=False),
    Column("moves", Integer, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("datasets", JsonText, nullable=False),
    Column("as_of", UtcTime),
    Column("rows", Integer, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("candidate", Integer),
    Column("stage", Integer, nullable=False),
    Column("route_generation", Integer, nullable=False),
    Column("rollout_started", UtcTime),
    Column("stage_since", UtcTime),
    Column("look_at", UtcTime),
    Column("measure", JsonText),
    Column("finished_at", UtcTime),
    UniqueConstraint("loop", "number"),
    # The loop's name while the cycle is unfinished, NULL after: the store itself refuses a second one.
    UniqueConstraint("active"),
)

cycle_moves_table = Table(
    "cycle_moves",
    metadata,
    Column("cycle", Text, ForeignKey("cycles.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("from_state", Text, nullable=False),
    Column("to_state", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JsonText, nullable=False),
)

trigger_decisions_table = Table(
    "trigger_decisions",
    metadata,
    Column("id", BigSerial, primary_key=True),
    Column("loop", Text, ForeignKey("loops.name"), nullable=False),
    Column("trigger", Text, nullable=False),
    Column("occasion", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("because", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("numbers", JsonText, nullable=False),
    Column("cycle", Text),
    UniqueConstraint("loop", "trigger", "occasion"),
    Index("ix_trigger_decisions_at", "loop", "at"),
)
