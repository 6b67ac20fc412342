"""A governed model keeps its promise, whichever door a change comes through; all others are as in MLflow."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tests.server.mlflow.conftest import RunningServer

from trimtab.models import addresses
from trimtab.models.mlflow_plugin import workspaces
from trimtab.models.policy import Override, Policy, PolicyGate
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport, GateResult
from trimtab.workspace import Workspace

POLICY = Policy(
    (
        PolicyGate("latency", {"gate": "latency", "p99_ms": 20}),
        PolicyGate("metric rmse", {"gate": "metric", "metric": "rmse", "max": 10}),
    )
)
Door = Callable[..., Any]


class Governed:
    """A model of three versions of which the first is champion, by an override, and governed since."""

    def __init__(self, workspace: Workspace, client: MlflowClient, name: str) -> None:
        self.workspace = workspace
        self.registry = Registry(workspace)
        self.name = name
        client.create_registered_model(name)
        for number in (1, 2, 3):
            client.create_model_version(name, f"s3://bucket/{name}/{number}")
        client.set_registered_model_alias(name, "champion", "1")
        person = Override("ann", "it stands")
        workspace.write(lambda tx: self.registry.govern(tx, name, POLICY, by="a policy", override=person))

    def judge(self, version: int, failed: tuple[str, ...] = ()) -> None:
        """Keep a gate report as `trimtab model validate` does."""
        report = GateReport(
            model=self.name,
            digest=self.registry.get_version(self.name, version).digest,
            policy=POLICY.digest,
            results=tuple(GateResult(gate=name, passed=name not in failed) for name in POLICY.names),
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            version=version,
        )
        self.workspace.write(lambda tx: self.registry.add_gate_report(tx, report))

    @property
    def champion(self) -> int | None:
        found = self.registry.champion(self.name)
        return None if found is None else found.version


@pytest.fixture(params=["server", "plug-in"])
def door(
    request: pytest.FixtureRequest, server: RunningServer, shared_workspace: Workspace
) -> Iterator[MlflowClient]:
    """The unmodified client, of the server or of the workspace itself."""
    url = server.url if request.param == "server" else addresses.address_of(shared_workspace.project)
    yield MlflowClient(url, url)
    workspaces.close_workspaces()


@pytest.fixture
def governed(request: pytest.FixtureRequest, door: MlflowClient, shared_workspace: Workspace) -> Governed:
    name = "".join(sign if sign.isalnum() else "-" for sign in request.node.name)
    return Governed(shared_workspace, door, name)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(MlflowException) as error:
        call()
    assert error.value.error_code == "PERMISSION_DENIED"
    return str(error.value)


WAYS: dict[str, Callable[[MlflowClient, str], object]] = {
    "the alias": lambda door, name: door.set_registered_model_alias(name, "champion", "2"),
    "the stage": lambda door, name: door.transition_model_version_stage(name, "2", "Production"),
    "the stage, in small letters": lambda door, name: door.transition_model_version_stage(
        name, "2", "production", archive_existing_versions=True
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_version_becomes_champion_by_a_passing_report_only(
    door: MlflowClient, governed: Governed, way: str
) -> None:
    told = refused(lambda: WAYS[way](door, governed.name))
    assert "no gate report" in told
    assert all(gate in told for gate in POLICY.names)
    assert f"trimtab model validate {governed.name} 2" in told
    governed.judge(2, failed=("metric rmse",))
    told = refused(lambda: WAYS[way](door, governed.name))
    assert "did not pass: metric rmse" in told
    assert f"trimtab model validate {governed.name} 2" in told
    assert governed.champion == 1
    governed.judge(2)
    WAYS[way](door, governed.name)


AROUND: dict[str, Callable[[MlflowClient, str], object]] = {
    "take the alias away": lambda door, name: door.delete_registered_model_alias(name, "champion"),
    "an alias almost like it": lambda door, name: door.set_registered_model_alias(name, "Champion", "2"),
    "delete the champion": lambda door, name: door.delete_model_version(name, "1"),
    "delete the model": lambda door, name: door.delete_registered_model(name),
    "rename the model": lambda door, name: door.rename_registered_model(name, f"{name}-free"),
}


@pytest.mark.parametrize("way", AROUND)
def test_there_is_no_way_around(door: MlflowClient, governed: Governed, way: str) -> None:
    told = refused(lambda: AROUND[way](door, governed.name))
    assert "is governed by a policy" in told
    assert f"trimtab model govern {governed.name} --release" in told
    assert governed.champion == 1


def test_nothing_takes_the_place_of_a_governed_model(door: MlflowClient, governed: Governed) -> None:
    other = f"{governed.name}-other"
    door.create_registered_model(other)
    calls: tuple[Callable[[], object], ...] = (
        lambda: door.rename_registered_model(other, governed.name),
        lambda: door.create_registered_model(governed.name),
    )
    for call in calls:
        with pytest.raises(MlflowException) as error:
            call()
        assert error.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert governed.champion == 1


def test_what_stands_in_production_stays_there(door: MlflowClient, governed: Governed) -> None:
    governed.judge(2)
    door.transition_model_version_stage(governed.name, "2", "Production")
    for stage in ("Archived", "None", "Staging"):
        refused(lambda stage=stage: door.transition_model_version_stage(governed.name, "2", stage))  # type: ignore[misc]
    refused(lambda: door.delete_model_version(governed.name, "2"))
    door.transition_model_version_stage(governed.name, "3", "Staging", archive_existing_versions=True)
    assert door.get_model_version(governed.name, "2").current_stage == "Production"


def test_all_else_is_free(door: MlflowClient, governed: Governed) -> None:
    name = governed.name
    door.set_registered_model_alias(name, "challenger", "3")
    door.delete_registered_model_alias(name, "challenger")
    door.set_model_version_tag(name, "1", "k", "v")
    door.set_registered_model_tag(name, "k", "v")
    door.update_registered_model(name, "described")
    door.update_model_version(name, "1", "described")
    door.transition_model_version_stage(name, "3", "Staging")
    door.delete_model_version(name, "3")
    door.create_model_version(name, "s3://bucket/4")
    door.copy_model_version(f"models:/{name}/2", name)


def test_a_copy_of_a_version_has_its_report_and_another_content_has_not(
    door: MlflowClient, governed: Governed
) -> None:
    governed.judge(2)
    copied = door.copy_model_version(f"models:/{governed.name}/2", governed.name)
    door.set_registered_model_alias(governed.name, "champion", str(copied.version))
    refused(lambda: door.set_registered_model_alias(governed.name, "champion", "3"))


def test_a_released_model_is_as_any_other(door: MlflowClient, governed: Governed) -> None:
    registry, person = governed.registry, Override("ann", "enough")
    governed.workspace.write(lambda tx: registry.ungovern(tx, governed.name, override=person))
    door.set_registered_model_alias(governed.name, "champion", "3")
    door.transition_model_version_stage(governed.name, "3", "Production")
    door.delete_model_version(governed.name, "3")
    door.delete_registered_model(governed.name)


@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_raw_requests_meet_the_same_gates(
    api: str, server: RunningServer, shared_workspace: Workspace, client: MlflowClient
) -> None:
    governed = Governed(shared_workspace, client, f"raw {api}")

    def told(method: str, path: str, **message: object) -> tuple[int, str]:
        request = urllib.request.Request(
            f"{server.url}/{api}/2.0/mlflow/{path}",
            json.dumps({"name": governed.name, **message}).encode(),
            {"Content-Type": "application/json", "X-Trimtab-Actor": "root"},
            method=method,
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=10)
        with error.value as answer:
            document = json.loads(answer.read())
        assert document["error_code"] == "PERMISSION_DENIED"
        return error.value.code, document["message"]

    for method, path, message in (
        ("POST", "registered-models/alias", {"alias": "champion", "version": "2"}),
        ("POST", "registered-models/alias", {"alias": "CHAMPION", "version": "2"}),
        ("POST", "model-versions/transition-stage", {"version": "2", "stage": "pRoDuCtIoN"}),
        ("DELETE", "registered-models/alias", {"alias": "champion"}),
        ("DELETE", "model-versions/delete", {"version": "1"}),
        ("DELETE", "registered-models/delete", {}),
        ("POST", "registered-models/rename", {"new_name": "free"}),
    ):
        status, words = told(method, path, **message)
        assert status == 403
        assert "trimtab model " in words
    assert governed.champion == 1
