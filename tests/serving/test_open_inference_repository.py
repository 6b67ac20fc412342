"""What the repository extension tells and does where endpoints fail and tokens exist."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.serving.conftest import ENDPOINT, Served
from tests.serving.running_gateway import RunningGateway, until

from trimtab.serving.access import Tokens
from trimtab.serving.routes import single

INDEX = "/v2/repository/index"
LOAD = f"/v2/repository/models/{ENDPOINT}/load"
UNLOAD = f"/v2/repository/models/{ENDPOINT}/unload"


@pytest.fixture
def client_of(served: Served) -> Iterator[httpx.Client]:
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        yield client


def states(client: httpx.Client, **body: bool) -> list[tuple[str, str, str]]:
    entries = client.post(INDEX, json=body).json()
    return [(entry["name"], entry["version"], entry["state"]) for entry in entries]


def test_a_failed_endpoint_is_listed_with_its_reason_and_loads_once_it_can_be_fetched(
    served: Served, client_of: httpx.Client
) -> None:
    served.workspace.write(lambda tx: served.endpoints.create(tx, "other", "other-model"))
    lost = "b3:" + "0" * 64
    served.workspace.write(lambda tx: served.endpoints.set_route(tx, "other", single("other-model", 1, lost)))
    until(lambda: len(states(client_of)) == 2)
    ready = [(ENDPOINT, "1", "READY")]
    assert states(client_of) == [("other", "", "UNAVAILABLE"), *ready]
    assert states(client_of, ready=True) == ready
    assert "cannot be fetched" in client_of.post(INDEX).json()[0]["reason"]
    path = "/v2/repository/models/other/load"
    found = client_of.post(path)
    assert found.status_code == 503
    assert "cannot be fetched" in found.json()["error"]
    assert client_of.get("/v2/models/other/ready").status_code == 503
    served.workspace.write(
        lambda tx: served.endpoints.set_route(tx, "other", single("other-model", 1, served.digests[2]))
    )
    assert client_of.post(path, json={}).json() == {"name": "other", "state": "READY"}
    assert ("other", "1", "READY") in states(client_of)


def test_an_endpoint_on_its_last_good_route_says_that_a_newer_one_failed(
    served: Served, client_of: httpx.Client
) -> None:
    served.route(single("rides-model", 9, "b3:" + "0" * 64))
    until(lambda: client_of.post(INDEX).json()[0]["reason"] != "")
    (entry,) = client_of.post(INDEX).json()
    assert (entry["version"], entry["state"]) == ("1", "READY")
    assert "Version 9" in entry["reason"]
    assert client_of.post(LOAD).status_code == 503
    assert client_of.get(f"/v2/models/{ENDPOINT}/ready").status_code == 200


def test_where_there_are_tokens_one_is_wanted_to_load_even_on_loopback(
    served: Served, client_of: httpx.Client
) -> None:
    assert client_of.post(LOAD).status_code == 200
    token = Tokens(served.workspace).create("loader")
    until(lambda: client_of.post(LOAD).status_code == 401)
    for path in (LOAD, UNLOAD):
        assert set(client_of.post(path).json()) == {"error"}
    authorized = {"authorization": f"Bearer {token}"}
    assert client_of.post(LOAD, headers=authorized).status_code == 200
    refused = client_of.post(UNLOAD, headers=authorized)
    assert refused.status_code == 403
    assert "its route decides" in refused.json()["error"]


def test_what_the_repository_does_not_know_is_told(client_of: httpx.Client) -> None:
    assert client_of.get(INDEX).status_code == 405
    for path in ("/v2/repository/models/ride/load", "/v2/repository/models/ride/unload"):
        found = client_of.post(path)
        assert found.status_code == 404
        assert "Did you mean 'rides'" in found.json()["error"]
    assert client_of.post("/v2/repository/other").status_code == 404
    assert client_of.post(INDEX, content=b"{").status_code == 400
    assert client_of.post(INDEX, json={"ready": "yes"}).status_code == 422
