from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.serving.conftest import Served
from tests.serving.running_gateway import RunningGateway, until
from tests.serving.tiny_models import ROW, version_of

from trimtab.serving.routes import single
from trimtab.workspace import Workspace

PATH = "/invocations"
NAMES = list(ROW)
VALUES = list(ROW.values())
JSON = {"content-type": "application/json"}


def frame(**changes: Any) -> dict[str, Any]:
    row = {**ROW, **changes}
    return {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}


@pytest.fixture(scope="module")
def plain(gateway: RunningGateway) -> float:
    """What the plain protocol answers to the row."""
    with gateway.client() as client:
        (found,) = client.post("/v1/endpoints/rides/predict", json={"row": ROW}).json()["predictions"]
    return float(found)


@pytest.mark.parametrize(
    "path", [PATH, "/endpoints/rides/invocations", "/serving-endpoints/rides/invocations"]
)
@pytest.mark.parametrize("rows", [1, 3])
def test_every_format_is_answered_as_the_plain_protocol_answers(
    client: httpx.Client, plain: float, path: str, rows: int
) -> None:
    index = list(range(rows))
    for body in (
        {"dataframe_split": {"index": index, "columns": NAMES, "data": [VALUES] * rows}},
        {"dataframe_split": {"columns": NAMES[::-1], "data": [VALUES[::-1]] * rows}},
        {"dataframe_split": {"data": [VALUES] * rows}},
        {"dataframe_records": [ROW] * rows, "params": {"temperature": 1}},
        {"instances": [ROW] * rows},
        {"instances": [VALUES] * rows},
        {"inputs": {name: [value] * rows for name, value in ROW.items()}},
        {"inputs": [ROW] * rows},
    ):
        found = client.post(path, json=body)
        assert found.json() == {"predictions": [plain] * rows}, body
        assert found.headers["content-type"] == "application/json"
    one = client.post(path, json={"inputs": ROW})
    assert one.json() == {"predictions": [plain]}


@pytest.mark.parametrize("kind", ["text/csv", "application/csv", "Text/CSV; charset=UTF-8; header=present"])
def test_csv_is_taken_with_a_header(client: httpx.Client, plain: float, kind: str) -> None:
    text = "holiday,season,x\nFalse,winter,1.0\nfalse,winter,1\n"
    found = client.post(PATH, content=text, headers={"content-type": kind})
    assert found.json() == {"predictions": [plain] * 2}


@pytest.mark.parametrize("accept", ["text/csv", "text/csv;q=0.9, */*", "Application/CSV"])
def test_who_accepts_csv_is_answered_with_a_prediction_a_line(
    client: httpx.Client, plain: float, accept: str
) -> None:
    found = client.post(PATH, json={"instances": [ROW] * 2}, headers={"accept": accept})
    assert found.headers["content-type"].startswith("text/csv")
    assert found.headers["trimtab-prediction-id"]
    assert found.text == f"{plain!r}\n" * 2
    wrong = client.post(PATH, json={"instances": 5}, headers={"accept": accept})
    assert wrong.json()["error_code"] == "BAD_REQUEST"


@pytest.mark.parametrize("accept", ["*/*", "application/json, text/csv", "", ";", "text/plain"])
def test_everybody_else_is_answered_with_json(client: httpx.Client, plain: float, accept: str) -> None:
    found = client.post(PATH, json={"instances": [ROW]}, headers={"accept": accept})
    assert found.json() == {"predictions": [plain]}


def test_a_large_body_is_answered_in_its_order(client: httpx.Client) -> None:
    rows = 20_000
    lines = [f"{row % 11}.25,{('winter', 'summer')[row % 2]},{row % 3 == 0}" for row in range(rows)]
    text = "x,season,holiday\n" + "\n".join(lines)
    by_csv = client.post(PATH, content=text, headers={"content-type": "text/csv"})
    data = [[row % 11 + 0.25, ("winter", "summer")[row % 2], row % 3 == 0] for row in range(rows)]
    by_json = client.post(PATH, json={"dataframe_split": {"columns": NAMES, "data": data}})
    assert by_csv.json() == by_json.json()
    assert len(by_csv.json()["predictions"]) == rows
    assert by_csv.headers["trimtab-prediction-id"] != by_json.headers["trimtab-prediction-id"]


