from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.conftest import Served
from tests.serving.running_gateway import RunningGateway
from tests.serving.tiny_models import ROW, version_of

PREDICT = "/v1/endpoints/rides/predict"
FEEDBACK = "/v1/endpoints/rides/feedback"


def refused(response: httpx.Response, status: int, code: str, *words: str) -> None:
    """Check an error's shape, and that it says what to do."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    for word in words:
        assert word in error["message"]


def test_a_row_rows_and_columns_are_answered_alike(client: httpx.Client) -> None:
    one = client.post(PREDICT, json={"row": ROW}).json()
    assert version_of(one["predictions"][0]) == 1
    assert (one["version"], one["endpoint"], len(one["ids"])) == ("1", "rides", 1)
    rows = client.post(PREDICT, json={"rows": [ROW, {**ROW, "x": 9}]}).json()
    columns = {name: [value, value] for name, value in ROW.items()} | {"x": [1.0, 9]}
    assert client.post(PREDICT, json={"columns": columns}).json()["predictions"] == rows["predictions"]
    assert rows["predictions"][0] == one["predictions"][0] != rows["predictions"][1]
    assert len({*one["ids"], *rows["ids"]}) == 3


def test_many_rows_are_answered_in_their_order(client: httpx.Client) -> None:
    places = [number % 11 for number in range(5000)]
    columns = {
        "x": places,
        "season": ["winter"] * 5000,
        "holiday": [False] * 5000,
    }
    found = client.post(PREDICT, json={"columns": columns}).json()
    by_x = {
        x: client.post(PREDICT, json={"row": {**ROW, "x": x}}).json()["predictions"][0] for x in range(11)
    }
    assert found["predictions"] == [by_x[x] for x in places]
    assert len(set(found["ids"])) == 5000


def test_the_request_id_comes_back_and_keys_may_be_numbers(client: httpx.Client) -> None:
    found = client.post(PREDICT, json={"row": ROW, "request_id": "r-1", "key": 7})
    assert found.json()["request_id"] == "r-1"
    assert client.post(PREDICT, json={"rows": [ROW, ROW], "keys": ["a", None]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"row": {**ROW, "x": "one"}}, ["'x'", "'one'", "finite number"]),
        ({"row": {"x": 1, "season": "winter"}}, ["'holiday'", "missing"]),
        ({"row": {**ROW, "seson": "winter"}}, ["'seson'", "Did you mean 'season'"]),
        ({"row": {**ROW, "x": None}}, ["'x'", "missing in row 0"]),
        ({"row": {**ROW, "x": {"nested": 1}}}, ["'x'"]),
        ({"row": {**ROW, "holiday": 1}}, ["'holiday'", "true or false"]),
        ({"rows": [ROW, {**ROW, "season": 3}]}, ["'season'", "row 1"]),
        ({"rows": []}, ["no rows"]),
        ({"row": {}}, ["'x'", "missing"]),
        ({"columns": {}}, ["no rows"]),
        ({"columns": {"x": [1, 2], "season": ["winter"], "holiday": [True]}}, ["one value for each row"]),
        ({}, ["'row', 'rows' and 'columns'"]),
        ({"row": ROW, "rows": [ROW]}, ["one of"]),
        ({"row": ROW, "kye": "k"}, ["kye"]),
        ({"row": ROW, "key": ""}, ["key"]),
        ({"row": ROW, "key": "k" * 1000}, ["key"]),
        ({"row": ROW, "key": "a\0b"}, ["key", "NUL"]),
        ({"rows": [ROW, ROW], "keys": ["a"]}, ["1 keys for 2 rows"]),
        ({"rows": [ROW], "keys": ["a"], "key": "b"}, ["'key' and 'keys'"]),
        ([1, 2], ["object"]),
        ("text", ["object"]),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_the_reason(
    client: httpx.Client, body: object, words: list[str]
) -> None:
    refused(client.post(PREDICT, json=body), 422, "invalid_input", *words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["no body"]),
        (b"{", ["not valid JSON"]),
        (b'{"row": {"x": NaN}}', ["NaN", "null for a missing value"]),
        (b"\xff\xfe", ["not valid JSON"]),
        (b'{"row": {"x": ' + b"[" * 100_000, []),
    ],
)
def test_what_is_not_json_is_refused(client: httpx.Client, body: bytes, words: list[str]) -> None:
    response = client.post(PREDICT, content=body)
    assert response.status_code in {400, 422}
    assert all(word in response.json()["error"]["message"] for word in words)


def test_a_body_of_10_megabytes_is_refused_and_the_connection_goes_on(client: httpx.Client) -> None:
    body = json.dumps({"rows": [ROW] * 200_000}).encode()
    assert len(body) > 10_000_000
    refused(client.post(PREDICT, content=body), 413, "too_large", "body_limit")

    def chunks() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    refused(client.post(PREDICT, content=chunks()), 413, "too_large")
    assert client.post(PREDICT, json={"row": ROW}).status_code == 200


def test_a_body_in_chunks_is_read(client: httpx.Client) -> None:
    assert (
        client.post(PREDICT, content=iter([b'{"row": ', json.dumps(ROW).encode(), b"}"])).status_code == 200
    )


def test_wrong_addresses_methods_and_headers_are_refused(client: httpx.Client) -> None:
    refused(
        client.post("/v1/endpoints/ridse/predict", json={"row": ROW}),
        404,
        "not_found",
        "Did you mean 'rides'",
    )
    refused(client.post("/v1/endpoints/rides/guess", json={}), 404, "not_found", "/predict")
    refused(client.get("/elsewhere"), 404, "not_found")
    refused(client.get("/v1"), 404, "not_found")
    refused(client.get(PREDICT), 405, "method_not_allowed", "POST")
    assert client.get(PREDICT).headers["allow"] == "POST"
    refused(client.delete("/v1/endpoints/rides"), 405, "method_not_allowed")
    refused(client.post("/health"), 405, "method_not_allowed")
    header = {"Trimtab-Event-Time": "2011-09-01T00:00:00Z"}
    refused(client.post(PREDICT, json={"row": ROW}, headers=header), 400, "malformed", "replay")
    squeezed = {"content-encoding": "br"}
    refused(client.post(PREDICT, content=b"x", headers=squeezed), 415, "unsupported_encoding", "gzip")


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_are_unpacked_within_the_limit(
    client: httpx.Client, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    header = {"content-encoding": encoding}
    whole = pack(json.dumps({"row": ROW}).encode())
    assert client.post(PREDICT, content=whole, headers=header).status_code == 200
    refused(client.post(PREDICT, content=whole[:-5], headers=header), 400, "malformed", "cut short")
    refused(client.post(PREDICT, content=b"x", headers=header), 400, "malformed", encoding)
    bomb = pack(b" " * (8 * 2**20 + 1))
    refused(client.post(PREDICT, content=bomb, headers=header), 413, "too_large")


def test_feedback_is_accepted_at_once_for_genuine_ids_and_by_key(client: httpx.Client) -> None:
    ids = client.post(PREDICT, json={"rows": [ROW, ROW]}).json()["ids"]
    assert client.post(FEEDBACK, json={"id": ids[0], "label": 3}).status_code == 202
    many = [
        {"id": ids[1], "label": True},
        {"key": "k", "at": "2024-05-01T00:00:00Z", "label": 1.5},
        {"key": "k", "label": 10**30},
    ]
    assert client.post(FEEDBACK, json=many).json() == {"accepted": 3, "endpoint": "rides"}
    assert client.post(FEEDBACK, json={"id": ids[0], "label": 3}).status_code == 202


def test_feedback_that_names_no_prediction_of_the_endpoint_is_refused_whole(client: httpx.Client) -> None:
    (id,) = client.post(PREDICT, json={"row": ROW}).json()["ids"]
    forged = id[:-1] + ("A" if id[-1] != "A" else "B")
    refused(client.post(FEEDBACK, json={"id": forged, "label": 1}), 404, "not_found", forged)
    before = client.get("/v1/status").json()["log"]["labels"]
    refused(
        client.post(FEEDBACK, json=[{"id": id, "label": 1}, {"id": "x", "label": 1}]),
        404,
        "not_found",
        "item 1",
    )
    assert client.get("/v1/status").json()["log"]["labels"] == before


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"label": 1},
        {"id": "x"},
        {"key": "k", "at": "2024", "label": 1},
        {"key": "a\0b", "label": 1},
        {"key": "k", "label": 10**400},
        {"id": 1, "label": 1},
        "x",
    ],
)
def test_feedback_that_is_not_understood_is_refused(client: httpx.Client, body: object) -> None:
    assert client.post(FEEDBACK, json=body).status_code in {400, 422}


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8601"},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
)
def test_a_foreign_web_page_predicts_and_teaches_nothing(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    before = client.get("/v1/status").json()["log"]
    refused(client.post(PREDICT, json={"row": ROW}, headers=headers), 403, "refused", "127.0.0.1")
    refused(client.post(FEEDBACK, json={"key": "k", "label": 1}, headers=headers), 403, "refused")
    assert client.get("/health", headers=headers).status_code == 200
    assert client.get("/v1/status").json()["log"] == before


def test_an_endpoint_describes_itself(client: httpx.Client, shared: Served) -> None:
    found = client.get("/v1/endpoints/rides").json()
    assert [column["name"] for column in found["columns"]] == ["x", "season", "holiday"]
    assert found["arms"] == [{"version": "1", "role": "primary", "share": 100.0, "digest": shared.digests[1]}]
    assert client.get("/v1/endpoints").json() == {"endpoints": [found], "failures": {}}
    assert client.get("/v1/status").json()["routes"] == {"rides": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
WORDS = (
    "row rows columns key keys request_id id at label inputs name shape datatype data parameters outputs "
    "x season holiday"
)
names = st.sampled_from(WORDS.split())
fields = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([PREDICT, FEEDBACK, "/v2/models/rides/infer"]),
    st.dictionaries(names, fields) | fields,
)
def test_no_json_makes_the_gateway_fail(client: httpx.Client, path: str, body: object) -> None:
    assert client.post(path, json=body).status_code < 500


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=json_values, season=json_values, holiday=json_values, key=json_values)
def test_no_value_makes_the_gateway_fail(
    client: httpx.Client, x: object, season: object, holiday: object, key: object
) -> None:
    row = {"x": x, "season": season, "holiday": holiday}
    for body in ({"row": row, "key": key}, {"rows": [ROW, row]}):
        assert client.post(PREDICT, json=body).status_code < 500


def test_the_gateway_never_logged_a_failure(gateway: RunningGateway, client: httpx.Client) -> None:
    client.post(PREDICT, json={"row": ROW})
    assert "Traceback" not in gateway.output()
