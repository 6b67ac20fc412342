"""OpenAPI documents of endpoints, made from their signatures.

    GET /openapi.json                      all endpoints of this gateway
    GET /v1/endpoints/NAME/openapi.json    one endpoint
    GET /v1/endpoints/NAME/docs            the same for people, as one page

A document (OpenAPI 3.1) describes what the version that answers now takes, in every protocol but the Open
Inference one, which describes itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from trimtab.errors import NotFoundError
from trimtab.models.signature import Column, Signature
from trimtab.serving.endpoint_page import endpoint_page
from trimtab.serving.http_messages import Response
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.requests import Request, allow, json_answer, to_json

Document = dict[str, Any]

_number: Document = {"type": "number"}
_text: Document = {"type": "string"}
_TYPES = {"number": "number", "boolean": "boolean"}
_KEY = {"type": ["string", "integer"], "description": "What the prediction is about."}
_made: WeakKeyDictionary[LoadedEndpoint, bytes] = WeakKeyDictionary()


async def respond(request: Request) -> Response:
    """Answer a request to /openapi.json; raises TrimtabError."""
    if len(request.parts) != 1:
        raise NotFoundError(f"There is nothing at /{'/'.join(request.parts):.200}.")
    allow(request, "GET")
    return json_answer(document(request.view.table.endpoints.values()))


def document_of(endpoint: LoadedEndpoint) -> Response:
    """The document of one endpoint."""
    found = _made.get(endpoint)
    if found is None:
        found = _made[endpoint] = to_json(document([endpoint]))
    return Response(200, found)


def page_of(endpoint: LoadedEndpoint, host: str) -> Response:
    """The page about one endpoint, for people who reach this gateway at `host`."""
    return Response(200, endpoint_page(endpoint, host).encode(), content_type="text/html; charset=utf-8")


def document(endpoints: Iterable[LoadedEndpoint]) -> Document:
    """The OpenAPI document of these endpoints."""
    listed = sorted(endpoints, key=lambda endpoint: endpoint.name)
    title = f"The endpoint {listed[0].name}" if len(listed) == 1 else "Endpoints"
    schemas: Document = {
        "Error": _object(
            {"error": _object({"code": _text, "message": _text}, required=["code", "message"])},
            required=["error"],
        ),
        "ErrorMessage": _object({"error": _text}, required=["error"]),
        "MLflowError": _object({"error_code": _text, "message": _text}, required=["error_code", "message"]),
        "Predictions": _object(
            {
                "predictions": {"type": "array", "items": _prediction()},
                "ids": {"type": "array", "items": _text, "description": "What feedback names them by."},
                "version": {"type": ["string", "null"]},
                "endpoint": _text,
                "at": {"type": "string", "format": "date-time"},
                "request_id": _text,
                "versions": {"type": "array", "items": _text},
            },
            required=["predictions", "ids", "version", "endpoint", "at"],
        ),
        "Feedback": _feedback(),
    }
    paths: Document = {}
    for place, endpoint in enumerate(listed):
        row = f"Row{place}" if len(listed) > 1 else "Row"
        signature = endpoint.predictors[endpoint.primary].signature
        schemas[row] = row_schema(signature)
        paths |= _paths(endpoint, signature, row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": str(listed[0].versions[listed[0].primary]) if len(listed) == 1 else "1",
            "description": "Served by Trimtab. Made from the signatures of the models that answer.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def row_schema(signature: Signature) -> Document:
    """The JSON schema of one row."""
    return _object(
        {column.name: column_schema(column) for column in signature.columns},
        required=[column.name for column in signature.columns if not column.nullable],
        closed=True,
    )


def column_schema(column: Column) -> Document:
    """The JSON schema of one value. Of a column whose unknown values count as missing, the categories are
    told as examples and not as an enumeration."""
    made: Document = {"type": _TYPES.get(column.kind, "string")}
    if column.categories:
        made["type"] = "string" if isinstance(column.categories[0], str) else "integer"
        if column.closed:
            made["enum"] = [*column.categories, *((None,) if column.nullable else ())]
        else:
            made["description"] = "A value that is not one of the categories counts as missing."
            made["examples"] = list(column.categories[:50])
    if column.nullable:
        made["type"] = [made["type"], "null"]
    return made


def example_row(endpoint: LoadedEndpoint) -> dict[str, Any]:
    """One row that the version which answers now takes: the first of its own input example."""
    predictor = endpoint.predictors[endpoint.primary]
    example = predictor.example
    return {name: example[name][0] for name in predictor.signature.names if name in example}


class _Rows(msgspec.Struct, frozen=True):
    """The schemas of rows in the ways that protocols write them."""

    one: Document
    by_name: Document
    by_column: Document
    by_position: Document


def _rows(signature: Signature, row: str) -> _Rows:
    one = {"$ref": f"#/components/schemas/{row}"}
    return _Rows(
        one,
        by_name={"type": "array", "items": one, "minItems": 1},
        by_column=_object(
            {
                column.name: {"type": "array", "items": column_schema(column), "minItems": 1}
                for column in signature.columns
            },
            required=[column.name for column in signature.columns if not column.nullable],
        ),
        by_position={"type": "array", "items": {"type": "array"}, "minItems": 1},
    )


def _plain(rows: _Rows) -> Document:
    """The bodies of the plain protocol."""
    extras: Document = {
        "key": _KEY,
        "keys": {"type": "array", "items": {"type": ["string", "integer", "null"]}},
        "request_id": {"type": ["string", "integer"]},
    }
    ways = {"row": rows.one, "rows": rows.by_name, "columns": rows.by_column}
    return {
        "oneOf": [_object({name: way, **extras}, required=[name], closed=True) for name, way in ways.items()]
    }


def _of_tensorflow(rows: _Rows) -> list[Document]:
    """The bodies of TensorFlow Serving, which MLflow takes as well."""
    return [
        _object({"instances": {"anyOf": [rows.by_name, rows.by_position]}}, required=["instances"]),
        _object({"inputs": {"anyOf": [rows.by_column, rows.by_name, rows.by_position]}}, required=["inputs"]),
    ]


def _of_mlflow(rows: _Rows) -> Document:
    """The bodies of MLflow's scoring server."""
    split = _object(
        {
            "columns": {"type": "array", "items": _text},
            "index": {"type": "array"},
            "data": rows.by_position,
        },
        required=["data"],
        closed=True,
    )
    return {
        "oneOf": [
            _object({"dataframe_split": split}, required=["dataframe_split"]),
            _object({"dataframe_records": rows.by_name}, required=["dataframe_records"]),
            *_of_tensorflow(rows),
        ]
    }


