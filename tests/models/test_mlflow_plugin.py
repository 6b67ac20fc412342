"""MLflow's own client over a workspace in this process: no server, no client of ours."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel
from mlflow.tracking import fluent
from tests.house.repository import run_python

from trimtab.errors import InvalidInputError
from trimtab.models import addresses
from trimtab.models.addresses import Place
from trimtab.models.mlflow_plugin import workspaces
from trimtab.models.model import Model
from trimtab.models.policy import Policy, PolicyGate
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport, GateResult
from trimtab.pipelines.run import run_pipeline
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace

RUN = "0" * 32
POLICY = Policy((PolicyGate("latency", {"gate": "latency", "p99_ms": 20}),))


def connected(workspace: Workspace) -> MlflowClient:
    """A client of this workspace, which is also what `mlflow.*` logs to."""
    mlflow.set_tracking_uri(addresses.address_of(workspace.project))
    return MlflowClient()


@pytest.fixture(autouse=True)
def _mlflow_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow keeps what it was told in globals and variables."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_") and "TELEMETRY" not in name]:
        monkeypatch.delenv(name)
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # what undoes it
    fluent._active_experiment_id = None
    workspaces.close_workspaces()


@pytest.fixture
def client(workspace: Workspace) -> MlflowClient:
    return connected(workspace)


@pytest.fixture
def registered(client: MlflowClient, model: Model, tmp_path: Path) -> ModelVersion:
    """Version 1 of "bikes", a Trimtab model that was logged as a run's artifact."""
    model.save(tmp_path / "model")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path / "model"), "model")
    client.create_registered_model("bikes")
    return client.create_model_version("bikes", f"runs:/{run.info.run_id}/model", run.info.run_id)


def code_of(error: pytest.ExceptionInfo[MlflowException]) -> str:
    return str(error.value.error_code)


# Logging


def test_what_is_logged_by_plain_calls_is_read_back_and_is_in_the_workspace(
    client: MlflowClient, workspace: Workspace
) -> None:
    mlflow.set_experiment("rentals")
    with mlflow.start_run(run_name="first", description="a try") as active:
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metrics({"loss": 0.25, "auc": 0.75}, step=2)
        mlflow.log_params({"depth": 6, "rate": 0.1})
        mlflow.set_tags({"team": "bikes"})
        mlflow.log_text("hello", "notes/a b#c.txt")
    run = client.get_run(active.info.run_id)
    assert run.data.metrics == {"loss": 0.25, "auc": 0.75}
    assert run.data.params == {"depth": "6", "rate": "0.1"}
    assert run.data.tags["team"] == "bikes"
    assert run.data.tags["mlflow.runName"] == run.info.run_name == "first"
    assert (run.info.status, run.info.lifecycle_stage) == ("FINISHED", "active")
    assert run.info.end_time is not None
    tracking = Tracking(workspace)
    assert tracking.params(run.info.run_id) == run.data.params
    assert tracking.load_artifact(run.info.run_id, "notes/a b#c.txt") == b"hello"
    assert tracking.get_run(run.info.run_id).name == "first"


