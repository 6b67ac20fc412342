"""The suite that every table store must pass.

class TestMyTables(TablesConformance):
    def open_tables(self, folder: Path) -> Tables:
        return MyTables(folder)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.store.tables import Tables

ROWS = pl.DataFrame({"id": [1, 2, 3], "name": ["a", "b", None]})
MORE = pl.DataFrame({"id": [4], "name": ["d"]})


class TablesConformance(ABC):
    """Subclass it in a test module and say how to open a store; pytest then runs all of it."""

    @abstractmethod
    def open_tables(self, folder: Path) -> Tables:
        """The store that keeps its tables in this folder; each call opens it anew, as a process would."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    @pytest.fixture
    def tables(self, folder: Path) -> Tables:
        return self.open_tables(folder)

    def test_rows_come_back_as_they_were(self, tables: Tables) -> None:
        at = datetime(2011, 9, 1, 12, 30, 0, 123456, tzinfo=UTC)
        rows = pl.DataFrame(
            {
                "at": pl.Series([at, None], dtype=pl.Datetime("us", "UTC")),
                "day": pl.Series([date(2011, 9, 1), None], dtype=pl.Date),
                "count": pl.Series([2**62, None], dtype=pl.Int64),
                "small": pl.Series([1, 2], dtype=pl.Int8),
                "share": pl.Series([0.1, None], dtype=pl.Float64),
                "good": [True, None],
                "name": ["größe", None],
                "raw": [b"\0\xff", None],
                "scores": [[0.5, 0.25], []],
            }
        )
        tables.append("rows", rows, transaction_id="one")
        assert_frame_equal(tables.read("rows"), rows)
        assert_frame_equal(tables.scan("rows").collect(), rows)

    def test_not_a_number_and_missing_stay_two_things(self, tables: Tables) -> None:
        rows = pl.DataFrame({"x": [1.0, float("nan"), None, float("inf")]})
        tables.append("rows", rows, transaction_id="one")
        read = tables.read("rows")["x"]
        assert read.is_nan().to_list() == [False, True, None, False]
        assert read.is_null().sum() == 1

    def test_each_append_is_a_version_that_can_be_read_later(self, tables: Tables) -> None:
        first = tables.append("rows", ROWS, transaction_id="one")
        second = tables.append("rows", MORE, transaction_id="two")
        assert second > first
        assert tables.version("rows") == second
        assert_frame_equal(tables.read("rows", version=first), ROWS)
        assert_frame_equal(tables.read("rows").sort("id"), pl.concat([ROWS, MORE]))

    def test_a_transaction_appends_once_whoever_repeats_it(self, tables: Tables, folder: Path) -> None:
        first = tables.append("rows", ROWS, transaction_id="one")
        second = tables.append("rows", MORE, transaction_id="two")
        assert tables.append("rows", ROWS, transaction_id="one") == first
        assert self.open_tables(folder).append("rows", ROWS, transaction_id="one") == first
        assert self.open_tables(folder).append("rows", MORE, transaction_id="two") == second
        assert tables.version("rows") == second
        assert tables.read("rows").height == 4

    def test_a_transaction_appends_once_when_many_repeat_it_at_once(self, folder: Path) -> None:
        def append(number: int) -> int:
            name = number % 5
            return self.open_tables(folder).append(
                "rows", pl.DataFrame({"id": [name]}), transaction_id=str(name)
            )

        with ThreadPoolExecutor(4) as pool:
            versions = list(pool.map(append, range(15)))
        tables = self.open_tables(folder)
        assert sorted(tables.read("rows")["id"]) == [0, 1, 2, 3, 4]
        assert versions[:5] == versions[5:10] == versions[10:]

    def test_a_transaction_is_known_in_its_own_table_only(self, tables: Tables) -> None:
        tables.append("rows/a", ROWS, transaction_id="one")
        tables.append("rows/b", MORE, transaction_id="one")
        assert tables.read("rows/b").height == 1

    def test_only_what_is_asked_for_is_read(self, tables: Tables) -> None:
        tables.append("rows", ROWS, transaction_id="one")
        read = tables.read("rows", columns=["name"], where=pl.col("id") > 1)
        assert_frame_equal(read, pl.DataFrame({"name": ["b", None]}))

    def test_new_columns_are_added_and_missing_ones_are_null(self, tables: Tables) -> None:
        first = tables.append("rows", ROWS, transaction_id="one")
        tables.append("rows", pl.DataFrame({"id": [4], "extra": [0.5]}), transaction_id="two")
        expected = pl.DataFrame(
            {"id": [1, 2, 3, 4], "name": ["a", "b", None, None], "extra": [None, None, None, 0.5]}
        )
        assert_frame_equal(tables.read("rows").sort("id"), expected)
        assert tables.read("rows", version=first).columns == ["id", "name"]

    def test_a_column_of_another_type_is_refused_and_changes_nothing(self, tables: Tables) -> None:
        first = tables.append("rows", ROWS, transaction_id="one")
        with pytest.raises(InvalidInputError, match="rows"):
            tables.append("rows", pl.DataFrame({"id": ["four"], "name": ["d"]}), transaction_id="two")
        assert tables.version("rows") == first
        assert_frame_equal(tables.read("rows"), ROWS)
        assert tables.append("rows", MORE, transaction_id="two") > first

    def test_a_number_as_text_is_no_number(self, tables: Tables) -> None:
        tables.append("rows", ROWS, transaction_id="one")
        with pytest.raises(InvalidInputError, match="'id' is String, but Int64"):
            tables.append("rows", pl.DataFrame({"id": ["4"]}), transaction_id="two")

    def test_a_narrower_column_takes_the_tables_type(self, tables: Tables) -> None:
        tables.append("rows", pl.DataFrame({"x": [0.5], "name": ["a"]}), transaction_id="one")
        narrow = pl.DataFrame(
            {"x": pl.Series([1], dtype=pl.Int32), "name": pl.Series(["b"], dtype=pl.Categorical)}
        )
        tables.append("rows", narrow, transaction_id="two")
        tables.append("rows", pl.DataFrame({"x": [None], "name": ["c"]}), transaction_id="three")
        expected = pl.DataFrame({"x": [0.5, 1.0, None], "name": ["a", "b", "c"]})
        assert_frame_equal(tables.read("rows").sort("name"), expected)

    def test_a_number_too_large_for_its_column_is_refused(self, tables: Tables) -> None:
        first = tables.append(
            "rows", pl.DataFrame({"x": pl.Series([1], dtype=pl.Int8)}), transaction_id="one"
        )
        with pytest.raises(InvalidInputError, match="rows"):
            tables.append("rows", pl.DataFrame({"x": [1000]}), transaction_id="two")
        assert tables.version("rows") == first

    def test_an_empty_frame_appends_no_row_but_counts_as_done(self, tables: Tables) -> None:
        first = tables.append("rows", ROWS.clear(), transaction_id="one")
        assert tables.append("rows", ROWS.clear(), transaction_id="one") == first
        assert tables.read("rows").height == 0
        tables.append("rows", ROWS, transaction_id="two")
        assert_frame_equal(tables.read("rows"), ROWS)

    def test_a_table_may_be_partitioned(self, tables: Tables) -> None:
        rows = pl.DataFrame({"day": ["1", "2", "1"], "id": [1, 2, 3]})
        tables.append("rows", rows, transaction_id="one", partition_by=["day"])
        tables.append(
            "rows", rows.with_columns(id=pl.col("id") + 3), transaction_id="two", partition_by=["day"]
        )
        read = tables.read("rows", columns=["id"], where=pl.col("day") == "1")
        assert sorted(read["id"]) == [1, 3, 4, 6]

    def test_what_does_not_stand_is_not_found(self, tables: Tables) -> None:
        assert tables.version("rows") is None
        with pytest.raises(NotFoundError, match="rows"):
            tables.read("rows")
        first = tables.append("rows", ROWS, transaction_id="one")
        with pytest.raises(NotFoundError, match=str(first + 7)):
            tables.read("rows", version=first + 7)

    @pytest.mark.parametrize("name", ["", "../outside", "a/../../b", "/etc", "a//b", "a\0b", "."])
    def test_a_name_that_leads_elsewhere_is_refused(self, tables: Tables, name: str) -> None:
        with pytest.raises(InvalidInputError, match="name of a table"):
            tables.append(name, ROWS, transaction_id="one")
        with pytest.raises(InvalidInputError, match="name of a table"):
            tables.read(name)

    def test_compaction_keeps_rows_versions_and_transactions(self, tables: Tables, folder: Path) -> None:
        versions = [
            tables.append("rows", pl.DataFrame({"id": [number]}), transaction_id=str(number))
            for number in range(6)
        ]
        tables.compact("rows")
        assert sorted(tables.read("rows")["id"]) == [0, 1, 2, 3, 4, 5]
        assert sorted(tables.read("rows", version=versions[2])["id"]) == [0, 1, 2]
        again = self.open_tables(folder)
        assert again.append("rows", pl.DataFrame({"id": [3]}), transaction_id="3") == versions[3]
        assert again.read("rows").height == 6

    def test_compacting_what_does_not_stand_does_nothing(self, tables: Tables) -> None:
        tables.compact("rows")
        assert tables.version("rows") is None