def _paths(endpoint: LoadedEndpoint, signature: Signature, row: str) -> Document:
    name, example = endpoint.name, example_row(endpoint)
    rows = _rows(signature, row)
    return {
        f"/v1/endpoints/{name}/predict": _post(
            f"Predict {endpoint.predictors[endpoint.primary].target}.",
            f"{name}_predict",
            _plain(rows),
            {"row": example},
            {"$ref": "#/components/schemas/Predictions"},
            "Error",
        ),
        f"/v1/endpoints/{name}/feedback": _post(
            "Tell what came true.",
            f"{name}_feedback",
            {"$ref": "#/components/schemas/Feedback"},
            {"key": "some-key", "label": 1.0},
            _object({"accepted": {"type": "integer"}, "endpoint": _text}),
            "Error",
            status="202",
        ),
        f"/endpoints/{name}/invocations": _post(
            "Predict, as MLflow's scoring server does.",
            f"{name}_invocations",
            _of_mlflow(rows),
            {"dataframe_split": {"columns": list(example), "data": [list(example.values())]}},
            _object({"predictions": {"type": "array", "items": _prediction()}}, required=["predictions"]),
            "MLflowError",
            csv=",".join(signature.names),
        ),
        f"/v1/models/{name}:predict": _post(
            "Predict, as TensorFlow Serving and KServe do.",
            f"{name}_v1_predict",
            {"oneOf": _of_tensorflow(rows)},
            {"instances": [example]},
            _object(
                {
                    "predictions": {"type": "array", "items": _prediction()},
                    "outputs": {"type": "array", "items": _prediction()},
                }
            ),
            "ErrorMessage",
        ),
    }


def _post(
    summary: str,
    operation: str,
    body: Document,
    example: Document,
    answer: Document,
    error: str,
    *,
    status: str = "200",
    csv: str = "",
) -> Document:
    content: Document = {"application/json": {"schema": body, "example": example}}
    if csv:
        content["text/csv"] = {"schema": {"type": "string", "description": f"With the header {csv}"}}
    failed = {
        "description": "What was wrong, and what to do next.",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}},
    }
    return {
        "post": {
            "summary": summary,
            "operationId": operation,
            "requestBody": {"required": True, "content": content},
            "responses": {
                status: {
                    "description": "Done.",
                    "content": {"application/json": {"schema": answer}},
                },
                "4XX": failed,
                "5XX": failed,
            },
        }
    }


def _feedback() -> Document:
    label = {"type": ["number", "integer", "boolean", "string"]}
    one = {
        "oneOf": [
            _object({"id": _text, "label": label}, required=["id", "label"], closed=True),
            _object(
                {"key": _KEY, "at": {"type": "string", "format": "date-time"}, "label": label},
                required=["key", "label"],
                closed=True,
            ),
        ]
    }
    return {"oneOf": [*one["oneOf"], {"type": "array", "items": one, "minItems": 1}]}


def _prediction() -> Document:
    return {"type": ["number", "null"], "description": "Null where the model gave no number."}


def _object(
    properties: Mapping[str, Document], *, required: Iterable[str] = (), closed: bool = False
) -> Document:
    made: Document = {"type": "object", "properties": dict(properties)}
    if required := list(required):
        made["required"] = required
    if closed:
        made["additionalProperties"] = False
    return made
