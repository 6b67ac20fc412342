"""A process that writes to a store until it is killed; run by the tests.

    python -m tests.store.writer metadata ADDRESS NAME
    python -m tests.store.writer table FOLDER COUNT

It prints a line for each thing that was acknowledged, after it was.
"""

import sys
from pathlib import Path

import polars as pl

from trimtab.clock import SystemClock
from trimtab.store.database import Transaction
from trimtab.store.opening import open_database
from trimtab.store.sqlite import SqliteDatabase
from trimtab.store.tables import DeltaTables


def write_metadata(address: str, name: str) -> None:
    """One journaled change after the other, as fast as it goes."""
    database = open_database(address, SystemClock())

    def work(tx: Transaction) -> int:
        return tx.journal("thing.put", "thing", name)

    while True:
        print(database.write(work, actor=name), flush=True)


def write_table(folder: str, count: str) -> None:
    """Append one row under each of the transaction ids 0 to `count`, in order, from the start."""
    database = SqliteDatabase(Path(folder) / "metadata.db", SystemClock())
    tables = DeltaTables(f"{folder}/tables", database.exclusive)
    for number in range(int(count)):
        tables.append("rows", pl.DataFrame({"id": [number]}), transaction_id=str(number))
        print(number, flush=True)


if __name__ == "__main__":
    {"metadata": write_metadata, "table": write_table}[sys.argv[1]](sys.argv[2], sys.argv[3])
