from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Trimtab
from tests.loop.scene import START, Scene

from trimtab.monitoring.outcomes import PredictionRecord, record_predictions
from trimtab.serving.endpoints import signing_secret
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.store.types import to_microseconds


@pytest.fixture
def predicted(scene: Scene) -> str:
    """The id of a prediction of the endpoint, with the key 007."""
    made = PredictionIds(scene.workspace.write(signing_secret)).mint("bikes")
    record = PredictionRecord(
        id=made,
        endpoint="bikes",
        at=to_microseconds(START),
        key="007",
        version=1,
        answer=1.0,
        scores={1: 1.0},
    )
    scene.workspace.write(lambda tx: record_predictions(tx, [record]))
    return made


def test_endpoints_their_routes_and_counts_are_shown(trimtab: Trimtab, project: Path, predicted: str) -> None:
    at = ("bikes", "--dir", project)
    (endpoint,) = trimtab("endpoint", "list", "--dir", project, "--json").json
    assert (endpoint["name"], endpoint["generation"]) == ("bikes", 1)
    assert "bikes" in trimtab("endpoint", "list", "--dir", project).out
    shown = trimtab("endpoint", "show", *at, "--json").json
    assert shown["predictions"] == {"recent": 1, "labelled": 0, "labels_waiting": 0}
    assert shown["route"]["arms"][0]["version"] == 1
    assert "1, 0 of them labelled" in trimtab("endpoint", "show", *at).out
    assert len(trimtab("endpoint", "history", *at, "--json").json) == 1
    assert "1 primary 100 %" in trimtab("endpoint", "history", *at).out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "id,label\n{id},5\n"),
        ("labels.csv", "key,at,label\n007,2011-09-01T00:00:00Z,5\n"),
        ("labels.json", '[{{"key": "007", "at": "2011-09-01T00:00:00Z", "label": 5}}]'),
        ("labels.ndjson", '{{"key": "007", "label": 5.0}}\n'),
    ],
)
def test_labels_of_a_file_are_joined_once(
    trimtab: Trimtab, project: Path, tmp_path: Path, predicted: str, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text.format(id=predicted))
    told = ("endpoint", "label", "bikes", tmp_path / name, "--dir", project)
    assert trimtab(*told, "--json").json == {"joined": 1, "pending": 0, "repeated": 0, "revised": 0}
    assert "1 were known" in trimtab(*told).out


def test_a_folder_of_labels_is_watched(trimtab: Trimtab, project: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    watched = trimtab("endpoint", "watch", "bikes", tmp_path / "labels", "--dir", project)
    assert "told to 'bikes' as labels" in watched.out
    assert "labels" in trimtab("data", "sources", "bikes.labels", "--dir", project).out


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["show", "bike"], 3, "Did you mean 'bikes'?"),
        (["history", "bike"], 3, "'bike'"),
        (["label", "bike", "labels.csv"], 3, "'bike'"),
        (["label", "bikes", "none.csv"], 2, "none.csv cannot be read"),
        (["label", "bikes", "labels.csv"], 3, "no prediction with the id 'forged'"),
        (["label", "bikes", "other.csv"], 2, "id and label, or key, at and label"),
        (["watch", "bike", "."], 3, "'bike'"),
        (["watch", "bikes", "nowhere"], 2, "is not a folder"),
    ],
)
def test_a_users_mistake_is_told_with_its_status(
    trimtab: Trimtab,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("id,label\nforged,1\n")
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    trimtab("endpoint", *words, "--dir", project).failed(status, told)


def test_options_are_set_one_by_one_and_bad_ones_refused(
    trimtab: Trimtab, project: Path, predicted: str
) -> None:
    at = ["bikes", "--dir", project]
    trimtab("endpoint", "set", *at, "--log-share", "0.5", "--redact", "temp", "--redact", "hum")
    assert "0.5" in trimtab("endpoint", "set", *at, "--max-wait-ms", "3").out
    kept = trimtab("endpoint", "show", *at, "--json").json["endpoint"]["options"]
    assert kept == {"max_wait_ms": 3.0, "log_share": 0.5, "redact": ["temp", "hum"]}
    trimtab("endpoint", "set", *at, "--log-share", "2").failed(2, "Use 0 to 1")
    trimtab("endpoint", "set", *at, "--redact", "")
    assert "redact" not in trimtab("endpoint", "show", *at, "--json").json["endpoint"]["options"]
