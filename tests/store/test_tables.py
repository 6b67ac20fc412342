"""Delta Lake passes the suite, and its appends survive a kill."""

from pathlib import Path

from trimtab.clock import SystemClock
from trimtab.store.sqlite import SqliteDatabase
from trimtab.store.tables import DeltaTables, Tables
from trimtab.testing.tables import TablesConformance


class TestDeltaTables(TablesConformance):
    def open_tables(self, folder: Path) -> Tables:
        database = SqliteDatabase(folder.parent / "metadata.db", SystemClock())
        return DeltaTables(str(folder), database.exclusive)
