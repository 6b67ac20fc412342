"""The plain protocol: JSON by column names.

    POST /v1/endpoints/NAME/predict    {"row": {...}} | {"rows": [{...}, ...]} | {"columns": {"a": [...]}}
                                       and, if wanted, "key" or "keys", and "request_id"
    POST /v1/endpoints/NAME/feedback   {"id": ..., "label": ...} | {"key": ..., "at": ..., "label": ...},
                                       or a list of these
    GET  /v1/endpoints                 the endpoints
    GET  /v1/endpoints/NAME            one of them: its route, and the columns that it takes
    GET  /v1/endpoints/NAME/openapi.json   its OpenAPI document
    GET  /v1/endpoints/NAME/docs       the same as a page for people

Errors are {"error": {"code", "message"}}.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError, TrimtabError
from trimtab.serving.frames import Label, LabelFrame
from trimtab.serving.http_messages import Response
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.number_bodies import Matrix, number_bodies_for
from trimtab.serving.openapi import document_of, page_of
from trimtab.serving.prediction_ids import row_ids
from trimtab.serving.questions import Question
from trimtab.serving.requests import (
    Request,
    allow,
    checked_key,
    checked_label,
    decoded,
    json_answer,
    microseconds,
    to_json,
)
from trimtab.store.types import from_microseconds

Row = dict[str, Any]


class PredictRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `predict`."""

    row: Row | None = None
    rows: list[Row] | None = None
    columns: dict[str, list[Any]] | None = None
    key: str | int | None = None
    keys: list[str | int | None] | None = None
    request_id: str | int | None = None


class PredictResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of `predict`: for each row a prediction and the id that feedback names.

    `at` is the event time, by which feedback with a key names it. `version` answered; where keys were dealt
    to several, it is None and `versions` has one for each row.
    """

    predictions: list[float]
    ids: list[str]
    version: str | None
    endpoint: str
    at: datetime
    request_id: str | None = None
    versions: list[str] | None = None


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was learned about one prediction, named by its id, or by its key and event time. Without a time it
    is about the key's newest prediction by then."""

    label: Label
    id: str | None = None
    key: str | int | None = None
    at: str | None = None


_predict_request = msgspec.json.Decoder(PredictRequest).decode
_feedback = msgspec.json.Decoder(Feedback | list[Feedback]).decode


async def respond(request: Request) -> Response:
    """Answer a request below /v1/endpoints; raises TrimtabError."""
    match request.parts[2:]:
        case []:
            allow(request, "GET")
            table = request.view.table
            found = [_described(table.endpoints[name]) for name in sorted(table.endpoints)]
            return json_answer({"endpoints": found, "failures": dict(table.failures)})
        case [name]:
            allow(request, "GET")
            return json_answer(_described(request.view.table.get(name)))
        case [name, "predict"]:
            allow(request, "POST")
            return await _predict(request, name)
        case [name, "feedback"]:
            allow(request, "POST")
            return _learn(request, name)
        case [name, "openapi.json"]:
            allow(request, "GET")
            return document_of(request.view.table.get(name))
        case [name, "docs"]:
            allow(request, "GET")
            return page_of(request.view.table.get(name), request.headers.get("host") or "127.0.0.1:8601")
    raise NotFoundError(
        f"There is nothing at /{'/'.join(request.parts)}.",
        hint="An endpoint has /predict and /feedback.",
    )


def failure(error: TrimtabError) -> bytes:
    """The body that tells an error."""
    return to_json({"error": {"code": error.code, "message": str(error)}})


