"""The model registry through MLflow's client: as MLflow's own for free models, firm for governed ones."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tests.server.mlflow.conftest import RunningServer

from trimtab.models.policy import Policy, PolicyGate
from trimtab.models.registry import Registry
from trimtab.workspace import Workspace


@pytest.mark.parametrize(
    "source", ["/etc", "file:///etc", "runs:/x/../../etc", "etc/passwd", "s3://b/%2e%2e/x"]
)
def test_no_version_is_made_of_files_of_this_machine(client: MlflowClient, source: str) -> None:
    if not client.search_registered_models("name = 'local'"):
        client.create_registered_model("local")
    with pytest.raises(MlflowException) as refused:
        client.create_model_version("local", source)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_version_keeps_the_content_that_it_was_made_of(
    client: MlflowClient, server: RunningServer, shared_workspace: Workspace, tmp_path: Path
) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "first", "model/weights.txt")
    client.create_registered_model("kept")
    version = client.create_model_version("kept", f"runs:/{run_id}/model", run_id)
    client.log_text(run_id, "second", "model/weights.txt")
    found = Registry(shared_workspace).get_version("kept", int(version.version))
    assert set(shared_workspace.blobs.manifest(found.digest).files) == {"weights.txt"}
    uri = client.get_model_version_download_uri("kept", version.version)
    got = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path), tracking_uri=server.url)
    assert (Path(got) / "weights.txt").read_text() == "first"
    copied = client.copy_model_version("models:/kept/1", "copied")
    assert Registry(shared_workspace).get_version("copied", int(copied.version)).digest == found.digest


def test_a_model_is_logged_registered_and_loaded_by_its_alias(
    client: MlflowClient, server: RunningServer
) -> None:
    mlflow.set_tracking_uri(server.url)
    mlflow.set_registry_uri(server.url)
    mlflow.set_experiment("registered")
    try:
        with mlflow.start_run() as run:
            logged = mlflow.pyfunc.log_model(
                name="doubler", python_model=_double, registered_model_name="doubler", pip_requirements=[]
            )
        client.set_registered_model_alias("doubler", "champion", "1")
        version = client.get_model_version_by_alias("doubler", "champion")
        assert version.run_id == run.info.run_id
        assert logged.model_id in str(version.source)
        loaded = mlflow.pyfunc.load_model("models:/doubler@champion")
        assert loaded.predict([1, 2]) == [2, 4]
        assert mlflow.pyfunc.load_model(logged.model_uri).predict([3]) == [6]
        assert [each.name for each in mlflow.search_logged_models(output_format="list")] == ["doubler"]
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # None forgets it
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]  # None forgets it


def _double(model_input: list[int]) -> list[int]:
    return [2 * each for each in model_input]


def test_a_governed_model_keeps_its_promise(client: MlflowClient, shared_workspace: Workspace) -> None:
    client.create_registered_model("governed")
    client.create_model_version("governed", "s3://bucket/model")
    registry = Registry(shared_workspace)
    policy = Policy((PolicyGate("latency", {"gate": "latency", "p99_ms": 20}),))
    shared_workspace.write(lambda tx: registry.govern(tx, "governed", policy, by="loop bikes"))
    for method, arguments in (
        ("set_registered_model_alias", ("governed", "champion", "1")),
        ("transition_model_version_stage", ("governed", "1", "Production")),
    ):
        with pytest.raises(MlflowException, match="trimtab model validate governed 1") as refused:
            getattr(client, method)(*arguments)
        assert refused.value.error_code == "PERMISSION_DENIED"
        assert policy.names[0] in str(refused.value)
    for way_around, given in (
        ("delete_registered_model", ("governed",)),
        ("rename_registered_model", ("governed", "free")),
    ):
        with pytest.raises(MlflowException, match="governed by loop bikes") as refused:
            getattr(client, way_around)(*given)
        assert refused.value.error_code == "PERMISSION_DENIED"
    client.set_registered_model_alias("governed", "challenger", "1")
