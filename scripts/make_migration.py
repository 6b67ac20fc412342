"""Write the migration from the newest schema in store/migrations to the tables as the packages define them.

    python scripts/make_migration.py 0002 runs_have_notes

Read and complete what it writes, and name it in store/migrations/__init__.py (NEWEST, KNOWN).
"""

import importlib
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext

from trimtab.clock import SystemClock
from trimtab.store import migrations
from trimtab.store.sqlite import SqliteDatabase
from trimtab.store.types import JsonText, UtcTime, metadata

VERSIONS = Path(migrations.__file__).parent / "versions"
PACKAGES = ("store", "data", "tracking", "pipelines", "models", "monitoring", "serving", "loop")


def render(kind: str, item: object, _context: object) -> Any:
    """Our column types as the plain ones that they are in the database; a migration outlives its classes."""
    if kind != "type":
        return False
    if isinstance(item, UtcTime):
        return "sa.BigInteger()"
    if isinstance(item, JsonText):
        return "sa.Text()"
    if isinstance(item, sa.BigInteger) and item._variant_mapping:
        return 'sa.BigInteger().with_variant(sa.Integer(), "sqlite")'
    return False


def changes() -> str:
    """The statements that bring the newest migrated schema to the defined one."""
    for package in PACKAGES:
        importlib.import_module(f"trimtab.{package}.schema")
    with tempfile.TemporaryDirectory() as folder:
        database = SqliteDatabase(Path(folder) / "metadata.db", SystemClock())
        if any(VERSIONS.glob("*.py")):
            migrations.upgrade(database)
        with database.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
            script = produce_migrations(context, metadata)
            assert script.upgrade_ops is not None
            code = render_python_code(script.upgrade_ops, render_item=render, migration_context=context)
        database.close()
    return re.sub(r"\n\s*# ###.*", "", "\n" + code).strip("\n")


def main() -> None:
    """Write the file for the number and name on the command line."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    number, name = sys.argv[1:]
    earlier = sorted(path.name[:4] for path in VERSIONS.glob("*.py"))
    text = f'''"""{name.replace("_", " ").capitalize()}."""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = {repr(earlier[-1]) if earlier else None}


def upgrade() -> None:
    """Make the changes."""
{changes()}
'''
    (VERSIONS / f"{number}_{name}.py").write_text(text)


if __name__ == "__main__":
    main()
