from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.serving.conftest import Served
from tests.serving.running_gateway import RunningGateway
from tests.serving.tiny_models import ROW, version_of

from trimtab.serving.routes import Arm, Route, single

MODEL = "/v1/models/rides"
VALUES = list(ROW.values())


def predicted(client: httpx.Client, path: str, body: Any) -> Any:
    found = client.post(path, json=body)
    assert found.status_code == 200, found.text
    return found.json()


@pytest.mark.parametrize(
    "path", [f"{MODEL}:predict", f"{MODEL}/versions/1:predict", f"{MODEL}/labels/primary:predict"]
)
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_are_answered_as_predictions_and_columns_as_outputs(
    client: httpx.Client, path: str, rows: int
) -> None:
    (plain,) = predicted(client, "/v1/endpoints/rides/predict", {"row": ROW})["predictions"]
    columns = {name: [value] * rows for name, value in ROW.items()}
    nested = {name: [[value]] * rows for name, value in ROW.items()}
    for instances in ([ROW] * rows, [VALUES] * rows, [{name: [value] for name, value in ROW.items()}] * rows):
        assert predicted(client, path, {"instances": instances}) == {"predictions": [plain] * rows}
    for inputs in (columns, nested, [VALUES] * rows):
        body = {"inputs": inputs, "signature_name": "serving_default"}
        assert predicted(client, path, body) == {"outputs": [plain] * rows}


def test_texts_may_be_sent_as_base64(client: httpx.Client) -> None:
    row = {**ROW, "season": {"b64": "d2ludGVy"}}
    assert predicted(client, f"{MODEL}:predict", {"instances": [row]}) == predicted(
        client, f"{MODEL}:predict", {"instances": [ROW]}
    )


def test_the_answers_header_names_the_prediction_in_feedback(client: httpx.Client) -> None:
    found = client.post(f"{MODEL}:predict", json={"instances": [ROW]})
    told = {"id": found.headers["trimtab-prediction-id"], "label": 1.0}
    assert client.post("/v1/endpoints/rides/feedback", json=told).status_code == 202


def test_readiness_is_told_to_kserve_and_to_tensorflow_servings_clients(client: httpx.Client) -> None:
    assert client.get("/").json() == {"status": "alive"}
    assert client.get("/v1/models").json() == {"models": ["rides"]}
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ready = {"name": "rides", "ready": True, "model_version_status": [status]}
    for path in (MODEL, f"{MODEL}/versions/1", f"{MODEL}/labels/stable"):
        assert client.get(path).json() == ready


def test_metadata_are_a_signature_of_tensorflow(client: httpx.Client) -> None:
    found = client.get(f"{MODEL}/metadata").json()
    assert found == client.get(f"{MODEL}/versions/1/metadata").json()
    assert found["model_spec"] == {"name": "rides", "signature_name": "", "version": "1"}
    definition = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    types = {name: tensor["dtype"] for name, tensor in definition["inputs"].items()}
    assert types == {"x": "DT_DOUBLE", "season": "DT_STRING", "holiday": "DT_BOOL"}
    assert definition["outputs"]["prediction"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "one of 'instances' (rows) and 'inputs' (columns)"),
        ({"instances": [ROW], "inputs": [ROW]}, "one of 'instances'"),
        ({"instances": [ROW], "signature_name": "other"}, "no signature 'other'"),
        ({"instances": ROW}, "no list of rows"),
        ({"instances": []}, "no rows"),
        ({"instances": [[1.0]]}, "has 1 values, and there are 3 columns"),
        ({"instances": [{**ROW, "y": 1}]}, "no input column 'y'"),
        ({"instances": [{**ROW, "x": "1"}]}, "not a finite number"),
        ({"instances": [{**ROW, "x": None}]}, "missing in row 0"),
        ({"inputs": {"x": [1.0]}}, "'season' is missing"),
        ([], "object"),
    ],
)
def test_what_cannot_be_used_is_a_bad_request_that_says_why(
    client: httpx.Client, body: Any, words: str
) -> None:
    found = client.post(f"{MODEL}:predict", json=body)
    assert found.status_code == 400
    assert found.json().keys() == {"error"}
    assert words in found.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/ride:predict", 404),
        ("POST", f"{MODEL}/versions/2:predict", 404),
        ("POST", f"{MODEL}/labels/canary:predict", 404),
        ("POST", f"{MODEL}:explain", 404),
        ("GET", f"{MODEL}/versions", 404),
        ("GET", f"{MODEL}:predict", 405),
        ("POST", MODEL, 405),
        ("GET", "/v1/models/ride", 404),
    ],
)
def test_other_addresses_are_answered_in_the_protocols_words(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    found = client.request(method, path, json={"instances": [ROW]} if method == "POST" else None)
    assert found.status_code == status
    assert found.json().keys() == {"error"}


def test_labels_are_the_roles_of_the_versions_on_the_route(served: Served) -> None:
    arms = (
        Arm(1, served.digests[1], "primary", 90.0),
        Arm(2, served.digests[2], "challenger", 10.0),
    )
    served.route(Route(model="rides-model", arms=arms))
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        for label, version in (("champion", 1), ("primary", 1), ("canary", 2), ("challenger", 2)):
            found = client.post(f"{MODEL}/labels/{label}:predict", json={"instances": [ROW]})
            assert found.headers["trimtab-model-version"] == str(version)
            assert version_of(found.json()["predictions"][0]) == version
        states = client.get(MODEL).json()["model_version_status"]
        assert [state["version"] for state in states] == ["2", "1"]
        keyed = [
            client.post(f"{MODEL}:predict", json={"instances": [ROW]}, headers={"trimtab-key": "one"})
            for _ in range(5)
        ]
        assert len({answer.headers["trimtab-model-version"] for answer in keyed}) == 1


def test_an_endpoint_that_cannot_be_served_is_told_to_be_so(served: Served) -> None:
    served.route(single("rides-model", 9, "b3:" + "0" * 64))
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        found = client.get(MODEL)
        assert (found.status_code, found.json()["ready"]) == (503, False)
        assert "Version 9" in found.json()["error"]
        for path, body, key in (
            (f"{MODEL}:predict", {"instances": [ROW]}, "error"),
            ("/invocations", {"instances": [ROW]}, "error_code"),
        ):
            found = client.post(path, json=body)
            assert found.status_code == 503
            assert key in found.json()
            assert found.headers["retry-after"]
        assert client.get("/v1/models").json() == {"models": []}
        assert client.get("/openapi.json").json()["paths"] == {}
        assert client.get("/v1/endpoints/rides/docs").status_code == 503
