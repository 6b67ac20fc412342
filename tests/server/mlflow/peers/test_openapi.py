"""Requests made from our own OpenAPI never make the server fail."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LEFT_OUT = ("/artifacts", "/api/2.0", "/ajax-api")
"""What streams files; MLflow's paths are not in the OpenAPI anyway."""


def operations(url: str) -> list[Any]:
    """What the OpenAPI of the server offers."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found: list[Any] = list(schema.get_all_operations())
    return [each.ok() for each in found if not each.ok().path.startswith(LEFT_OUT)]


def fuzz(url: str, **more: Any) -> None:
    offered = operations(url)
    assert len(offered) > 10

    with httpx.Client(base_url=url, timeout=30) as http:

        @settings(deadline=None, suppress_health_check=list(HealthCheck), **more)
        @given(st.data())
        def send(data: st.DataObject) -> None:
            operation = data.draw(st.sampled_from(offered))
            case = data.draw(operation.as_strategy())
            asked = case.as_transport_kwargs(base_url=url)
            answer = http.request(
                asked["method"],
                asked["url"],
                params=asked.get("params"),
                headers=dict(asked.get("headers") or {}),
                content=httpx.Request("POST", url, json=asked["json"]).content if "json" in asked else None,
            )
            assert answer.status_code < 500, (asked, answer.text)
            if answer.status_code >= 400:
                assert answer.json()["error"]["message"], (asked, answer.text)

        send()


def test_what_the_openapi_offers_never_fails(ours: str) -> None:
    fuzz(ours, max_examples=150, derandomize=True, database=None)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_what_the_openapi_offers_never_fails_however_often(ours: str) -> None:
    fuzz(ours, max_examples=4000)
