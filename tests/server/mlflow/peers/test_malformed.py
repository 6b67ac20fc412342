"""Whatever is sent, the server refuses it in MLflow's words, never fails and never hangs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.mlflow.peers.exchange import exchange, request_bytes
from tests.server.mlflow.peers.recorded import Recorded, as_query, record

API = "/api/2.0/mlflow"

VALUES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        [
            2**63, -(2**63) - 1, 10**400, -1, 0, 1e999, [], {}, [[]], [None], [{}], {"a": [{"b": None}]}, "",
            "\0", "\ud800", "é" * 300, "x" * 100_000, "../../x", "%00", "NaN", "-Infinity", "1e400", "null",
            "metrics.a < ", "params.`", "name LIKE '%' AND", "tags.a = 'b' OR 1=1", " ",
            "run_id IN ('" + "a','" * 900 + "')",
            "metrics.a < 1 AND " * 3000 + "metrics.a < 1", "eyJvZmZzZXQiOi0xfQ==", "eyJvZmZzZXQiOjFlOTk5fQ==",
            "W10=", "ÿ", "9" * 400, "-1", "0x10", "1_000", "١", "m-" + "0" * 32, "0" * 32, "ACTIVE_ONLY", 99,
        ]
    )
    | st.text(max_size=20)
    | st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))
)  # fmt: skip


def places(message: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a message holds something."""
    found = [above] if above else []
    if isinstance(message, dict):
        found += [place for key, each in message.items() for place in places(each, (*above, key))]
    if isinstance(message, list):
        found += [place for index, each in enumerate(message) for place in places(each, (*above, index))]
    return found


@st.composite
def spoiled(draw: st.DrawFn, requests: list[Recorded]) -> bytes:
    """The bytes of a recorded request with one or two mistakes."""
    chosen = draw(st.sampled_from(requests))
    message = copy.deepcopy(chosen.message)
    for _ in range(draw(st.integers(1, 2))):
        spoil(draw, message)
    method, path = chosen.method, chosen.path
    if draw(st.integers(0, 9)) == 0:
        method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"]))
    if draw(st.integers(0, 9)) == 0:
        path += draw(st.sampled_from(["/", "/x", "%00", "%ff", "/..", "//", "?", "%2e%2e/", ";a=b"]))
    try:
        text = json.dumps(message, ensure_ascii=draw(st.booleans()))
    except ValueError:
        text = "{}"
    body = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        body = wrecked(draw, body)
    headers = draw(st.sampled_from(HEADERS))
    if method in {"GET", "HEAD"} and draw(st.integers(0, 9)):
        return request_bytes(method, f"{path}?{as_query(message)}", b"", headers)
    return request_bytes(method, path, body, headers)


HEADERS: list[tuple[tuple[str, str], ...]] = [
    (), (), (), (), (("Content-Type", "text/plain"),), (("Accept", "text/html"),),
    (("Content-Type", "application/x-www-form-urlencoded"),), (("Content-Encoding", "gzip"),),
    (("Content-Type", ""),), (("Content-Type", "multipart/form-data; boundary=x"),),
    (("Content-Type", "application/json; charset=x"),),
    (("X-Trimtab-Actor", "é" * 2000),), (("X-Trimtab-Actor", "a\tb"),),
]  # fmt: skip


def spoil(draw: st.DrawFn, message: dict[str, Any]) -> None:
    """Change one place of a message, leave it out, or add something."""
    all_places = places(message)
    if not all_places or draw(st.integers(0, 9)) == 0:
        name = st.text(max_size=5) | st.sampled_from(["filter", "max_results", "page_token"])
        message[draw(name)] = copy.deepcopy(draw(VALUES))
        return
    *above, last = draw(st.sampled_from(all_places))
    holder: Any = message
    for key in above:
        holder = holder[key]
    if draw(st.integers(0, 4)) == 0:
        del holder[last]
    else:
        holder[last] = copy.deepcopy(draw(VALUES))  # a second mistake may change it


def wrecked(draw: st.DrawFn, body: bytes) -> bytes:
    """Bytes that are no JSON object any more, or a strange one."""
    way = draw(st.integers(0, 6))
    at = draw(st.integers(0, len(body)))
    return [
        body[:at],
        body[:at] + draw(st.binary(max_size=4)) + body[at:],
        b"[" * 50_000 + body,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        body[:-1] + b"," + body[1:],  # every key twice
        b"\xff\xfe" + body.decode("utf-8", "replace").encode("utf-16-le"),
        b"[" + body + b"]",
    ][way]


@pytest.fixture(scope="module")
def recorded(ours: str) -> list[Recorded]:
    kept = record(ours, "recorded")
    assert len(kept) > 45
    return kept


def check(ours: str, sent: bytes) -> None:
    answer = exchange(ours, sent)
    assert 0 < answer.status < 500, (answer, sent[:2000])
    # A line that is longer than the HTTP server reads is answered by that, with 414.
    if answer.status >= 400 and answer.status != 414 and not sent.startswith(b"HEAD "):
        path = sent.split(b" ", 2)[1]
        assert answer.error_code or not path.startswith(b"/api/2.0/mlflow/"), (answer, sent[:2000])


def fuzz(ours: str, recorded: list[Recorded], **more: Any) -> None:
    @settings(deadline=None, suppress_health_check=list(HealthCheck), **more)
    @given(spoiled(recorded))
    def spoil_and_send(sent: bytes) -> None:
        check(ours, sent)

    spoil_and_send()


def test_a_spoiled_request_is_refused(ours: str, recorded: list[Recorded]) -> None:
    fuzz(ours, recorded, max_examples=600, derandomize=True, database=None)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_spoiled_requests_are_refused(ours: str, recorded: list[Recorded]) -> None:
    fuzz(ours, recorded, max_examples=10_000)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/3.0/mlflow/traces"),
        ("POST", "/api/2.0/mlflow/traces/search"),
        ("POST", "/api/3.0/mlflow/traces/search"),
        ("GET", "/api/2.0/mlflow/webhooks"),
        ("POST", "/api/2.0/mlflow/prompts/create"),
        ("POST", "/api/3.0/mlflow/assessments"),
        ("GET", "/api/3.0/mlflow/scorers/list"),
        ("POST", "/api/3.0/mlflow/datasets/create"),
        ("GET", "/ajax-api/2.0/mlflow/nothing"),
        ("DELETE", "/api/2.0/mlflow/runs/get"),
    ],
)
def test_an_endpoint_that_is_not_there_is_missed_in_mlflows_words(ours: str, method: str, path: str) -> None:
    answer = exchange(ours, request_bytes(method, path, b"{}"))
    assert (answer.status, answer.error_code) == (404, "ENDPOINT_NOT_FOUND")


POST = b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /api/2.0/mlflow/runs/get HTTP/9.9\r\n\r\n",
        POST + b"Content-Length: 100\r\n\r\n{",
        POST + b"Content-Length: -1\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/2.0/mlflow/runs/get?run_id=\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_bytes_that_are_no_request_end_the_connection(ours: str, sent: bytes) -> None:
    assert exchange(ours, sent, ends=True).status < 500
