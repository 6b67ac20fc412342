"""Statements that the driver runs itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, Table, select

from trimtab.store.prepared import Prepared, among

numbered = Table(
    "numbered", MetaData(), Column("number", Integer, primary_key=True), Column("other", Integer)
)


@pytest.fixture
def engine(tmp_path: Path) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'numbers.db'}")
    numbered.metadata.create_all(engine)
    return engine


def test_rows_are_found_among_a_list_of_numbers(engine: sqlalchemy.Engine) -> None:
    asked = Prepared(select(numbered.c.other).where(among(numbered.c.number, "numbers")))
    with engine.begin() as connection:
        connection.execute(numbered.insert(), [{"number": n, "other": 10 * n} for n in range(9)])
        found = asked.rows(connection, numbers=[2, 5, 77])
    assert sorted(row.other for row in found) == [20, 50]


def test_a_list_of_numbers_is_looked_up_in_the_index(engine: sqlalchemy.Engine) -> None:
    statement = select(numbered).where(among(numbered.c.number, "numbers"))
    compiled = str(statement.compile(dialect=engine.dialect))
    with engine.connect() as connection:
        driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        plan = driver.execute(f"EXPLAIN QUERY PLAN {compiled}", ("[2]",)).fetchall()
    assert plan[0][3].startswith("SEARCH numbered"), plan
