"""What is no store is refused in words; what has its oddities is copied as far as it can be."""

from __future__ import annotations

import json
import shutil
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from mlflow import MlflowClient

from trimtab.digest import digest_bytes
from trimtab.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from trimtab.models.migration.migration import import_mlflow
from trimtab.models.policy import Policy, PolicyGate
from trimtab.models.registry import Registry
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

POLICY = Policy((PolicyGate("metric rmsle", {"gate": "metric", "metric": "rmsle", "max": 0.5}),))


# What is no store


def test_an_address_that_leads_nowhere_is_told(workspace: Workspace, tmp_path: Path, free_port: int) -> None:
    with pytest.raises(NotFoundError, match="There is nothing at"):
        import_mlflow(workspace, str(tmp_path / "missing"))
    with pytest.raises(UnavailableError, match="No server answers"):
        import_mlflow(workspace, f"http://127.0.0.1:{free_port}")
    with pytest.raises(InvalidInputError, match="no server, SQLite file or folder") as refused:
        import_mlflow(workspace, "postgresql://ann:secret@db/mlflow")
    assert "secret" not in str(refused.value)


def test_a_file_or_folder_of_something_else_is_told(workspace: Workspace, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database")
    with pytest.raises(InvalidInputError, match="no SQLite database"):
        import_mlflow(workspace, str(text))
    with pytest.raises(InvalidInputError, match="no folder of MLflow's"):
        import_mlflow(workspace, str(tmp_path))
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE things (id INTEGER)")
    database.close()
    with pytest.raises(InvalidInputError, match="none of MLflow's"):
        import_mlflow(workspace, str(other))
    with pytest.raises(InvalidInputError, match="a Trimtab workspace"):
        import_mlflow(workspace, str(workspace.root / "metadata.db"))


def test_a_damaged_database_is_told(workspace: Workspace, sqlite_store: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(sqlite_store.read_bytes()[:200_000])
    with pytest.raises(InvalidInputError, match="cannot be read as a SQLite database"):
        import_mlflow(workspace, str(damaged))


def test_a_schema_too_old_to_be_read_is_told_with_the_way_out(
    workspace: Workspace, sqlite_store: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copy(sqlite_store, tmp_path / "old.db"))
    with sqlite3.connect(old) as database:
        database.execute("ALTER TABLE metrics RENAME COLUMN is_nan TO elsewhere")
    database.close()
    with pytest.raises(InvalidInputError, match=r"metrics\.is_nan is not there") as refused:
        import_mlflow(workspace, str(old))
    assert "mlflow db upgrade" in refused.value.hint


def test_a_database_of_an_older_version_is_read_as_far_as_it_goes(
    workspace: Workspace, sqlite_store: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copy(sqlite_store, tmp_path / "old.db"))
    with sqlite3.connect(old) as database:
        for table in ("logged_models", "registered_model_aliases", "datasets", "input_tags", "inputs"):
            database.execute(f"DROP TABLE {table}")
        database.execute("ALTER TABLE runs DROP COLUMN deleted_time")
        database.execute("ALTER TABLE experiments RENAME COLUMN creation_time TO elsewhere")
    database.close()
    report = import_mlflow(workspace, str(old), verify=True)
    assert report.copied.runs == 7
    assert report.copied.aliases == 0
    versions = [
        problem for problem in report.problems if not problem.startswith("version 2 of model 'bikes'")
    ]
    assert versions == [], "only what was made from a logged model misses it"


def test_a_folder_with_two_stores_is_not_guessed_at(
    workspace: Workspace, sqlite_store: Path, folder_store: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder_store, tmp_path / "mlruns")
    assert import_mlflow(workspace, str(tmp_path), dry_run=True).copied.runs == 7
    shutil.copy(sqlite_store, tmp_path / "mlflow.db")
    with pytest.raises(InvalidInputError, match="holds two stores"):
        import_mlflow(workspace, str(tmp_path))


# Servers


class Answering(BaseHTTPRequestHandler):
    """Answers everything with the status that the path begins with."""

    def do_POST(self) -> None:
        status = int(self.path.split("/")[1])
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"message": "so it is"}).encode() if status != 200 else b"<html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def odd_server() -> Iterator[str]:
    with socketserver.TCPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_server_that_is_none_of_mlflow_s_or_wants_a_password_is_told(
    workspace: Workspace, odd_server: str
) -> None:
    for path in ("404", "200"):
        with pytest.raises(InvalidInputError, match="not as an MLflow tracking server"):
            import_mlflow(workspace, f"{odd_server}/{path}")
    with pytest.raises(UnauthorizedError, match="so it is") as refused:
        import_mlflow(workspace, f"{odd_server}/401")
    assert "MLFLOW_TRACKING_TOKEN" in refused.value.hint
    with pytest.raises(UnavailableError, match="status 503"):
        import_mlflow(workspace, f"{odd_server}/503")


# What is odd in a store


def test_a_folder_may_have_been_moved(workspace: Workspace, folder_store: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder_store, tmp_path / "elsewhere" / "mlruns")
    for meta in moved.rglob("meta.yaml"):
        meta.write_text(meta.read_text().replace(str(folder_store), "/nowhere/mlruns"))
    report = import_mlflow(workspace, str(moved), verify=True)
    assert report.good, report.problems
    assert report.copied.artifacts == 11


