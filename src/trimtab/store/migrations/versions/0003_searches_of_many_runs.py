"""Searches of many runs: indexes for the orders and filters that find few among a million."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the changes."""
    if op.get_bind().dialect.name == "postgresql":
        # Compared byte by byte, as on SQLite, so that both have one order.
        for table, column in (("params", "value"), ("run_tags", "value"), ("runs", "name")):
            op.execute(f'ALTER TABLE {table} ALTER COLUMN {column} TYPE TEXT COLLATE "C"')
    op.create_index(
        "ix_runs_started", "runs", ["experiment_id", "lifecycle", "started_at", "number"], unique=False
    )
    op.drop_index("ix_runs_experiment_started", table_name="runs")
    op.create_index("ix_runs_name", "runs", ["experiment_id", sa.text("substr(name, 1, 200)")], unique=False)
    op.create_index("ix_latest_metrics_value", "latest_metrics", ["key", "value", "run"], unique=False)
    for table in ("params", "run_tags"):
        op.create_index(
            f"ix_{table}_value", table, ["key", sa.text("substr(value, 1, 200)"), "run"], unique=False
        )
