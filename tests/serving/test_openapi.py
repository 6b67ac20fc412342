from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance
from tests.serving.running_gateway import RunningGateway
from tests.serving.tiny_models import ROW, write_model

from trimtab.models.runtimes.predictor import load_predictor
from trimtab.models.signature import Column, Signature
from trimtab.serving.endpoint_page import endpoint_page
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.openapi import column_schema, document, row_schema
from trimtab.serving.routes import single

DIGEST = "b3:" + "0" * 64


def endpoint(folder: Path, name: str = "rides", *, extra: str | None = None) -> LoadedEndpoint:
    write_model(folder, 1, extra=extra)
    return LoadedEndpoint(name, single("rides-model", 1, DIGEST), (load_predictor(folder),))


def test_the_document_is_openapi_and_the_gateway_is_as_it_says(gateway: RunningGateway) -> None:
    """Whatever schemathesis makes of the document, each answer is one that the document tells of."""
    with gateway.client() as client:
        found = client.get("/v1/endpoints/rides/openapi.json").json()
        assert client.get("/openapi.json").json()["paths"] == found["paths"]
    schema = schemathesis.openapi.from_dict(found)
    schema.validate()
    schema.config.update(base_url=gateway.url)
    tried = 0
    for operation in schema.get_all_operations():
        assert isinstance(operation, Ok)
        check_operation(operation.ok(), gateway)
        tried += 1
    assert tried == 4


def check_operation(operation: Any, gateway: RunningGateway) -> None:
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy())
    def every_answer_is_told_of(case: Any) -> None:
        answer = case.call()
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=[response_schema_conformance])

    every_answer_is_told_of()


def test_examples_are_accepted_as_they_stand(client: httpx.Client) -> None:
    paths = client.get("/v1/endpoints/rides/openapi.json").json()["paths"]
    for path, operations in paths.items():
        example = operations["post"]["requestBody"]["content"]["application/json"]["example"]
        found = client.post(path, json=example)
        assert found.is_success, found.text


def test_a_row_is_valid_exactly_as_the_model_takes_it(tmp_path: Path) -> None:
    made = endpoint(tmp_path / "model", extra="leak")
    schema = row_schema(made.predictors[0].signature)
    valid = jsonschema_rs.validator_for(schema).is_valid
    assert valid(ROW)
    assert valid({**ROW, "leak": None})
    assert not valid({**ROW, "x": None})
    assert not valid({**ROW, "x": "1"})
    assert not valid({**ROW, "y": 1})
    assert not valid({"x": 1.0, "season": "winter"})


@given(st.lists(st.integers(), min_size=1, unique=True), st.booleans())
def test_categories_are_told_as_examples_of_their_type(categories: list[int], nullable: bool) -> None:
    schema = column_schema(Column("c", "category", nullable, tuple(categories)))
    valid = jsonschema_rs.validator_for(schema).is_valid
    assert valid(categories[0])
    assert valid(None) == nullable
    assert not valid("1")
    assert schema["examples"] == categories[:50]


def test_of_a_closed_column_only_the_categories_are_valid() -> None:
    schema = column_schema(Column("c", "category", nullable=True, categories=("a", "b"), closed=True))
    valid = jsonschema_rs.validator_for(schema).is_valid
    assert [valid(value) for value in ("a", None, "c", 1)] == [True, True, False, False]


def test_several_endpoints_stand_in_one_document(tmp_path: Path) -> None:
    one, other = endpoint(tmp_path / "a", "a"), endpoint(tmp_path / "b", "b", extra="leak")
    found = document([other, one])
    assert found["info"]["title"] == "Endpoints"
    assert next(iter(found["paths"])) == "/v1/endpoints/a/predict"
    assert "leak" not in found["components"]["schemas"]["Row0"]["properties"]
    assert "leak" in found["components"]["schemas"]["Row1"]["properties"]
    operations = [each["post"]["operationId"] for each in found["paths"].values()]
    assert len(set(operations)) == len(operations)


class Page(HTMLParser):
    """What a page says and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_stands_alone_and_shows_columns_and_calls(client: httpx.Client) -> None:
    found = client.get("/v1/endpoints/rides/docs")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(found.text)
    assert (page.open, page.loads) == ([], ["openapi.json"])
    text = " ".join(page.words)
    for words in ("season", "category of texts", "summer, winter", "curl -s", str(client.base_url)):
        assert words in text
    assert client.get("/v1/endpoints/ride/docs").status_code == 404
    assert client.post("/v1/endpoints/rides/docs").status_code == 405


def test_nothing_that_a_page_repeats_becomes_part_of_it(tmp_path: Path) -> None:
    made = endpoint(tmp_path / "model")
    signature = Signature((Column("<script>", "category", categories=("'</td>", "b")),))
    predictor = made.predictors[0]
    object.__setattr__(predictor, "specification", _with(predictor.specification, signature))
    predictor.example = {"<script>": ["'</td>"]}
    page = Page(endpoint_page(made, "h'<b>"))
    assert (page.open, page.loads) == ([], ["openapi.json"])
    shown = next(word for word in page.words if word.startswith("curl"))
    assert json.dumps({"row": {"<script>": "'</td>"}}).replace("'", "'\"'\"'") in shown


def _with(specification: Any, signature: Signature) -> Any:
    return msgspec.structs.replace(specification, signature=signature)