def test_what_is_damaged_is_told_and_the_rest_is_copied(
    workspace: Workspace, folder_store: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder_store, tmp_path / "mlruns")
    runs = sorted(place.parent for place in copy.glob("*/*/meta.yaml") if len(place.parent.name) == 32)
    (runs[0] / "meta.yaml").write_text("{ no: yaml")
    (runs[1] / "tags" / "bad").write_bytes(b"\xff\xfe")
    (runs[2] / "metrics").mkdir(exist_ok=True)
    (runs[2] / "metrics" / "loss").write_text("1700000000000 high 1\n")
    (runs[3] / "meta.yaml").write_text("run_id: 1\n")
    report = import_mlflow(workspace, str(copy))
    assert not report.good
    assert report.copied.runs == 3
    told = " ".join(report.problems)
    assert f"{runs[0].name}/meta.yaml is damaged" in told
    assert "is not text in UTF-8" in told
    assert f"{runs[2].name}/metrics/loss is damaged" in told
    assert f"{runs[3].name}/meta.yaml is damaged: KeyError('experiment_id')" in told


def test_a_metric_on_a_dataset_keeps_its_step(workspace: Workspace, tmp_path: Path) -> None:
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    run = client.create_run("0")
    client.log_metric(run.info.run_id, "rmse", 0.5, step=3, dataset_name="two words", dataset_digest="d")
    import_mlflow(workspace, str(tmp_path / "mlruns"))
    assert Tracking(workspace).metrics(run.info.run_id)["rmse"].step == 3


def test_what_no_workspace_can_hold_is_left_out_whole(
    workspace: Workspace, sqlite_store: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(sqlite_store, tmp_path / "copy.db"))
    with sqlite3.connect(copy) as database:
        database.execute("UPDATE params SET value = 'a' || char(0) WHERE key = 'text'")
    database.close()
    report = import_mlflow(workspace, str(copy))
    assert report.copied.runs == 6
    assert "NUL" in report.problems[0]
    assert "rich" not in {run.name for run in Tracking(workspace).search(["prices"]).runs}


def test_files_behind_a_server_that_does_not_run_need_their_place(
    workspace: Workspace, sqlite_store: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(sqlite_store, tmp_path / "copy.db"))
    place = f"{sqlite_store.parent}/mlruns"
    with sqlite3.connect(copy) as database:
        for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, 'mlflow-artifacts:')", (place,)
            )
        database.execute("UPDATE model_versions SET storage_location = NULL")
    database.close()
    report = import_mlflow(workspace, str(copy))
    assert report.copied.runs == 0
    assert "--artifacts" in report.problems[0]
    report = import_mlflow(workspace, str(copy), artifacts=place, verify=True)
    assert report.good, report.problems + (report.differences or [])
    assert report.copied.artifacts == 11


# What is here already


def test_only_the_experiments_that_are_named_come(workspace: Workspace, sqlite_store: Path) -> None:
    report = import_mlflow(workspace, str(sqlite_store), experiments=["Default"], verify=True)
    assert (report.good, report.copied.runs, report.copied.registered_models) == (True, 1, 0)
    report = import_mlflow(workspace, str(sqlite_store), experiments=["prices"], verify=True)
    assert (report.good, report.copied.runs, report.copied.model_versions) == (True, 5, 3)
    with pytest.raises(NotFoundError, match="no experiment 'price'"):
        import_mlflow(workspace, str(sqlite_store), experiments=["price"])


def test_an_experiment_of_the_same_name_takes_the_runs_in_and_another_id_is_told(
    workspace: Workspace, sqlite_store: Path
) -> None:
    tracking = Tracking(workspace)
    other = tracking.get_or_create_experiment("something else")
    prices = tracking.get_or_create_experiment("prices")
    report = import_mlflow(workspace, str(sqlite_store), verify=True)
    assert report.good, report.differences
    found = {each.name: (each.source_id, each.id, each.how) for each in report.experiments}
    assert found["prices"] == ("1", prices.id, "already there")
    assert found["gone"][0] == "2"
    assert found["gone"][1] not in {other.id, prices.id}
    assert {run.experiment_id for run in tracking.search(["prices"]).runs} == {prices.id}


def test_an_experiment_that_was_deleted_here_stops_the_import(
    workspace: Workspace, sqlite_store: Path
) -> None:
    tracking = Tracking(workspace)
    tracking.get_or_create_experiment("prices")
    tracking.delete_experiment("prices")
    with pytest.raises(ConflictError, match="'prices' was deleted here"):
        import_mlflow(workspace, str(sqlite_store))


def test_a_dry_run_writes_nothing(workspace: Workspace, sqlite_store: Path) -> None:
    report = import_mlflow(workspace, str(sqlite_store), dry_run=True)
    assert (report.copied.runs, report.copied.model_versions) == (7, 3)
    assert Tracking(workspace).experiments() == []
    assert Registry(workspace).models() == []


def test_a_governed_name_gives_no_alias_and_no_stage_to_what_comes(
    workspace: Workspace, sqlite_store: Path
) -> None:
    registry = Registry(workspace)
    workspace.write(lambda tx: registry.create_model(tx, "bikes"))
    workspace.write(lambda tx: registry.govern(tx, "bikes", POLICY, by="loop bikes"))
    report = import_mlflow(workspace, str(sqlite_store), verify=True)
    assert report.good
    assert any(
        "governed here: its 3 versions came in without alias and stage" in note for note in report.notes
    )
    assert registry.model("bikes").aliases == {}
    assert {version.stage for version in registry.versions("bikes")} == {"None"}


def test_a_number_that_another_version_has_here_is_told(workspace: Workspace, sqlite_store: Path) -> None:
    registry = Registry(workspace)
    workspace.write(lambda tx: registry.create_model(tx, "bikes"))
    digest = digest_bytes(b"mine")
    workspace.write(lambda tx: registry.register(tx, "bikes", digest))
    report = import_mlflow(workspace, str(sqlite_store))
    assert ["version 1 of model 'bikes' was not copied" in problem for problem in report.problems] == [True]
    assert registry.get_version("bikes", 1).digest == digest
    assert [version.version for version in registry.versions("bikes")] == [4, 2, 1]
