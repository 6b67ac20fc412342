"""Predictions that stood in rows of their own stand in blocks after the upgrade, with their labels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from trimtab.clock import SystemClock
from trimtab.monitoring.outcomes import LabelCounts, LabelRecord, Outcomes, record_labels
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.store import migrations
from trimtab.store.opening import open_database
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

NOON = datetime(2011, 9, 1, 12, tzinfo=UTC)
AT = to_microseconds(NOON)
ROW = (
    "INSERT INTO outcomes (id, endpoint, at, key, version, answer, scores, label, labelled_at, revisions) "
    "VALUES (:id, 'rides', :at, :key, :version, :answer, :scores, :label, :labelled_at, :revisions)"
)


def test_predictions_labels_and_scores_are_kept_and_found(tmp_path: Path) -> None:
    ids = PredictionIds(bytes(32))
    made = [ids.mint("rides"), f"{ids.mint('rides', 3)}.2", "a"]
    (tmp_path / ".trimtab").mkdir()
    (tmp_path / "trimtab.toml").touch()
    database = open_database(f"sqlite:///{tmp_path / '.trimtab' / 'metadata.db'}", SystemClock())
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with (
        database.engine.connect().execution_options(trimtab_write=True) as connection,
        connection.begin(),
    ):
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        for place, id in enumerate(made):
            row = {
                "id": id,
                "at": AT + place,
                "key": "k" if place else None,
                "version": 1,
                "answer": None if place == 2 else 0.5,
                "scores": '{"1":0.5,"2":0.25}' if place == 1 else None,
                "label": 1.0 if place == 0 else None,
                "labelled_at": AT if place == 0 else None,
                "revisions": 3 if place == 0 else 0,
            }
            connection.execute(text(ROW), row)
    database.close()
    with Workspace.open(tmp_path) as workspace:
        outcomes = Outcomes(workspace)
        assert (outcomes.counts("rides"), outcomes.revisions("rides")) == ((3, 1, 0), 3)
        told = [
            LabelRecord(endpoint="rides", label=5.0, labelled_at=AT + 9, id=made[1]),
            LabelRecord(endpoint="rides", label=6.0, labelled_at=AT + 9, key="k", at=AT + 2),
        ]
        assert workspace.write(lambda tx: record_labels(tx, told)) == LabelCounts(joined=2)
        joined = outcomes.joined("rides", NOON, NOON + timedelta(days=1))
        assert joined.label.tolist() == [1.0, 5.0, 6.0]
        np.testing.assert_equal(joined.answer, [0.5, 0.5, np.nan])
        np.testing.assert_equal(joined.scores[2], [np.nan, 0.25, np.nan])