def test_csv_without_a_header_is_in_the_order_of_the_signature(client: httpx.Client, plain: float) -> None:
    found = client.post(PATH, content="1.0,winter,0\n", headers={"content-type": "text/csv; header=absent"})
    assert found.json() == {"predictions": [plain]}


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/json;"])
def test_json_is_taken_with_its_charset(client: httpx.Client, kind: str) -> None:
    assert client.post(PATH, content=httpx.Request("POST", "http://x", json=frame()).content,
                       headers={"content-type": kind}).status_code == 200  # fmt: skip


def test_values_are_cast_as_mlflow_casts_them_where_nothing_is_lost(
    client: httpx.Client, plain: float
) -> None:
    for changes in ({"x": 1}, {"x": "1.0"}, {"x": True}, {"holiday": 0}, {"holiday": "false"}):
        assert client.post(PATH, json=frame(**changes)).json() == {"predictions": [plain]}, changes


def test_the_answers_header_names_the_prediction_in_feedback(client: httpx.Client) -> None:
    for rows, behind in ((1, ""), (2, ".1")):
        found = client.post(PATH, json={"instances": [ROW] * rows})
        assert found.headers["trimtab-model-version"] == "1"
        told = {"id": found.headers["trimtab-prediction-id"] + behind, "label": 1.0}
        assert client.post("/v1/endpoints/rides/feedback", json=told).status_code == 202


def test_columns_beside_all_of_the_models_own_are_passed_over_and_named(
    client: httpx.Client, plain: float
) -> None:
    found = client.post(PATH, json=frame(id=7, größe=1))
    assert found.json() == {"predictions": [plain]}
    assert found.headers["trimtab-ignored-columns"] == "id,gr%C3%B6%C3%9Fe"


def code_of(found: httpx.Response) -> str:
    document = found.json()
    assert document.keys() == {"error_code", "message"}
    return str(document["error_code"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "none of the fields"),
        ({"data": []}, "none of the fields"),
        ([ROW], "object"),
        ({"instances": [ROW], "inputs": ROW}, "exactly one"),
        ({"dataframe_split": [ROW]}, "dataframe_split"),
        ({"dataframe_split": {"columns": NAMES}}, "data"),
        ({"dataframe_split": {"columns": NAMES, "data": []}}, "no rows"),
        ({"dataframe_split": {"columns": NAMES, "data": [VALUES, VALUES[1:]]}}, "Row 1 has 2 values"),
        ({"dataframe_split": {"columns": NAMES, "data": [VALUES], "rows": 1}}, "rows"),
        ({"dataframe_split": None}, "dataframe_split"),
        ({"dataframe_records": ROW}, "dataframe_records"),
        ({"dataframe_records": []}, "no rows"),
        ({"dataframe_records": [{}]}, "missing"),
        ({"instances": []}, "no rows"),
        ({"inputs": {}}, "no columns"),
        ({"inputs": {"x": [1.0], "season": ["winter"] * 2, "holiday": [True]}}, "has 2 values"),
        ({"dataframe_records": [{"x": 1.0, "season": "winter"}]}, "'holiday' is missing"),
        ({"dataframe_records": [{"x": 1.0, "season": "winter", "holidays": True}]}, "'holidays'"),
        (frame(x="warm"), "not a finite number"),
        (frame(x=None), "missing in row 0"),
        (frame(season=5), "not a text"),
        (frame(holiday=2), "not true or false"),
        (frame(holiday="perhaps"), "not true or false"),
    ],
)
def test_what_cannot_be_used_is_a_bad_request_that_says_why(
    client: httpx.Client, body: Any, words: str
) -> None:
    found = client.post(PATH, json=body)
    assert (found.status_code, code_of(found)) == (400, "BAD_REQUEST")
    assert words in found.json()["message"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("", "application/json", 400),
        ("{", "application/json", 400),
        ('{"instances": [{"x": Infinity, "season": "winter", "holiday": true}]}', "application/json", 400),
        ('{"instances": [{"x": NaN, "season": "\\ud800", "holiday": true}]}', "application/json", 400),
        ("[" * 100_000 + "NaN", "application/json", 400),
        ("x,season,holiday\n1\n", "text/csv", 400),
        ("x,season,holiday\n1,winter,maybe\n", "text/csv", 400),
        ("x,season,holiday\n,winter,true\n", "text/csv", 400),
        ("", "text/csv", 400),
        ("{}", "application/json; charset=latin-1", 415),
        ("{}", "application/json; encoding=none", 415),
        ("PAR1", "application/vnd.apache.parquet", 415),
    ],
)
def test_bodies_that_cannot_be_read_are_refused(
    client: httpx.Client, content: str, kind: str, status: int
) -> None:
    found = client.post(PATH, content=content, headers={"content-type": kind})
    assert (found.status_code, code_of(found)) == (status, "BAD_REQUEST")
    assert client.post(PATH, content=b"\xff\xfe", headers={"content-type": "text/csv"}).status_code == 400


