"""The monitoring tables: recent predictions with their labels, live profiles, counts, findings, alerts."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, Table, Text

from trimtab.store.types import BigSerial, JsonText, UtcTime, metadata

outcomes_table = Table(
    "outcomes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("key", Text),
    Column("version", Integer, nullable=False),
    Column("answer", Float(53)),
    Column("scores", Text),
    Column("label", Float(53)),
    Column("labelled_at", BigInteger),
    Column("revisions", Integer, nullable=False),
    Index("ix_outcomes_endpoint_at", "endpoint", "at"),
    Index("ix_outcomes_endpoint_key", "endpoint", "key", "at"),
)
"""One row a prediction. Times are microseconds since 1970; `scores` is JSON by version, null where only the
version that answered scored; `revisions` counts how often its label was replaced by another."""

pending_labels_table = Table(
    "pending_labels",
    metadata,
    Column("reference", Text, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("id", Text),
    Column("key", Text),
    Column("at", BigInteger),
    Column("label", Float(53), nullable=False),
    Column("labelled_at", BigInteger, nullable=False),
)
"""Labels whose prediction was not seen yet. `reference`: the prediction's id, or endpoint, key and time."""

live_profiles_table = Table(
    "live_profiles",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("bucket", UtcTime, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("profile", LargeBinary, nullable=False),
)

service_counts_table = Table(
    "service_counts",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("bucket", UtcTime, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
)

findings_table = Table(
    "findings",
    metadata,
    Column("id", BigSerial, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("monitor", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("status", Text, nullable=False),
    Column("numbers", JsonText, nullable=False),
    Index("ix_findings_owner", "owner", "monitor", "at"),
)

alerts_table = Table(
    "alerts",
    metadata,
    Column("id", BigSerial, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("numbers", JsonText, nullable=False),
    Column("opened_at", UtcTime, nullable=False),
    Column("resolved_at", UtcTime),
    Column("active", Text, unique=True),
    Index("ix_alerts_owner", "owner", "opened_at"),
)
"""`active` is "owner/name" while an alert is open and null afterwards, so that one is open at a time."""

deliveries_table = Table(
    "deliveries",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("delivered", BigInteger, nullable=False),
)
"""Up to which journal entry each channel has been told of alerts."""
