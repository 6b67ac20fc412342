"""Which protocol an address belongs to."""

from __future__ import annotations

import httpx
import pytest

NOBODYS = [
    "/v2x", "/v2x/models/rides", "/versionx", "/endpointsx", "/v1/modelsx", "/v1/modelsx/rides", "/v1",
    "/v1/", "/v1/endpointsx/rides", "/invocationsx", "/serving-endpointsx", "/openapi.jsonx", "/V2",
    "/v3/models",
]  # fmt: skip


@pytest.mark.parametrize("address", NOBODYS)
def test_an_address_that_only_begins_like_a_protocols_is_nobodys(client: httpx.Client, address: str) -> None:
    for answer in (client.get(address), client.post(address, json={})):
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("address", "keys"),
    [
        ("/v2/x", {"error"}),
        ("/v2/models/none", {"error"}),
        ("/v1/models/none", {"error"}),
        ("/endpoints/none/invocations", {"error_code", "message"}),
        ("/version/x", {"error_code", "message"}),
    ],
)
def test_what_is_not_there_is_told_in_the_words_of_the_protocol(
    client: httpx.Client, address: str, keys: set[str]
) -> None:
    answer = client.post(address, json={}) if "invocations" in address else client.get(address)
    told = answer.json()
    assert (answer.status_code, told.keys()) == (404, keys)
    assert all(isinstance(each, str) for each in told.values())


def test_slashes_at_the_end_change_nothing(client: httpx.Client) -> None:
    assert client.get("/v1/endpoints/").json() == client.get("/v1/endpoints").json()
    assert client.get("/v2/").json() == client.get("/v2").json()
