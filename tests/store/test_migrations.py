"""Migrations make exactly the tables that the packages define, from any released schema on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.schema import CreateIndex

from trimtab.clock import SystemClock
from trimtab.errors import WorkspaceVersionError
from trimtab.store import journal, migrations
from trimtab.store.database import Database
from trimtab.store.opening import open_database
from trimtab.store.types import metadata

PACKAGES = ("store", "data", "tracking", "pipelines", "models", "monitoring", "serving", "loop")
VERSIONS = Path(migrations.__file__).parent / "versions"

# It cannot compare an index of an expression on SQLite: the test below does.
pytestmark = [
    pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression"),
    pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index"),
]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'metadata.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    opened = open_database(url, SystemClock())
    yield opened
    opened.close()


def differences(database: Database) -> list[object]:
    for package in PACKAGES:
        importlib.import_module(f"trimtab.{package}.schema")
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        return list(compare_metadata(context, metadata))


def test_an_empty_store_gets_the_tables_as_they_are_defined(database: Database) -> None:
    migrations.upgrade(database)
    assert differences(database) == []
    with database.read() as connection:
        assert journal.verify(connection).entries == 0
        assert migrations.revision(connection) == migrations.NEWEST


def test_every_revision_upgrades_in_place_and_keeps_what_is_there(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with (
        database.engine.connect().execution_options(trimtab_write=True) as connection,
        connection.begin(),
    ):
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    database.write(lambda tx: tx.journal("a.b", "kind", "kept"), actor="test")
    migrations.upgrade(database)
    assert differences(database) == []
    with database.read() as connection:
        assert [entry.name for entry in journal.entries(connection)] == ["kept"]


def test_indexes_of_expressions_are_made_as_they_are_defined(database: Database) -> None:
    if database.engine.dialect.name != "sqlite":
        pytest.skip("compared above")
    migrations.upgrade(database)
    defined = {
        str(index.name): str(CreateIndex(index).compile(database.engine))
        for table in metadata.tables.values()
        for index in table.indexes
        if any(not isinstance(expression, sa.Column) for expression in index.expressions)
    }
    query = sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'index'")
    with database.read() as connection:
        made = {row.name: row.sql for row in connection.execute(query)}
    assert defined
    assert {name: made[name] for name in defined} == defined


def test_upgrading_again_changes_nothing(database: Database) -> None:
    migrations.upgrade(database)
    database.write(lambda tx: tx.journal("a.b", "kind", "name"), actor="test")
    migrations.upgrade(database)
    with database.read() as connection:
        assert journal.verify(connection).entries == 1


def test_a_store_of_a_newer_trimtab_is_refused_and_left_alone(database: Database) -> None:
    migrations.upgrade(database)
    database.write(
        lambda tx: tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")), actor="test"
    )
    with pytest.raises(WorkspaceVersionError, match="pip install --upgrade trimtab"):
        migrations.upgrade(database)
    with database.read() as connection:
        assert migrations.revision(connection) == "9999"


def test_the_known_revisions_are_the_files() -> None:
    files = {path.name[:4] for path in VERSIONS.glob("[0-9]*.py")}
    assert files == migrations.KNOWN
    assert max(files) == migrations.NEWEST
