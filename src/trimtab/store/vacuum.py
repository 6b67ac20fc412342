"""The space that deleted rows leave in a SQLite file. SQLite fills it again by itself; only a rewrite of the
whole file gives it back to the disk. Postgres looks after itself."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from trimtab.store.database import Database, translated
from trimtab.store.sqlite import FileLock, SqliteDatabase


def free_bytes(database: Database) -> int:
    """Bytes of the file that hold nothing; 0 for Postgres."""
    if not isinstance(database, SqliteDatabase):
        return 0
    with database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())


def vacuum(database: Database) -> int:
    """Rewrite the file without what holds nothing; answers how many bytes smaller it is. Who writes waits
    until it is done, and the disk needs twice as much free space as the file has left."""
    if not isinstance(database, SqliteDatabase):
        return 0
    before = _size(database.path)
    with translated(), contextlib.closing(FileLock(database.path.with_suffix(".lock"))) as lock, lock:
        connection = sqlite3.connect(database.path, isolation_level=None, timeout=30)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
    return before - _size(database.path)


def _size(path: Path) -> int:
    """Bytes of the file and of its write-ahead log."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