def test_what_was_logged_is_there_after_the_process_was_killed(workspace: Workspace) -> None:
    code = f"""
        import os, signal, mlflow
        mlflow.set_tracking_uri({addresses.address_of(workspace.project)!r})
        run = mlflow.start_run()
        for step in range(5):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        print(run.info.run_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    run_id = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()[-1]
    assert len(Tracking(workspace).metric_history(run_id, "loss")) == 5


def test_nested_runs_know_their_parent(client: MlflowClient) -> None:
    with mlflow.start_run() as parent, mlflow.start_run(nested=True) as child:
        pass
    found = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
    )
    assert [run.info.run_id for run in found] == [child.info.run_id]


def test_a_batch_is_logged_whole_or_not_at_all(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "depth", 6)
    with pytest.raises(MlflowException, match="depth") as error:
        client.log_batch(
            run_id,
            metrics=[Metric("loss", 1.0, 1, 0)],
            params=[Param("depth", "7"), Param("rate", "0.1")],
            tags=[RunTag("team", "bikes")],
        )
    assert code_of(error) == "INVALID_PARAMETER_VALUE"
    data = client.get_run(run_id).data
    assert (data.metrics, data.params, data.tags.get("team")) == ({}, {"depth": "6"}, None)
    client.log_batch(run_id, params=[Param("depth", "6")])  # the same again is no change


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300])
def test_every_number_comes_back(client: MlflowClient, value: float) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "x", value)
    assert client.get_run(run_id).data.metrics == {"x": value}


def test_nan_comes_back(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "x", math.nan)
    assert math.isnan(client.get_run(run_id).data.metrics["x"])


def test_a_history_is_whole_in_order_and_comes_in_pages(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    points = [Metric("loss", 1 / (step + 1), 1_000 + step, step) for step in range(25)]
    for some in (points[20:], points[:10], points[10:20]):
        client.log_batch(run_id, metrics=some)
    history = client.get_metric_history(run_id, "loss")
    assert [(each.value, each.timestamp, each.step) for each in history] == [
        (each.value, each.timestamp, each.step) for each in points
    ]
    store = client._tracking_client.store
    first = store.get_metric_history(run_id, "loss", max_results=20)
    second = store.get_metric_history(run_id, "loss", max_results=20, page_token=first.token)
    assert [each.step for each in [*first, *second]] == list(range(25))
    assert second.token is None
    assert client.get_metric_history(run_id, "unknown") == []


def test_async_logging_arrives(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "x", 1.0, synchronous=False)
    mlflow.flush_async_logging()
    assert client.get_run(run_id).data.metrics == {"x": 1.0}


def test_datasets_are_noted_as_inputs(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    given = DatasetInput(
        Dataset("trips", "d1", "local", "{}", schema="s"), [InputTag("mlflow.data.context", "training")]
    )
    client.log_inputs(run_id, datasets=[given])
    noted = client.get_run(run_id).inputs
    assert noted is not None
    (found,) = noted.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.schema) == ("trips", "d1", "s")
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}
    assert client.search_runs(["0"], "dataset.name = 'trips' AND dataset.context = 'training'")


# Experiments and runs


def test_runs_are_searched_by_filters_ordered_and_paged(client: MlflowClient) -> None:
    experiment = client.create_experiment("many")
    ids = {}
    for number in range(7):
        run = client.create_run(experiment, start_time=1_000 + number, tags={"half": str(number % 2)})
        client.log_metric(run.info.run_id, "loss", number / 10)
        client.log_param(run.info.run_id, "depth", number)
        ids[run.info.run_id] = number

    def numbers(filter: str = "", order: list[str] | None = None, limit: int = 100) -> list[int]:
        found: list[int] = []
        token = None
        while True:
            page = client.search_runs(
                [experiment], filter, max_results=limit, order_by=order, page_token=token
            )
            found += [ids[run.info.run_id] for run in page]
            assert len(page) <= limit
            if (token := page.token) is None:
                return found

    assert numbers() == [6, 5, 4, 3, 2, 1, 0]
    assert numbers(limit=3) == [6, 5, 4, 3, 2, 1, 0]
    assert numbers("metrics.loss < 0.35 AND tags.half = '1'", ["metrics.loss DESC"]) == [3, 1]
    assert numbers("params.depth = '2'") == [2]
    assert numbers("attributes.start_time >= 1005", ["attributes.start_time ASC"], 1) == [5, 6]
    assert len(mlflow.search_runs([experiment], "metrics.loss > 0.1", output_format="pandas")) == 5
    with pytest.raises(MlflowException) as error:
        numbers("nonsense ==== 3")
    assert code_of(error) == "INVALID_PARAMETER_VALUE"


def test_runs_and_experiments_are_deleted_and_restored(client: MlflowClient) -> None:
    experiment = client.create_experiment("gone", tags={"a": "b"})
    run_id = client.create_run(experiment).info.run_id
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert client.search_runs([experiment]) == []
    assert len(client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)) == 1
    with pytest.raises(MlflowException, match="deleted"):
        client.log_metric(run_id, "x", 1.0)
    client.restore_run(run_id)
    client.log_metric(run_id, "x", 1.0)
    client.delete_experiment(experiment)
    assert [each.name for each in client.search_experiments()] == ["Default"]
    assert [each.name for each in client.search_experiments(view_type=ViewType.DELETED_ONLY)] == ["gone"]
    client.restore_experiment(experiment)
    client.rename_experiment(experiment, "back")
    client.set_experiment_tag(experiment, "c", "d")
    found = client.get_experiment_by_name("back")
    assert found is not None
    assert (found.experiment_id, found.tags) == (experiment, {"a": "b", "c": "d"})
    assert client.get_experiment_by_name("gone") is None
    assert [
        each.name for each in client.search_experiments(filter_string="name LIKE 'b%' AND tags.c = 'd'")
    ] == ["back"]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda client: client.get_run(RUN), "RESOURCE_DOES_NOT_EXIST"),
        (lambda client: client.log_metric(RUN, "x", 1.0), "RESOURCE_DOES_NOT_EXIST"),
        (lambda client: client.get_experiment("99"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda client: client.get_experiment("x"), "INVALID_PARAMETER_VALUE"),
        (lambda client: client.create_experiment("Default"), "RESOURCE_ALREADY_EXISTS"),
        (lambda client: client.create_experiment("x", artifact_location="/tmp/x"), "INVALID_PARAMETER_VALUE"),
        (lambda client: client.get_registered_model("bikes"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda client: client.get_model_version("bikes", "1"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda client: client.get_model_version("bikes", "x"), "INVALID_PARAMETER_VALUE"),
        (lambda client: client.create_model_version("bikes", f"runs:/{RUN}/m"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda client: client.search_traces(locations=["0"]), "NOT_IMPLEMENTED"),
        (lambda client: client.register_prompt("p", "text"), "NOT_IMPLEMENTED"),
        (lambda client: client._tracking_client.store.link_traces_to_run([], RUN), "NOT_IMPLEMENTED"),
        (lambda client: client._tracking_client.store.list_scorers("0"), "NOT_IMPLEMENTED"),
        (lambda client: client._get_registry_client().store.list_webhooks(), "NOT_IMPLEMENTED"),
    ],
)  # fmt: skip
def test_what_is_not_there_or_cannot_be_is_told_by_mlflows_codes(
    client: MlflowClient, call: object, code: str
) -> None:
    assert callable(call)
    with pytest.raises(MlflowException) as error:
        call(client)
    assert code_of(error) == code


def test_postgres_keeps_the_same(any_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    if any_workspace.settings.database is not None:
        monkeypatch.setenv("TRIMTAB_DATABASE", any_workspace.settings.database)
    client = connected(any_workspace)
    run_id = client.create_run("0", tags={"a": "b"}).info.run_id
    client.log_metric(run_id, "loss", 0.5)
    client.log_metric(run_id, "loss", 0.25, step=1)
    assert Tracking(any_workspace).metrics(run_id)["loss"].value == 0.25
    assert [run.info.run_id for run in client.search_runs(["0"], "metrics.loss < 0.3 AND tags.a = 'b'")] == [
        run_id
    ]


# Artifacts


def test_artifacts_are_listed_downloaded_and_deleted(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "in" / "sub" / "ö.txt").write_text("ö")
    run_id = client.create_run("0").info.run_id
    client.log_artifacts(run_id, str(tmp_path / "in"), "out")
    client.log_dict(run_id, {"x": 1}, "d.json")
    client.log_artifact(run_id, str(tmp_path / "in" / "a.txt"))
    assert [(each.path, each.is_dir, each.file_size) for each in client.list_artifacts(run_id)] == [
        ("a.txt", False, 1), ("d.json", False, 12), ("out", True, None)
    ]  # fmt: skip
    assert [each.path for each in client.list_artifacts(run_id, "out")] == ["out/a.txt", "out/sub"]
    assert client.list_artifacts(run_id, "d.json") == []
    assert client.list_artifacts(run_id, "none") == []
    (tmp_path / "to").mkdir()
    fetched = Path(client.download_artifacts(run_id, "out", str(tmp_path / "to")))
    assert (fetched / "sub" / "ö.txt").read_text() == "ö"
    uri = f"{client.get_run(run_id).info.artifact_uri}/out/a.txt"
    assert mlflow.artifacts.load_text(uri) == "a"
    assert json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/d.json")) == {"x": 1}
    with pytest.raises(MlflowException, match="Failed to download"):
        client.download_artifacts(run_id, "none/x", str(tmp_path / "to"))


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a\\b", "a//b", "\0"])
def test_no_artifact_leaves_its_run(client: MlflowClient, tmp_path: Path, path: str) -> None:
    (tmp_path / "f.txt").write_text("f")
    run_id = client.create_run("0").info.run_id
    repository = client._tracking_client._get_artifact_repo(run_id)
    with pytest.raises(MlflowException) as error:
        repository.log_artifact(str(tmp_path / "f.txt"), path)
    assert code_of(error) == "INVALID_PARAMETER_VALUE"
    assert client.list_artifacts(run_id) == []


def test_links_out_of_a_folder_are_refused(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("/etc/hostname")
    with mlflow.start_run(), pytest.raises(MlflowException, match="link"):
        mlflow.log_artifacts(str(tmp_path / "in"))


# Models


def test_a_logged_model_is_registered_and_loaded_by_alias(client: MlflowClient) -> None:
    class Seven(PythonModel):
        def predict(self, context: object, model_input: list[int], params: object = None) -> list[int]:
            return [7] * len(model_input)

    with mlflow.start_run() as run:
        info = mlflow.pyfunc.log_model(
            name="seven", python_model=Seven(), registered_model_name="seven", pip_requirements=[]
        )
        mlflow.log_metric("loss", 0.5, model_id=info.model_id)
    logged = client.get_logged_model(info.model_id)
    assert (logged.status, logged.source_run_id) == ("READY", run.info.run_id)
    assert [(each.key, each.value) for each in logged.metrics or []] == [("loss", 0.5)]
    assert [each.model_id for each in client.search_logged_models(["0"], "metrics.loss < 1")] == [
        info.model_id
    ]
    client.set_registered_model_alias("seven", "best", "1")
    version = client.get_model_version_by_alias("seven", "best")
    assert (version.version, version.run_id, version.model_id) == ("1", run.info.run_id, info.model_id)
    assert mlflow.pyfunc.load_model("models:/seven@best").predict([1, 2]) == [7, 7]
    client.delete_logged_model(info.model_id)
    assert mlflow.pyfunc.load_model("models:/seven/1").predict([1]) == [7]  # a version is a snapshot


def test_a_version_has_the_digest_of_its_folder_whichever_way_it_came(
    client: MlflowClient, registered: ModelVersion, workspace: Workspace, tmp_path: Path
) -> None:
    digest = workspace.blobs.put_tree(tmp_path / "model")
    sources = [f"{client.get_run(str(registered.run_id)).info.artifact_uri}/model"]
    sources += [
        str(tmp_path / "model"),
        "models:/bikes/1",
        f"mlflow-artifacts:/0/{registered.run_id}/artifacts/model",
    ]
    for source in sources:
        client.create_model_version("bikes", source)
    versions = Registry(workspace).versions("bikes")
    assert {version.digest for version in versions} == {digest}
    assert len(versions) == 5
    assert [each.source for each in client.search_model_versions("name = 'bikes'")][:4] == sources[::-1]
    copied = client.copy_model_version("models:/bikes/1", "copy")
    assert Registry(workspace).get_version("copy", int(copied.version)).digest == digest
    fetched = mlflow.artifacts.download_artifacts("models:/bikes/2", dst_path=str(tmp_path))
    assert (Path(fetched) / "MLmodel").exists()


@pytest.mark.parametrize("source", ["s3://bucket/model", f"runs:/{RUN}/model", "/not/there"])
def test_of_a_source_elsewhere_only_the_address_is_kept(client: MlflowClient, source: str) -> None:
    client.create_registered_model("far")
    client.create_model_version("far", source)
    assert client.get_model_version("far", "1").source == source
    assert client.get_model_version_download_uri("far", "1") == source


def test_the_content_of_a_version_cannot_be_changed(client: MlflowClient, registered: ModelVersion) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(client.get_model_version_download_uri("bikes", "1"))
    with pytest.raises(MlflowException, match="never changes"):
        repository.delete_artifacts("MLmodel")


def test_registered_models_have_tags_aliases_stages_and_descriptions(
    client: MlflowClient, registered: ModelVersion
) -> None:
    client.create_model_version("bikes", "models:/bikes/1", tags={"kind": "copy"}, description="again")
    client.set_registered_model_tag("bikes", "team", "b")
    client.update_registered_model("bikes", "all bikes")
    client.set_model_version_tag("bikes", "1", "kind", "original")
    client.set_registered_model_alias("bikes", "champion", "1")
    client.set_registered_model_alias("bikes", "champion", "2")
    client.transition_model_version_stage("bikes", "1", "staging")
    model = client.get_registered_model("bikes")
    assert (model.description, model.tags, model.aliases) == ("all bikes", {"team": "b"}, {"champion": "2"})
    version = client.get_model_version("bikes", "2")
    assert (version.tags, version.description, version.aliases) == ({"kind": "copy"}, "again", ["champion"])
    assert {each.current_stage: each.version for each in model.latest_versions} == {
        "None": "2",
        "Staging": "1",
    }
    assert [each.name for each in client.search_registered_models("tags.team = 'b'")] == ["bikes"]
    assert [each.version for each in client.search_model_versions("tags.kind = 'original'")] == ["1"]
    assert [each.version for each in client.search_model_versions(max_results=1)] == ["2"]
    client.delete_registered_model_tag("bikes", "team")
    client.delete_model_version_tag("bikes", "1", "kind")
    client.delete_registered_model_alias("bikes", "champion")
    client.delete_model_version("bikes", "2")
    with pytest.raises(MlflowException, match="champion not found") as error:
        client.get_model_version_by_alias("bikes", "champion")
    assert code_of(error) == "INVALID_PARAMETER_VALUE"
    client.rename_registered_model("bikes", "cycles")
    client.delete_registered_model("cycles")
    assert client.search_registered_models() == []


def test_models_are_listed_in_pages(client: MlflowClient) -> None:
    for name in ("a", "b", "c"):
        client.create_registered_model(name)
    first = client.search_registered_models(max_results=2)
    second = client.search_registered_models(max_results=2, page_token=first.token)
    assert [model.name for model in [*first, *second]] == ["a", "b", "c"]
    with pytest.raises(MlflowException) as error:
        client.create_registered_model("a")
    assert code_of(error) == "RESOURCE_ALREADY_EXISTS"


def test_a_governed_model_keeps_its_gates_through_mlflows_door(
    client: MlflowClient, registered: ModelVersion, workspace: Workspace
) -> None:
    registry = Registry(workspace)
    workspace.write(lambda tx: registry.govern(tx, "bikes", POLICY, by="loop bikes"))
    refused: list[Callable[[], object]] = [
        lambda: client.set_registered_model_alias("bikes", "champion", "1"),
        lambda: client.transition_model_version_stage("bikes", "1", "Production"),
        lambda: client.rename_registered_model("bikes", "free"),
        lambda: client.delete_registered_model("bikes"),
    ]
    for call in refused:
        with pytest.raises(MlflowException) as error:
            call()
        assert code_of(error) == "PERMISSION_DENIED"
    with pytest.raises(MlflowException, match=r"latency.*trimtab model validate bikes 1"):
        client.set_registered_model_alias("bikes", "champion", "1")
    report = GateReport(
        model="bikes",
        digest=registry.get_version("bikes", 1).digest,
        policy=POLICY.digest,
        results=(GateResult(gate="latency", passed=True, numbers={}, reason=""),),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        version=1,
    )
    workspace.write(lambda tx: registry.add_gate_report(tx, report))
    client.set_registered_model_alias("bikes", "champion", "1")
    assert client.get_model_version_by_alias("bikes", "champion").version == "1"
    with pytest.raises(MlflowException, match="relies on"):
        client.delete_model_version("bikes", "1")


# Steps of pipelines

LOGGING = """
    import mlflow
    import trimtab as tt

    @tt.step
    def measure(n: int) -> float:
        mlflow.log_metric("loss", n / 10)
        with mlflow.start_run(nested=True, run_name="child"):
            mlflow.log_param("n", n)
        mlflow.log_text("hello", "note.txt")
        mlflow.end_run()
        return n / 10

    @tt.step
    def after(loss: float) -> str:
        with mlflow.start_run() as run:
            return run.info.status

    @tt.pipeline
    def measuring(n: int = 3):
        return after(measure(n))
