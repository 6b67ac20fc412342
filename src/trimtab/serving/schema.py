"""Tables of serving: endpoints and their routes, log segments, the signing secret, access tokens."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from trimtab.store.types import JsonText, UtcTime, metadata

endpoints_table = Table(
    "endpoints",
    metadata,
    Column("name", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("options", JsonText),  # NULL: none was set
)

routes_table = Table(
    "routes",
    metadata,
    Column("endpoint", Text, ForeignKey("endpoints.name"), primary_key=True),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("model", Text, nullable=False),
    Column("salt", Text, nullable=False),
    Column("arms", JsonText, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

serving_state_table = Table(
    "serving_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # Grows with every change that gateways must hear of, so that one look at one row tells whether to read.
    Column("revision", BigInteger, nullable=False),
    # Grows with every demand to ship all that is logged.
    Column("flush", BigInteger, nullable=False),
    Column("secret", Text, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

log_segments_table = Table(
    "log_segments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("folder", Text, nullable=False),
    # Bytes whose frames are in the index of recent predictions.
    Column("indexed", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("labels", BigInteger, nullable=False),
    Column("shipped_at", UtcTime),
    Index("ix_log_segments_shipped_at", "shipped_at"),
)

tokens_table = Table(
    "tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_at", UtcTime),
)
