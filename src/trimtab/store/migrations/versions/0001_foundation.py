"""The first schema."""

import importlib
import importlib.util

from alembic import op
from sqlalchemy import text

from trimtab.store.migrations.tables import SCHEMA_MODULES
from trimtab.store.types import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    for name in SCHEMA_MODULES:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    bind = op.get_bind()
    metadata.create_all(bind)
    bind.execute(
        text("INSERT INTO journal_head (id, seq, hash) VALUES (1, 0, :hash)"), {"hash": "b3:" + "0" * 64}
    )