"""


def test_what_a_step_logs_through_mlflow_is_in_the_run_of_its_pipeline(any_workspace: Workspace) -> None:
    (any_workspace.project / "steps.py").write_text(textwrap.dedent(LOGGING))
    result = run_pipeline(any_workspace, "steps:measuring").check()
    tracking = Tracking(any_workspace)
    assert tracking.metrics(result.run_id)["loss"].value == 0.3
    assert tracking.load_artifact(result.run_id, "note.txt") == b"hello"
    (child,) = tracking.children(result.run_id)
    assert child.name == "child"
    assert tracking.params(child.id) == {"n": "3"}
    run = tracking.get_run(result.run_id)
    assert run.status == "FINISHED"
    assert run.ended_at == any_workspace.clock.now()  # by the pipeline, not by the step


# Addresses


def test_addresses_come_back_whatever_the_folder_is_called(tmp_path: Path) -> None:
    for name in ("plain", "with space", "a#b?c%20d", "ö"):
        project = tmp_path / name
        assert addresses.project_of(addresses.address_of(project)) == project
        for place in (
            Place("runs", RUN),
            Place("logged-models", f"m-{RUN}"),
            Place("trees", f"b3:{'0' * 64}"),
        ):
            address = addresses.artifacts_address(project, place.kind, place.owner)
            assert addresses.place_of(address) == (project, place)
            below = Place(place.kind, place.owner, "a b#c/%2e?.txt")
            assert addresses.place_of(f"{address}/a b#c/%2e?.txt") == (project, below)


def test_the_current_folder_is_the_project_of_the_bare_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert addresses.project_of("trimtab:") == addresses.project_of("trimtab://") == tmp_path


@pytest.mark.parametrize("uri", ["trimtab:relative", "trimtab://host/x/../y z", "file:///x", "trimtab"])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(InvalidInputError, match="Use trimtab:"):
        addresses.project_of(uri)


def test_a_folder_without_a_project_is_told(tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"trimtab://{quote(str(tmp_path))}")
    with pytest.raises(MlflowException, match="trimtab init"):
        MlflowClient().get_run(RUN)


def test_importing_mlflow_loads_no_store_of_trimtab() -> None:
    code = """
        import json, sys, mlflow, mlflow.tracking
        print(json.dumps([name for name in sys.modules if name.startswith("trimtab.")]))
    """
    loaded = set(json.loads(run_python(textwrap.dedent(code)).stdout.splitlines()[-1]))
    assert loaded <= {
        "trimtab.models",
        "trimtab.models.mlflow_plugin",
        "trimtab.models.mlflow_plugin.entry_points",
    }
