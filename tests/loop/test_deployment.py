from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.loop.scene import NAME, Scene

from trimtab.digest import digest_bytes
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, RefusedError
from trimtab.loop.deployment import Deployments
from trimtab.models.policy import Override, Policy, PolicyGate
from trimtab.models.registry import Registry
from trimtab.serving.endpoints import Endpoints, current_routes
from trimtab.workspace import Workspace

DIGESTS = [digest_bytes(bytes([number])) for number in range(3)]


class Site:
    """A workspace with three versions of the model `rides` and no loop."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.registry = Registry(workspace)
        self.deployments = Deployments(workspace)
        workspace.write(lambda tx: self.registry.create_model(tx, "rides"))
        for digest in DIGESTS:
            workspace.write(partial(self.registry.register, name="rides", digest=digest))

    def deploy(self, version: int, endpoint: str = "live", override: Override | None = None) -> int:
        return self.workspace.write(
            lambda tx: self.deployments.deploy(tx, endpoint, "rides", version, override=override)
        )

    def rollback(self, to: int | None = None) -> int:
        return self.workspace.write(lambda tx: self.deployments.rollback(tx, "live", to=to)).generation

    def delete(self, endpoint: str = "live") -> None:
        self.workspace.write(lambda tx: self.deployments.delete(tx, endpoint))

    @property
    def answering(self) -> int | None:
        with self.workspace.read() as connection:
            route = current_routes(connection).get("live")
        return None if route is None else route.primary.version


@pytest.fixture
def site(workspace: Workspace) -> Site:
    return Site(workspace)


@pytest.fixture
def looped(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    made.bootstrap()
    yield made
    made.close()


def test_a_version_answers_alone_until_another_is_deployed(site: Site) -> None:
    assert site.deploy(1) == 1
    assert site.answering == 1
    assert site.deploy(1) == 1  # what stands already changes nothing
    assert site.deploy(3) == 2
    assert site.answering == 3


def test_going_back_leads_to_what_stood_before_and_is_a_new_generation(site: Site) -> None:
    for version in (1, 2, 3):
        site.deploy(version)
    assert site.rollback() == 2
    assert site.answering == 2
    assert site.rollback(to=1) == 1
    assert site.answering == 1
    assert Endpoints(site.workspace).get("live").generation == 5


def test_there_is_no_way_back_from_the_first_route(site: Site) -> None:
    site.deploy(1)
    with pytest.raises(ConflictError, match="no other route"):
        site.rollback()
    with pytest.raises(NotFoundError, match="generation"):
        site.rollback(to=7)


def test_a_deleted_endpoint_answers_no_more_and_begins_anew(site: Site) -> None:
    site.deploy(2)
    site.delete()
    assert site.answering is None
    with pytest.raises(NotFoundError, match="'live'"):
        site.delete()
    with pytest.raises(NotFoundError, match="'live'"):
        site.rollback()
    assert site.deploy(1) == 1
    assert site.answering == 1


def test_what_is_not_there_cannot_be_deployed(site: Site) -> None:
    with pytest.raises(NotFoundError, match="Version 9"):
        site.deploy(9)
    with pytest.raises(InvalidInputError, match="cannot be the name"):
        site.deploy(1, "a b")
    site.workspace.write(lambda tx: site.registry.create_model(tx, "walks"))
    site.workspace.write(lambda tx: site.registry.register(tx, "walks", DIGESTS[0]))
    site.deploy(1)
    with pytest.raises(ConflictError, match="'rides'"):
        site.workspace.write(lambda tx: site.deployments.deploy(tx, "live", "walks", 1))


def test_of_a_governed_model_only_what_may_be_champion_is_deployed(site: Site) -> None:
    site.deploy(1)
    site.deploy(2)
    policy = Policy((PolicyGate("good", {"kind": "good"}),))
    person = Override("ada", "it is a trial")
    site.workspace.write(lambda tx: site.registry.set_alias(tx, "rides", "champion", 3))
    site.workspace.write(lambda tx: site.registry.govern(tx, "rides", policy, by="a policy", override=person))
    with pytest.raises(RefusedError, match="governed by a policy"):
        site.deploy(1)
    with pytest.raises(RefusedError, match="governed by a policy"):
        site.rollback()
    assert site.answering == 2
    site.deploy(3)
    assert site.answering == 3
    site.deploy(1, override=person)
    assert site.answering == 1


def test_the_endpoint_of_a_loop_is_left_to_it(looped: Scene) -> None:
    workspace = looped.workspace
    deployments = Deployments(workspace)
    for work in (
        lambda tx: deployments.deploy(tx, NAME, NAME, 1),
        lambda tx: deployments.rollback(tx, NAME),
        lambda tx: deployments.delete(tx, NAME),
    ):
        with pytest.raises(RefusedError, match=f"belongs to the loop '{NAME}'"):
            workspace.write(work)
    workspace.write(lambda tx: deployments.deploy(tx, "aside", NAME, 1))
    with workspace.read() as connection:
        assert current_routes(connection)["aside"].primary.version == 1
