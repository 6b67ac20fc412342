"""The tables of datasets, their versions, and the sources that feed them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, Table, Text

from trimtab.store.types import JsonText, UtcTime, metadata

datasets_table = Table(
    "datasets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("time", Text),
    Column("key", JsonText, nullable=False),
    Column("contract", JsonText),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", Text, nullable=False),
)

dataset_versions_table = Table(
    "dataset_versions",
    metadata,
    Column("dataset", Text, ForeignKey("datasets.name"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("request_key", Text, nullable=False),
    Column("batch", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("added", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("schema", JsonText, nullable=False),
    Column("time_min", UtcTime),
    Column("time_max", UtcTime),
    Column("profile", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Index("uq_dataset_versions_request_key", "dataset", "request_key", unique=True),
)

dataset_sources_table = Table(
    "dataset_sources",
    metadata,
    Column("dataset", Text, ForeignKey("datasets.name"), primary_key=True),
    Column("folder", Text, primary_key=True),
    Column("every_seconds", Float, nullable=False),
    Column("settle_seconds", Float, nullable=False),
    Column("on_violation", Text, nullable=False),
    Column("looked_at", UtcTime),
    Column("problem", Text, nullable=False),
)

source_files_table = Table(
    "source_files",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("folder", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("version", Integer),
    Column("reason", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
)
