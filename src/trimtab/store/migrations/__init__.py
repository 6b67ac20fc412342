"""The schema's versions: brings a metadata store to the newest, and refuses one that is newer still.

Alembic costs over half a second to import, so a store that is up to date never loads it.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection, inspect, text

from trimtab.errors import WorkspaceVersionError
from trimtab.store.database import Database, translated

NEWEST = "0005"
"""The revision that this Trimtab works with; the last file in `versions/`."""

KNOWN = {"0001", "0002", "0003", "0004", "0005"}


def revision(connection: Connection) -> str | None:
    """The revision of the store, or None if it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def upgrade(database: Database) -> None:
    """Bring the store to the newest schema; several processes may ask at once.

    Raises WorkspaceVersionError if a newer Trimtab made it.
    """
    if _current(database) == NEWEST:
        return
    with database.exclusive("migrations"):
        if _current(database) == NEWEST:
            return
        with translated():
            _run_alembic(database.engine)


def _current(database: Database) -> str | None:
    with database.read() as connection:
        found = revision(connection)
    if found is not None and found not in KNOWN:
        raise WorkspaceVersionError(
            f"This workspace has schema {found}; this Trimtab knows schemas up to {NEWEST}.",
            hint="Upgrade it: pip install --upgrade trimtab",
        )
    return found


def _run_alembic(engine: sqlalchemy.Engine) -> None:
    from alembic import command  # noqa: PLC0415  (0.6 s; needed only when the schema changes)
    from alembic.config import Config  # noqa: PLC0415  (the same)

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.connect().execution_options(trimtab_write=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, NEWEST)