def test_a_missing_value_may_be_null_or_nan_where_the_model_allows_it(served: Served) -> None:
    served.single(3)
    texts = [
        '{"instances": [{"x": 1.0, "season": "winter", "holiday": false, "leak": VALUE}]}'.replace(
            "VALUE", value
        )
        for value in ("null", "NaN", '"nan"')
    ]
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        answers = [client.post(PATH, content=text, headers=JSON) for text in texts]
        answers.append(client.post(PATH, json=frame()))
        for cell in ("", "NA", "null"):
            text = f"x,season,holiday,leak\n1.0,winter,false,{cell}\n"
            answers.append(client.post(PATH, content=text, headers={"content-type": "text/csv"}))
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        assert len({answer.text for answer in answers}) == 1
        # A misspelt column that may be missing is not passed over: the answer would be another one.
        found = client.post(PATH, json=frame(leek=0.5))
        assert found.status_code == 400
        assert "'leak' is missing, and it has no input 'leek'" in found.json()["message"]


def test_health_and_version_are_where_mlflow_has_them(client: httpx.Client) -> None:
    assert client.get("/ping").status_code == 200
    assert client.get("/version").text.count(".") >= 1
    assert client.get(PATH).status_code == 405
    assert client.get("/endpoints").status_code == 404
    found = client.post("/endpoints/ride/invocations", json=frame())
    assert (found.status_code, code_of(found)) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "Did you mean 'rides'?" in found.json()["message"]


@pytest.fixture
def two_endpoints(served: Served) -> Iterator[httpx.Client]:
    """A gateway with the endpoints `rides` (version 1) and `walks` (version 2)."""

    def work(tx: Any) -> None:
        served.endpoints.create(tx, "walks", "walks-model")
        served.endpoints.set_route(tx, "walks", single("walks-model", 2, served.digests[2]))

    served.workspace.write(work)
    with RunningGateway(served.project) as running, running.until_ready().client() as client:
        until(lambda: len(client.get("/v1/endpoints").json()["endpoints"]) == 2)
        yield client


def test_among_several_endpoints_the_bare_address_is_refused(two_endpoints: httpx.Client) -> None:
    found = two_endpoints.post(PATH, json=frame())
    assert (found.status_code, code_of(found)) == (400, "BAD_REQUEST")
    assert "/endpoints/walks/invocations" in found.json()["message"]
    for name, version in (("rides", 1), ("walks", 2)):
        (answer,) = two_endpoints.post(f"/endpoints/{name}/invocations", json=frame()).json()["predictions"]
        assert version_of(answer) == version


def test_a_gateway_without_endpoints_says_so(tmp_path: Any) -> None:
    with Workspace.create(tmp_path / "project", actor="tester") as workspace:
        project = workspace.project
    with RunningGateway(project) as running, running.until_ready().client() as client:
        found = client.post(PATH, json=frame())
        assert (found.status_code, code_of(found)) == (404, "RESOURCE_DOES_NOT_EXIST")
