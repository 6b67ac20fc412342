"""Endpoints have options."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the changes."""
    op.add_column("endpoints", sa.Column("options", sa.Text(), nullable=True))
