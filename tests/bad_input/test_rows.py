"""Rows that a dataset cannot take, at every door where rows come in."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

import trimtab as tt
from trimtab.data.datasets import Datasets
from trimtab.data.sources import Sources
from trimtab.errors import InvalidInputError
from trimtab.server.http import create_app
from trimtab.store import journal
from trimtab.workspace import Workspace

AT = datetime(2011, 8, 1, tzinfo=UTC)


class Trips(tt.Contract):
    """What the tests append."""

    at: datetime
    distance: float = tt.field(ge=0)
    city: str


GOOD = pl.DataFrame({"at": [AT, AT], "distance": [1.5, 2.5], "city": ["a", "b"]})

BAD = {
    "wrong column": (GOOD.rename({"city": "town"}), "city"),
    "missing column": (GOOD.drop("distance"), "distance"),
    "wrong type": (GOOD.with_columns(distance=pl.lit("far")), "distance"),
    "NaN": (GOOD.with_columns(distance=pl.Series([math.nan, 1.0])), "distance"),
    "null": (GOOD.with_columns(city=pl.Series([None, "b"])), "city"),
    "empty": (GOOD.clear(), "empty"),
}

Door = Callable[[Workspace, pl.DataFrame, Path], str]


def by_python(workspace: Workspace, rows: pl.DataFrame, _: Path) -> str:
    with pytest.raises(InvalidInputError) as refused:
        Datasets(workspace).append("trips", rows, key="bad")
    return str(refused.value)


def by_http(workspace: Workspace, rows: pl.DataFrame, _: Path) -> str:
    body = io.BytesIO()
    rows.write_parquet(body)
    app = create_app(workspace, "127.0.0.1")
    with TestClient(app, base_url="http://127.0.0.1:8600") as client:
        answer = client.post(
            "/v1/datasets/trips/rows",
            content=body.getvalue(),
            headers={"Content-Type": "application/vnd.apache.parquet"},
        )
    assert answer.status_code == 422, answer.text
    return str(answer.json()["error"])


def by_folder(workspace: Workspace, rows: pl.DataFrame, folder: Path) -> str:
    drop = folder / "drop"
    drop.mkdir()
    Sources(workspace).register("trips", drop, settle=timedelta(0), on_violation="refuse")
    rows.write_parquet(drop / "bad.parquet")
    assert Sources(workspace).poll("trips") == []
    (file,) = Sources(workspace).files("trips")
    assert file.version is None
    return file.reason


@pytest.mark.parametrize("door", [by_python, by_http, by_folder])
@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_refused_at_every_door_and_change_nothing(
    workspace: Workspace, tmp_path: Path, kind: str, door: Door
) -> None:
    datasets = Datasets(workspace)
    datasets.create("trips", contract=Trips, time="at")
    datasets.append("trips", GOOD, key="good")
    rows, named = BAD[kind]
    assert named in door(workspace, rows, tmp_path)
    assert [version.rows for version in datasets.versions("trips")] == [2]
    assert datasets.read("trips").height == 2
    assert datasets.quarantined("trips").is_empty()
    with workspace.read() as connection:
        appended = list(journal.entries(connection, action="dataset.appended"))
        assert len(appended) == 1
        journal.verify(connection)
    assert datasets.append("trips", GOOD, key="bad").rows == 4  # the key was not used up
