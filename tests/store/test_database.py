"""SQLite and Postgres pass the suite, and lose nothing that they acknowledged."""

from pathlib import Path

import pytest

from trimtab.clock import Clock
from trimtab.store.database import Database, open_database
from trimtab.testing.databases import DatabaseConformance


class TestSqlite(DatabaseConformance):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'metadata.db'}"

    def open_database(self, address: str, clock: Clock) -> Database:
        return open_database(address, clock)


class TestPostgres(DatabaseConformance):
    @pytest.fixture
    def address(self, postgres_url: str) -> str:
        return postgres_url

    def open_database(self, address: str, clock: Clock) -> Database:
        return open_database(address, clock)
