from __future__ import annotations

import io
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from trimtab.data.datasets import Datasets
from trimtab.data.row_formats import BY_SUFFIX, read_rows, read_rows_file
from trimtab.data.spec import ColumnType
from trimtab.errors import InvalidInputError
from trimtab.workspace import Workspace

AT = datetime(2011, 1, 1, 5, tzinfo=UTC)
TYPES: dict[str, ColumnType] = {"at": "datetime", "day": "date", "station": "str", "x": "float", "n": "int"}
ROWS = pl.DataFrame(
    {
        "at": [AT, None],
        "day": [date(2011, 1, 1), None],
        "station": ["007", "8"],
        "x": [1.5, None],
        "n": [1, 2],
    },
    schema_overrides={"at": pl.Datetime("us", "UTC")},
)


def written(form: str) -> bytes:
    buffer = io.BytesIO()
    text = ROWS.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    match form:
        case "parquet":
            ROWS.write_parquet(buffer)
        case "arrow":
            ROWS.write_ipc(buffer)
        case "csv":
            text.write_csv(buffer)
        case "json":
            text.write_json(buffer)
        case _:
            text.write_ndjson(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", sorted(BY_SUFFIX))
def test_rows_are_the_same_in_every_form(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(written(BY_SUFFIX[suffix]))
    assert_frame_equal(read_rows_file(path, TYPES), ROWS)


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2011-01-01T05:00:00Z", 5),
        ("2011-01-01T05:00:00.000000Z", 5),
        ("2011-01-01T05:00:00+02:00", 3),
        ("2011-01-01 05:00:00", 5),
        ("2011-01-01 05:00", 5),
        ("2011-01-01", 0),
    ],
)
def test_times_may_be_written_in_several_ways_even_side_by_side(form: str, text: str, hour: int) -> None:
    data = (
        f"at\n{text}\n2011-01-02T00:00:00Z\n"
        if form == "csv"
        else f'[{{"at":"{text}"}},{{"at":"2011-01-02"}}]'
    )
    found = read_rows(data.encode(), form, {"at": "datetime"})
    assert found["at"].to_list() == [datetime(2011, 1, 1, hour, tzinfo=UTC), datetime(2011, 1, 2, tzinfo=UTC)]


@pytest.mark.parametrize(
    "text", ["yesterday", "01/02/2011", "1-2-2011", "2011-13-01", "2011-01-01T25:00:00Z", "1293840000"]
)
@pytest.mark.parametrize("form", ["csv", "json"])
def test_what_is_not_plainly_a_time_is_not_guessed(form: str, text: str) -> None:
    data = f"at\n{text}\n" if form == "csv" else f'[{{"at":"{text}"}}]'
    with pytest.raises(InvalidInputError, match=r"Column 'at' has .*RFC 3339"):
        read_rows(data.encode(), form, {"at": "datetime"})


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"", "csv"),
        (b"{", "json"),
        (b"{", "ndjson"),
        (b"PAR1", "parquet"),
        (b"x", "arrow"),
        (b"n\nfar\n", "csv"),
    ],
)
def test_content_that_is_not_its_form_is_refused(data: bytes, form: str) -> None:
    with pytest.raises(InvalidInputError):
        read_rows(data, form, TYPES)


def test_a_file_that_is_missing_or_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_rows_file(tmp_path / "none.csv")
    with pytest.raises(InvalidInputError, match="suffix"):
        read_rows_file(tmp_path / "rows.xls")


def test_a_dataset_knows_the_types_to_read_text_by(workspace: Workspace) -> None:
    datasets = Datasets(workspace)
    datasets.create("free", time="at")
    assert datasets.types("free") == {"at": "datetime"}
    datasets.append("free", read_rows(written("json"), "json", {**TYPES}).head(1), key="a")
    assert datasets.types("free") == TYPES
