"""The monitoring tables: recent predictions with their labels, live profiles, counts, findings, alerts."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, Table, Text

from trimtab.store.types import BigSerial, JsonText, UtcTime, metadata

outcome_blocks_table = Table(
    "outcome_blocks",
    metadata,
    Column("id", BigSerial, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("day", Integer, nullable=False),
    Column("shelf", LargeBinary, nullable=False),
    Column("first_name", LargeBinary, nullable=False),
    Column("last_name", LargeBinary, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("labelled", Integer, nullable=False),
    Column("revisions", Integer, nullable=False),
    Column("labels", LargeBinary),
    Column("keys", LargeBinary),
    Column("answers", LargeBinary, nullable=False),
    Index("ix_outcome_blocks_endpoint_day", "endpoint", "day"),
    Index("ix_outcome_blocks_endpoint_shelf", "endpoint", "shelf", "last_name"),
)
"""Up to some thousand predictions of one UTC day (`day`: days since 1970) in a row, since one row each would
cost twenty times as much. `shelf` and names: see `monitoring.prediction_names`. Times are microseconds since
1970. `keys` is a filter (`monitoring.key_filter`), null where no prediction has a key; `answers` and `labels`
are `monitoring.outcome_blocks`'. What is large stands last, so that SQLite need not read it to pass it."""

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
    Index("ix_pending_labels_endpoint", "endpoint"),
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
