"""KServe's client for version 1, unchanged, in a virtual environment of its own."""

from __future__ import annotations

import pytest
from tests.serving.running_gateway import RunningGateway
from tests.serving.test_open_inference_peers import RIDES, predictions, told

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def test_kserves_client_of_version_1_gets_the_same_answers(gateway: RunningGateway) -> None:
    found = told("kserve", "kserve_v1_client.py", gateway.url)
    assert found == [predictions(gateway, "rides", **RIDES)] * 3
