from __future__ import annotations

from functools import partial

import pytest

from trimtab.digest import digest_bytes
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError
from trimtab.serving.endpoints import Endpoints, current_routes, signing_secret
from trimtab.serving.routes import Arm, Route, single
from trimtab.store.journal import verify
from trimtab.workspace import Workspace

ONE, TWO = digest_bytes(b"1"), digest_bytes(b"2")


def test_a_route_change_has_a_generation_that_grows_and_an_entry_in_the_journal(
    any_workspace: Workspace,
) -> None:
    endpoints = Endpoints(any_workspace)
    any_workspace.write(lambda tx: endpoints.create(tx, "rides", "m"))
    assert endpoints.route("rides") is None
    canary = Route(model="m", arms=(Arm(1, ONE, "primary", 95), Arm(2, TWO, "challenger", 5)), salt="s")
    for generation, route in enumerate([single("m", 1, ONE), canary, single("m", 2, TWO)], 1):
        change = partial(endpoints.set_route, name="rides", route=route, reason="why")
        assert any_workspace.write(change) == generation
        standing = endpoints.route("rides")
        assert standing is not None
        assert (standing.generation, standing.arms, standing.salt) == (generation, route.arms, route.salt)
    assert endpoints.get("rides").generation == 3
    assert [(change.reason, change.actor) for change in endpoints.history("rides")] == [("why", "tester")] * 3
    with any_workspace.read() as connection:
        assert current_routes(connection) == {"rides": endpoints.route("rides")}
        assert verify(connection).entries == 4


def test_setting_the_route_that_stands_changes_nothing(workspace: Workspace) -> None:
    endpoints = Endpoints(workspace)
    workspace.write(lambda tx: endpoints.create(tx, "rides", "m"))
    for _ in range(2):
        assert workspace.write(lambda tx: endpoints.set_route(tx, "rides", single("m", 1, ONE))) == 1
    assert len(endpoints.history("rides")) == 1


def test_an_endpoint_is_made_once_and_keeps_its_model(workspace: Workspace) -> None:
    endpoints = Endpoints(workspace)
    made = workspace.write(lambda tx: endpoints.create(tx, "rides", "m"))
    assert workspace.write(lambda tx: endpoints.create(tx, "rides", "m")) == made
    with pytest.raises(ConflictError, match="serves the model 'm'"):
        workspace.write(lambda tx: endpoints.create(tx, "rides", "other"))
    with pytest.raises(ConflictError, match="not 'other'"):
        workspace.write(lambda tx: endpoints.set_route(tx, "rides", single("other", 1, ONE)))
    assert endpoints.list() == [made]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", ".hidden", "x" * 129])
def test_a_name_that_would_not_fit_an_address_or_a_table_is_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(InvalidInputError):
        workspace.write(lambda tx: Endpoints(workspace).create(tx, name, "m"))


def test_an_unknown_endpoint_is_told_with_the_nearest_name(workspace: Workspace) -> None:
    endpoints = Endpoints(workspace)
    workspace.write(lambda tx: endpoints.create(tx, "rides", "m"))
    with pytest.raises(NotFoundError, match="Did you mean 'rides'"):
        endpoints.route("ride")
    with pytest.raises(NotFoundError):
        workspace.write(lambda tx: endpoints.set_route(tx, "other", single("m", 1, ONE)))


def test_the_signing_secret_stays_the_same(any_workspace: Workspace) -> None:
    first = any_workspace.write(signing_secret)
    assert any_workspace.write(signing_secret) == first
    assert len(first) == 32