async def _predict(request: Request, name: str) -> Response:
    endpoint = request.view.table.get(name)
    asked, matrix = _asked(request.body, endpoint)
    columns = {} if matrix is not None else _columns(asked)
    keys = None
    if asked.keys is not None:
        if asked.key is not None:
            raise InvalidInputError("Both 'key' and 'keys' are given.", hint="Give one of them.")
        keys = [checked_key(key) for key in asked.keys]
        tables = [[None]] if asked.row is not None else columns.values() if matrix is None else [matrix]
        for table in tables:
            if len(table) != len(keys):
                raise InvalidInputError(
                    f"There are {len(keys)} keys for {len(table)} rows.", hint="Give one for each row."
                )
    request_id = checked_key(asked.request_id)
    answer = await request.answering.answer(
        Question(
            endpoint=endpoint,
            columns=columns,
            row=asked.row,
            matrix=matrix,
            at=request.at,
            started=request.started,
            key=checked_key(asked.key) if asked.row is None or keys is None else keys[0],
            keys=keys if asked.row is None else None,
            request_id=request_id,
        )
    )
    versions = answer.versions
    same = versions.count(versions[0]) == len(versions)
    return json_answer(
        PredictResponse(
            predictions=answer.predictions,
            ids=row_ids(answer.id, len(versions)),
            version=str(versions[0]) if same else None,
            endpoint=name,
            at=from_microseconds(request.at),
            request_id=request_id,
            versions=None if same else [str(version) for version in versions],
        )
    )


def _asked(body: bytes, endpoint: LoadedEndpoint) -> tuple[PredictRequest, Matrix | None]:
    """The request, and its rows where they are many and nothing but numbers."""
    bodies = number_bodies_for(endpoint.predictors[endpoint.primary], body)
    if bodies is not None and (read := bodies.plain(body)) is not None:
        matrix = bodies.matrix(read.columns if read.rows is msgspec.UNSET else read.rows)
        if matrix is not None:
            return PredictRequest(key=read.key, keys=read.keys, request_id=read.request_id), matrix
    return decoded(_predict_request, body), None


def _columns(asked: PredictRequest) -> dict[str, list[Any]]:
    """The columns of a request for several rows; of one row, none."""
    if (asked.row is not None) + (asked.rows is not None) + (asked.columns is not None) != 1:
        raise InvalidInputError(
            "A request has one of 'row', 'rows' and 'columns'.",
            hint='For example {"row": {"COLUMN": VALUE}}.',
        )
    if asked.row is not None:
        return {}
    if asked.columns is not None:
        if not any(asked.columns.values()):
            raise InvalidInputError("The request has no rows.", hint="Send at least one.")
        return asked.columns
    assert asked.rows is not None
    if not asked.rows:
        raise InvalidInputError("The request has no rows.", hint="Send at least one.")
    names = dict.fromkeys(name for row in asked.rows for name in row)
    return {name: [row.get(name) for row in asked.rows] for name in names}


def _learn(request: Request, name: str) -> Response:
    request.view.table.get(name)
    given = decoded(_feedback, request.body)
    many = given if isinstance(given, list) else [given]
    if not many:
        raise InvalidInputError("There is no feedback in this request.", hint="Send at least one label.")
    request.log.learned([_label(request, name, each, place) for place, each in enumerate(many)])
    return json_answer({"accepted": len(many), "endpoint": name}, status=202)


def _label(request: Request, name: str, given: Feedback, place: int) -> LabelFrame:
    if given.id is not None:
        assert request.view.ids is not None
        if not request.view.ids.genuine(name, given.id):
            raise NotFoundError(
                f"The endpoint '{name}' made no prediction with the id '{given.id[:60]}' (item {place}).",
                hint="Send back an id as `predict` answered it, to the same endpoint.",
            )
        if given.key is not None or given.at is not None:
            raise InvalidInputError(
                f"Item {place} names its prediction twice.", hint="Give 'id', or 'key' and 'at'."
            )
        return LabelFrame(name, checked_label(given.label, place), request.at, id=given.id)
    if given.key is None:
        raise InvalidInputError(f"Item {place} names no prediction.", hint="Give 'id', or 'key' and 'at'.")
    at = None if given.at is None else microseconds(given.at, f"'at' of item {place}")
    return LabelFrame(
        name,
        checked_label(given.label, place),
        request.at,
        key=checked_key(given.key),
        at=at,
    )


def _described(endpoint: LoadedEndpoint) -> dict[str, object]:
    route = endpoint.route
    return {
        "name": endpoint.name,
        "model": route.model,
        "generation": route.generation,
        "arms": [
            {"version": str(arm.version), "role": arm.role, "share": arm.share, "digest": arm.digest}
            for arm in route.arms
        ],
        "columns": endpoint.predictors[endpoint.primary].signature.columns,
        "target": endpoint.predictors[endpoint.primary].target,
    }
