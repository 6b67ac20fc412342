"""Large requests of numbers get the same answers in every protocol, and the same refusals as small ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serving.conftest import Served
from tests.serving.number_models import WIDTH, serve_numbers
from tests.serving.running_gateway import RunningGateway
from tests.serving.test_grpc import start

from trimtab.serving.number_bodies import LARGE_BYTES
from trimtab.serving.open_inference_requests import JSON_LENGTH

MATRIX = np.random.default_rng(1).normal(size=(300, WIDTH))
NAMES = [f"c{place}" for place in range(WIDTH)]
ROWS = MATRIX.tolist()
COLUMNS = dict(zip(NAMES, MATRIX.T.tolist(), strict=True))
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
PLAIN, INFER = "/v1/endpoints/numbers/predict", "/v2/models/numbers/infer"
INVOKE, TENSORFLOW = "/endpoints/numbers/invocations", "/v1/models/numbers:predict"


@pytest.fixture(scope="module")
def gateway(shared: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    serve_numbers(shared.workspace, tmp_path_factory.mktemp("numbers") / "model")
    with start(shared) as running:
        yield running.until_ready()


def tensor(data: Any, *, name: str = "x", shape: tuple[int, ...] = MATRIX.shape) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": "FP64", "data": data}


BODIES: dict[str, tuple[str, Any]] = {
    "plain rows": (PLAIN, {"rows": RECORDS, "key": "k"}),
    "plain columns": (PLAIN, {"columns": COLUMNS, "keys": list(range(300)), "request_id": 7}),
    "one tensor": (INFER, {"inputs": [tensor(MATRIX.reshape(-1).tolist())]}),
    "one nested tensor": (INFER, {"inputs": [tensor(ROWS)]}),
    "tensors": (INFER, {"inputs": [tensor(COLUMNS[name], name=name, shape=(300,)) for name in NAMES]}),
    "split": (INVOKE, {"dataframe_split": {"columns": NAMES, "data": ROWS}}),
    "records": (INVOKE, {"dataframe_records": RECORDS}),
    "instances": (INVOKE, {"instances": ROWS}),
    "inputs": (INVOKE, {"inputs": COLUMNS}),
    "TensorFlow instances": (TENSORFLOW, {"instances": ROWS}),
    "TensorFlow inputs": (TENSORFLOW, {"inputs": COLUMNS}),
}


def told(answer: dict[str, Any]) -> Any:
    if "outputs" not in answer:
        return answer["predictions"]
    return answer["outputs"][0]["data"] if isinstance(answer["outputs"][0], dict) else answer["outputs"]


@pytest.fixture(scope="module")
def wanted(gateway: RunningGateway) -> list[float]:
    """The answers to one row after the other."""
    with gateway.client() as client:
        return [client.post(PLAIN, json={"row": row}).json()["predictions"][0] for row in RECORDS]


@pytest.mark.parametrize("name", BODIES)
def test_all_ways_to_send_many_numbers_are_answered_alike(
    client: httpx.Client, wanted: list[float], name: str
) -> None:
    path, body = BODIES[name]
    assert len(json.dumps(body)) > LARGE_BYTES
    response = client.post(path, json=body)
    assert response.status_code == 200
    assert told(response.json()) == wanted


@pytest.mark.parametrize(("datatype", "kind"), [("FP64", "<f8"), ("FP32", "<f4")])
def test_binary_tensors_are_answered_as_their_numbers_in_json_are(
    client: httpx.Client, datatype: str, kind: str
) -> None:
    sent = MATRIX.astype(kind)
    said = told(client.post(INFER, json={"inputs": [tensor(sent.astype(float).tolist())]}).json())
    size = {"binary_data_size": sent.nbytes}
    head = json.dumps(
        {
            "inputs": [{"name": "x", "shape": MATRIX.shape, "datatype": datatype, "parameters": size}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    response = client.post(INFER, content=head + sent.tobytes(), headers={JSON_LENGTH: str(len(head))})
    answered = int(response.headers[JSON_LENGTH])
    assert np.frombuffer(response.content[answered:], "<f8").tolist() == said


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PLAIN, {"rows": [*RECORDS, {**RECORDS[0], "c7": None}]}),
        (PLAIN, {"rows": [*RECORDS, {**RECORDS[0], "c7": "much"}]}),
        (PLAIN, {"columns": {**COLUMNS, "c7": [*COLUMNS["c7"][:-1], True]}}),
        (INVOKE, {"instances": [*ROWS, [*ROWS[0][:7], None, *ROWS[0][8:]]]}),
        (TENSORFLOW, {"inputs": {**COLUMNS, "c7": [*COLUMNS["c7"][:-1], None]}}),
        (INFER, {"inputs": [tensor([*ROWS[:-1], [*ROWS[0][:7], None, *ROWS[0][8:]]])]}),
    ],
)
def test_what_is_wrong_among_many_numbers_is_named(client: httpx.Client, path: str, body: Any) -> None:
    response = client.post(path, json=body)
    assert response.status_code in {400, 422}
    assert "'c7'" in response.text
    assert "row 299" in response.text or "row 300" in response.text
