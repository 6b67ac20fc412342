"""The model registry through MLflow's client: as MLflow's own for free models, firm for governed ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tests.server.mlflow.conftest import RunningServer
from tests.server.mlflow.pair import Both, Pair

from trimtab.models.policy import Policy, PolicyGate
from trimtab.models.registry import Registry
from trimtab.workspace import Workspace


@pytest.fixture
def pair(client: MlflowClient, stock: MlflowClient) -> Pair:
    return Pair(client, stock)


def versions_of(pair: Pair, name: str, count: int) -> Both:
    """A model with versions on both sides; answers the run that made them."""
    pair("create_registered_model", name)
    run_id = pair("create_run", "0", run_name=name).info.run_id
    for number in range(count):
        source = Both(*(f"s3://bucket/{number}" for _ in range(2)))
        pair("create_model_version", name, source, run_id)
    return run_id


def test_models(pair: Pair) -> None:
    pair("create_registered_model", "boats", {"team": "blue"}, "what floats")
    pair("create_registered_model", "boats")
    pair("create_registered_model", "bad/name")
    pair("create_registered_model", "")
    pair("get_registered_model", "boats")
    pair("get_registered_model", "missing")
    pair("update_registered_model", "boats", "what still floats")
    pair("update_registered_model", "missing", "x")
    pair("set_registered_model_tag", "boats", "owner", "ann")
    pair("set_registered_model_tag", "missing", "owner", "ann")
    pair("delete_registered_model_tag", "boats", "team")
    pair("delete_registered_model_tag", "boats", "team")
    pair("rename_registered_model", "boats", "ships")
    pair("get_registered_model", "boats")
    pair("get_registered_model", "ships")
    pair("rename_registered_model", "ships", "")
    pair("delete_registered_model", "ships")
    pair("delete_registered_model", "ships")


def test_versions_aliases_and_stages(pair: Pair) -> None:
    versions_of(pair, "fleet", 3)
    pair("get_model_version", "fleet", "2")
    pair("get_model_version", "fleet", "9")
    pair("get_model_version", "fleet", "no")
    pair("get_model_version", "missing", "1")
    pair("update_model_version", "fleet", "2", "the second")
    pair("set_model_version_tag", "fleet", "2", "color", "red")
    pair("set_model_version_tag", "fleet", "9", "color", "red")
    pair("delete_model_version_tag", "fleet", "2", "color")
    pair("delete_model_version_tag", "fleet", "2", "color")
    pair("set_registered_model_alias", "fleet", "champion", "2")
    pair("set_registered_model_alias", "fleet", "champion", "3")
    pair("set_registered_model_alias", "fleet", "latest", "3")
    pair("set_registered_model_alias", "fleet", "v3", "3")
    pair("set_registered_model_alias", "fleet", "no good", "3")
    pair("set_registered_model_alias", "fleet", "champion", "9")
    pair("get_model_version_by_alias", "fleet", "champion")
    pair("get_model_version_by_alias", "fleet", "latest")
    pair("get_model_version_by_alias", "fleet", "nobody")
    pair("get_model_version_by_alias", "missing", "nobody")
    pair("get_registered_model", "fleet")
    pair("delete_registered_model_alias", "fleet", "champion")
    pair("delete_registered_model_alias", "fleet", "champion")
    pair("transition_model_version_stage", "fleet", "1", "production")
    pair("transition_model_version_stage", "fleet", "2", "Production", archive_existing_versions=True)
    pair("transition_model_version_stage", "fleet", "2", "Nowhere")
    pair("get_latest_versions", "fleet")
    pair("get_latest_versions", "fleet", ["Production"])
    pair("set_registered_model_alias", "fleet", "old", "1")
    pair("delete_model_version", "fleet", "1")
    pair("delete_model_version", "fleet", "1")
    pair("get_registered_model", "fleet")
    pair("get_model_version_download_uri", "fleet", "2")


@pytest.mark.parametrize(
    "filter",
    [
        "name = 'Search-a'",
        "name LIKE 'Search-%'",
        "name ILIKE 'search-%'",
        "name != 'Search-a' and name LIKE 'Search-%'",
        "tags.team = 'blue' and name LIKE 'Search-%'",
        "nothing = 'x'",
        "name =",
    ],
)
def test_search_of_models(pair: Pair, filter: str) -> None:
    for name in ("Search-a", "Search-b"):
        pair.run(partial(_ensured, name))
    order = ["name DESC"]
    pair("search_registered_models", filter_string=filter, order_by=order, max_results=1)


@pytest.mark.parametrize(
    "filter",
    [
        "name = 'Many'",
        "version_number > 1 and name = 'Many'",
        "tags.a = 'b'",
        "nothing = 'x'",
        "name IN ('Many')",
    ],
)
def test_search_of_versions(pair: Pair, filter: str) -> None:
    if pair.made(lambda client, _: client.search_model_versions("name = 'Many'")).ours == []:
        versions_of(pair, "Many", 3)
        pair("set_model_version_tag", "Many", "2", "a", "b")
    pair("search_model_versions", filter, order_by=["version_number ASC"], max_results=2)


def _ensured(name: str, client: MlflowClient, _: int) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, {"team": "blue" if name.endswith("a") else "red"})


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
