"""Labels that come in by files and folders join the predictions that they name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from trimtab.data.datasets import Datasets
from trimtab.data.sources import Sources
from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.monitoring.outcomes import LabelCounts, Outcomes, PredictionRecord, record_predictions
from trimtab.serving.columnar import feedback_table
from trimtab.serving.endpoints import Endpoints, labels_dataset, signing_secret
from trimtab.serving.labels import labels_from_rows, tell_labels, tell_version, watch_labels
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.store import journal
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

ENDPOINT = "rides"
AT = datetime(2011, 9, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def ids(workspace: Workspace) -> list[str]:
    """An endpoint with three predictions, an hour apart, of the keys 7, 7 and 8."""
    workspace.write(lambda tx: Endpoints(workspace).create(tx, ENDPOINT, "rides-model"))
    minter = PredictionIds(workspace.write(signing_secret))
    made = [minter.mint(ENDPOINT) for _ in range(3)]
    rows = [
        PredictionRecord(
            id=id,
            endpoint=ENDPOINT,
            at=to_microseconds(AT + place * HOUR),
            key=key,
            version=1,
            answer=1.0,
            scores={1: 1.0},
        )
        for place, (id, key) in enumerate(zip(made, ["7", "7", "8"], strict=True))
    ]
    workspace.write(lambda tx: record_predictions(tx, rows))
    return made


def told(workspace: Workspace, rows: pl.DataFrame) -> LabelCounts:
    return tell_labels(workspace, labels_from_rows(ENDPOINT, rows, AT + 5 * HOUR))


def labels(workspace: Workspace) -> list[float | None]:
    """The three predictions' labels."""
    found = Outcomes(workspace).joined(ENDPOINT, AT, AT + 5 * HOUR).label.tolist()
    return [None if label != label else label for label in found]


def test_labels_find_their_predictions_by_id(workspace: Workspace, ids: list[str]) -> None:
    counts = told(workspace, pl.DataFrame({"id": ids[:2], "label": [1, 0]}))
    assert counts == LabelCounts(joined=2)
    assert labels(workspace) == [1.0, 0.0, None]


@pytest.mark.parametrize(
    "keys",
    [pl.Series([7, 8]), pl.Series(["7", "8"]), pl.Series([7.0, 8.0])],
    ids=["integers", "texts", "floats"],
)
def test_labels_find_their_predictions_by_key_and_time(
    workspace: Workspace, ids: list[str], keys: pl.Series
) -> None:
    rows = pl.DataFrame({"key": keys, "at": [AT, AT + 2 * HOUR], "label": [True, False]})
    assert told(workspace, rows) == LabelCounts(joined=2)
    assert labels(workspace) == [1.0, None, 0.0]


def test_without_a_time_a_label_is_of_the_keys_newest_prediction(
    workspace: Workspace, ids: list[str]
) -> None:
    told(workspace, pl.DataFrame({"key": ["7"], "label": [3.5]}))
    assert labels(workspace) == [None, 3.5, None]


def test_the_same_labels_again_change_nothing(workspace: Workspace, ids: list[str]) -> None:
    rows = pl.DataFrame({"id": ids, "label": [1.0, 2.0, 3.0]})
    told(workspace, rows)
    assert told(workspace, rows) == LabelCounts(repeated=3)
    assert workspace.tables.read(feedback_table(ENDPOINT)).height == 3


def test_a_forged_id_is_told_and_no_label_of_its_file_kept(workspace: Workspace, ids: list[str]) -> None:
    forged = "A" * 28
    with pytest.raises(NotFoundError, match=rf"no prediction with the id '{forged}' \(row 1\)"):
        told(workspace, pl.DataFrame({"id": [ids[0], forged], "label": [1.0, 2.0]}))
    assert labels(workspace) == [None, None, None]
    assert workspace.tables.version(feedback_table(ENDPOINT)) is None


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (pl.DataFrame({"x": [1]}), "hold no labels"),
        (pl.DataFrame({"label": [1]}), "hold no labels"),
        (pl.DataFrame({"id": [], "label": []}), "empty"),
        (pl.DataFrame({"id": ["a"], "label": ["much"]}), "'label' holds String"),
        (pl.DataFrame({"id": ["a", "b"], "label": [1.0, None]}), "label of row 1 is missing"),
        (pl.DataFrame({"id": ["a", "b"], "label": [float("nan"), 1.0]}), "label of row 0"),
        (pl.DataFrame({"id": ["a", None], "label": [1, 2]}), "Row 1 names no prediction"),
        (pl.DataFrame({"key": ["a\0"], "label": [1]}), "Row 0 has the character NUL"),
        (pl.DataFrame({"key": ["a"], "at": ["noon"], "label": [1]}), "'at' holds String, not times"),
    ],
)
def test_what_is_no_label_is_refused(rows: pl.DataFrame, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        labels_from_rows(ENDPOINT, rows, AT)


def test_files_in_a_watched_folder_are_told_once(workspace: Workspace, ids: list[str]) -> None:
    folder = workspace.project / "labels"
    folder.mkdir()
    watch_labels(workspace, ENDPOINT, folder, settle=timedelta(0))
    (folder / "day-1.csv").write_text(f"id,label,note\n{ids[0]},4,fine\n")
    (folder / "day-2.json").write_text('[{"key": "8", "at": "2011-09-01T14:00:00Z", "label": 5}]')
    versions = Sources(workspace).poll(labels_dataset(ENDPOINT))
    assert [tell_version(workspace, ENDPOINT, version.number).joined for version in versions] == [1, 1]
    assert labels(workspace) == [4.0, None, 5.0]
    assert tell_version(workspace, ENDPOINT, 1) == LabelCounts(repeated=1)


def test_labels_of_a_folder_that_name_no_prediction_are_counted_in_the_journal(
    workspace: Workspace, ids: list[str]
) -> None:
    folder = workspace.project / "labels"
    folder.mkdir()
    watch_labels(workspace, ENDPOINT, folder, settle=timedelta(0))
    rows = {"id": [ids[1], "forged", None, ids[2]], "label": [1.0, 2.0, 3.0, None]}
    pl.DataFrame(rows).write_parquet(folder / "mixed.parquet")
    (version,) = Sources(workspace).poll(labels_dataset(ENDPOINT))
    assert (version.added, version.quarantined) == (3, 1)
    assert tell_version(workspace, ENDPOINT, version.number).joined == 1
    assert labels(workspace) == [None, 1.0, None]
    with workspace.read() as connection:
        (entry,) = journal.entries(connection, action="labels.refused")
    assert (entry.name, entry.details["rows"], entry.details["forged ids"]) == (ENDPOINT, 2, 1)
    assert Datasets(workspace).quarantined(labels_dataset(ENDPOINT)).height == 1


def test_a_folder_of_labels_belongs_to_an_endpoint(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="no endpoint 'walks'"):
        watch_labels(workspace, "walks", workspace.project)
