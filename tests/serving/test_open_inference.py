from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.serving.tiny_models import ROW, version_of

INFER = "/v2/models/rides/infer"


def tensors(rows: int = 1, **changes: dict[str, Any]) -> dict[str, Any]:
    datatypes = {"x": "FP64", "season": "BYTES", "holiday": "BOOL"}
    made = [
        {
            "name": name,
            "shape": [rows],
            "datatype": datatypes[name],
            "data": [value] * rows,
            **changes.get(name, {}),
        }
        for name, value in ROW.items()
    ]
    return {"inputs": made}


def test_health_and_metadata_are_as_the_protocol_says(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "trimtab"
    assert client.get("/v2/models/rides/ready").json() == {"name": "rides", "ready": True}
    assert client.get("/v2/models/rides/versions/1/ready").status_code == 200
    found = client.get("/v2/models/rides").json()
    assert found == client.get("/v2/models/rides/versions/1").json()
    assert found["versions"] == ["1"]
    assert found["platform"] == "trimtab_lightgbm"
    assert found["inputs"] == [
        {"name": "x", "datatype": "FP64", "shape": [-1]},
        {"name": "season", "datatype": "BYTES", "shape": [-1]},
        {"name": "holiday", "datatype": "BOOL", "shape": [-1]},
    ]
    assert found["outputs"] == [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("path", [INFER, "/v2/models/rides/versions/1/infer"])
def test_columns_as_tensors_are_answered_with_an_id_for_feedback(
    client: httpx.Client, path: str, rows: int
) -> None:
    request = {**tensors(rows), "id": "mine", "parameters": {"key": "k"}, "outputs": [{"name": "prediction"}]}
    found = client.post(path, json=request).json()
    assert (found["model_name"], found["model_version"], found["id"]) == ("rides", "1", "mine")
    (output,) = found["outputs"]
    assert (output["shape"], output["datatype"]) == ([rows], "FP64")
    plain = client.post("/v1/endpoints/rides/predict", json={"row": ROW}).json()
    assert output["data"] == plain["predictions"] * rows
    assert version_of(output["data"][0]) == 1
    id = found["parameters"]["prediction_id"] + (".2" if rows == 3 else "")
    assert client.post("/v1/endpoints/rides/feedback", json={"id": id, "label": 1}).status_code == 202


def test_a_column_may_be_shaped_as_a_matrix_of_one_column(client: httpx.Client) -> None:
    request = tensors(2, x={"shape": [2, 1], "data": [[1.0], [2.0]]}, holiday={"shape": [2, 1]})
    assert client.post(INFER, json=request).status_code == 200


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"inputs": []}, "no input tensors"),
        ({}, "inputs"),
        (tensors(x={"shape": [2]}), "2"),
        (tensors(x={"shape": [-1]}), "negative"),
        (tensors(x={"shape": [10**30]}), "shape"),
        (tensors(x={"shape": [1, 1, 1]}), "shape"),
        (tensors(x={"shape": [1, 1], "data": [[1.0, 2.0]]}), "nested"),
        (tensors(x={"datatype": "FP128"}), "FP128"),
        (tensors(x={"data": ["one"]}), "Expected `float"),
        (tensors(x={"name": "y"}), "'x'"),
        ({"inputs": tensors()["inputs"] * 2}, "twice"),
        ({**tensors(), "outputs": [{"name": "other"}]}, "no output 'other'"),
        ({**tensors(), "parameters": {"key": 1.5}}, "key"),
        ({"inputs": [{"name": "all", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}, "no number"),
    ],
)
def test_what_the_model_cannot_take_is_refused_in_the_protocols_own_shape(
    client: httpx.Client, request_: object, words: str
) -> None:
    response = client.post(INFER, json=request_)
    assert response.status_code == 422, response.text
    assert set(response.json()) == {"error"}
    assert words in response.json()["error"]


def test_unknown_models_and_versions_and_methods_are_told(client: httpx.Client) -> None:
    assert "Did you mean 'rides'" in client.get("/v2/models/ride").json()["error"]
    for path in ("/v2/models/ride/infer", "/v2/models/rides/versions/9/infer"):
        assert client.post(path, json=tensors()).status_code == 404
    assert client.get("/v2/models/rides/versions/9/ready").status_code == 404
    assert client.get(INFER).status_code == 405
    assert client.get("/v2/nothing").status_code == 404
    assert client.post(INFER, content=b"{").status_code == 400
