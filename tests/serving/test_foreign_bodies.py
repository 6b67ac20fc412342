"""Bodies that nobody should send, to the protocols of other servers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.tiny_models import ROW

NAMES = [*ROW, "leak", "b64", "", "\0"]
FIELDS = ["dataframe_split", "dataframe_records", "instances", "inputs", "params", "signature_name"]
SPLIT = ["columns", "data", "index"]

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*ROW.values(), "NaN", "1e999", "YQ==", 2**70, -(2**63), "9" * 400, "\ud800"])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*NAMES, *SPLIT]) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)
rows = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, values)) | st.lists(values, max_size=4)
frames = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.lists(st.sampled_from(NAMES) | values, max_size=4) | values,
        "data": st.lists(rows, max_size=3) | values,
        "index": values,
    },
)
bodies = (
    st.fixed_dictionaries(
        {},
        optional={name: st.lists(rows, max_size=3) | rows | frames | values for name in FIELDS},
    )
    | values
)
cells = st.sampled_from(["1.0", "winter", "false", "", "NA", "nan", "x", "holiday", "\0", '"', "9" * 400])
texts = st.lists(st.lists(cells | st.text(max_size=5), max_size=5).map(",".join), max_size=4).map("\n".join)

many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(found: httpx.Response, keys: set[str]) -> None:
    assert found.status_code in {200, 400, 404, 413, 415}, found.text
    if found.status_code == 200:
        assert found.headers["trimtab-prediction-id"]
    else:
        assert found.json().keys() == keys


@pytest.mark.parametrize(
    ("path", "keys"),
    [("/invocations", {"error_code", "message"}), ("/v1/models/rides:predict", {"error"})],
)
def test_no_json_makes_a_foreign_protocol_fail(client: httpx.Client, path: str, keys: set[str]) -> None:
    @many
    @given(bodies)
    def ask(body: Any) -> None:
        content = json.dumps(body).encode()
        check(client.post(path, content=content, headers={"content-type": "application/json"}), keys)

    ask()


def test_no_csv_text_makes_the_gateway_fail(client: httpx.Client) -> None:
    @many
    @given(texts, st.booleans())
    def ask(text: str, header: bool) -> None:
        kind = f"text/csv; header={'present' if header else 'absent'}"
        content = text.encode(errors="surrogatepass")
        found = client.post("/invocations", content=content, headers={"content-type": kind})
        check(found, {"error_code", "message"})

    ask()


@pytest.mark.parametrize("kind", ["", ";", "a", "text/csv;header", "text/csv;=", "application/json; charset"])
def test_no_content_type_makes_the_gateway_fail(client: httpx.Client, kind: str) -> None:
    check(
        client.post("/invocations", content=b"{}", headers={"content-type": kind}), {"error_code", "message"}
    )
