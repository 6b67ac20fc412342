"""TensorFlow Serving's REST API and KServe's protocol, version 1: the same addresses, one of them answered
differently by the two.

    GET  /                                                that the gateway is alive, as KServe asks it
    GET  /v1/models                                       the endpoints, as KServe lists them
    GET  /v1/models/NAME                                  whether it is ready, and its versions
    GET  /v1/models/NAME/metadata                         its columns as TensorFlow's signature
    POST /v1/models/NAME:predict                          predictions
    GET  /v1/models/NAME/versions/N                       (also /metadata, :predict) one version on the route
    GET  /v1/models/NAME/labels/LABEL                     (also /metadata, :predict) one version by its role

Of GET /v1/models/NAME, KServe's clients read "name" and "ready", TensorFlow Serving's "model_version_status";
the answer has all three, and each finds what it knows. Where an endpoint cannot be served it is 503, and
"ready" is false.

A gateway knows the roles of the versions on a route, not the registry's aliases: the labels are `primary`,
`challenger` and `shadow`, with `champion` and `stable` for the first and `canary` for the second. Without
version and label the route decides who answers, and the header Trimtab-Key keeps a caller with one version.

`instances` are rows (by name; as lists in the signature's order; single values for a model of one column)
and are answered as `predictions`; `inputs` are columns (by name; or what `instances` takes) and are answered
as `outputs`. There is one output, so each is a list of numbers. The header Trimtab-Prediction-Id names the
answer in feedback. Unlike TensorFlow Serving, a column that the model allows to be missing may be left out
or null.
Errors are {"error": "..."}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError, TrimtabError, UnavailableError, unknown
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.signature import Column
from trimtab.serving.body_formats import Table, from_inputs, from_instances
from trimtab.serving.http_messages import Response
from trimtab.serving.invocations import KEY, answer_headers
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.number_bodies import Matrix, number_bodies_for
from trimtab.serving.questions import OUTPUT, Question
from trimtab.serving.requests import Request, allow, checked_key, decoded, json_answer, to_json

SIGNATURE = "serving_default"
METHOD = "tensorflow/serving/predict"

_SIGNATURES = frozenset({None, "", SIGNATURE})
_ROLES = {"champion": "primary", "stable": "primary", "canary": "challenger"}
_DATATYPES = {"number": "DT_DOUBLE", "boolean": "DT_BOOL", "text": "DT_STRING"}


class PredictBody(msgspec.Struct, frozen=True):
    """The body of `:predict`. Other fields are ignored, as TensorFlow Serving does."""

    instances: Any = msgspec.UNSET
    inputs: Any = msgspec.UNSET
    signature_name: str | None = None


class RowAnswer(msgspec.Struct, frozen=True):
    """The answer to `instances`."""

    predictions: list[Any]


class ColumnAnswer(msgspec.Struct, frozen=True):
    """The answer to `inputs`."""

    outputs: list[Any]


_predict_body = msgspec.json.Decoder(PredictBody).decode


async def respond(request: Request) -> Response:
    """Answer a request below /v1/models; raises TrimtabError."""
    *parts, last = request.parts[2:] or [""]
    last, _, verb = last.partition(":")
    match [*parts, last]:
        case [""]:
            allow(request, "GET")
            return json_answer({"models": sorted(request.view.table.endpoints)})
        case [name]:
            return await _about(request, name, None, None, verb)
        case [name, "metadata"]:
            return await _about(request, name, None, None, verb or "metadata")
        case [name, "versions", number]:
            return await _about(request, name, number, None, verb)
        case [name, "versions", number, "metadata"]:
            return await _about(request, name, number, None, verb or "metadata")
        case [name, "labels", label]:
            return await _about(request, name, None, label, verb)
        case [name, "labels", label, "metadata"]:
            return await _about(request, name, None, label, verb or "metadata")
    raise _nowhere(request)


def failure(error: TrimtabError) -> bytes:
    """The body that tells an error."""
    return to_json({"error": str(error)})


async def _about(request: Request, name: str, version: str | None, label: str | None, verb: str) -> Response:
    if verb not in {"", "metadata", "predict"}:
        raise _nowhere(request)
    allow(request, "POST" if verb == "predict" else "GET")
    try:
        endpoint = request.view.table.get(name)
    except UnavailableError as error:
        if verb:
            raise
        return json_answer({"name": name, "ready": False, "error": str(error)}, status=503)
    if label is not None:
        version = _labelled(endpoint, label)
    if verb == "predict":
        return await _predict(request, endpoint, version)
    place = endpoint.place_of(version)
    if verb == "metadata":
        return json_answer(_metadata(endpoint, place))
    places = range(len(endpoint.versions)) if version is None else [place]
    return json_answer({"name": name, "ready": True, "model_version_status": _statuses(endpoint, places)})


def _nowhere(request: Request) -> NotFoundError:
    return NotFoundError(
        f"There is nothing at /{'/'.join(request.parts):.200}.",
        hint="A model has :predict and /metadata; its versions stand below /versions/N and /labels/LABEL.",
    )


def _labelled(endpoint: LoadedEndpoint, label: str) -> str:
    """The version of that role; raises NotFoundError, InvalidInputError if there are several."""
    role = _ROLES.get(label, label)
    found = [arm.version for arm in endpoint.route.arms if arm.role == role]
    if not found:
        raise unknown(
            f"version of '{endpoint.name}' labelled", label, {arm.role for arm in endpoint.route.arms}
        )
    if len(found) > 1:
        raise InvalidInputError(
            f"'{endpoint.name}' has several versions labelled '{label}': {', '.join(map(str, found))}.",
            hint=f"Name one: /v1/models/{endpoint.name}/versions/{found[0]}.",
        )
    return str(found[0])


async def _predict(request: Request, endpoint: LoadedEndpoint, version: str | None) -> Response:
    try:
        place = endpoint.place_of(version)
        columns: Table = {}
        by_row, matrix = _numbers(request.body, endpoint.predictors[place])
        if matrix is None:
            asked = decoded(_predict_body, request.body)
            by_row = asked.instances is not msgspec.UNSET
            columns = _table(asked, endpoint.predictors[place].signature.names)
        answer = await request.answering.answer(
            Question(
                endpoint=endpoint,
                columns=columns,
                matrix=matrix,
                at=request.at,
                started=request.started,
                key=checked_key(request.headers.get(KEY)),
                version=version,
            )
        )
    except InvalidInputError as error:
        # TensorFlow Serving knows a request that cannot be used as a bad one (400), not as unprocessable.
        return Response(400 if error.http_status == 422 else error.http_status, failure(error))
    body = RowAnswer(answer.predictions) if by_row else ColumnAnswer(answer.predictions)
    return json_answer(body, answer_headers(answer))


def _numbers(body: bytes, predictor: Predictor) -> tuple[bool, Matrix | None]:
    """The rows of a body that has many, and nothing but numbers, and whether they came by row; else None."""
    bodies = number_bodies_for(predictor, body)
    read = None if bodies is None else bodies.tensorflow(body)
    if bodies is None or read is None or read.signature_name not in _SIGNATURES:
        return False, None
    by_row = read.instances is not msgspec.UNSET
    if by_row and not isinstance(read.instances, list):
        return False, None
    return by_row, bodies.matrix(read.instances if by_row else read.inputs)


def _table(asked: PredictBody, names: list[str]) -> Table:
    if asked.signature_name not in _SIGNATURES:
        raise InvalidInputError(
            f"There is no signature '{asked.signature_name:.60}'.", hint=f"There is '{SIGNATURE}'."
        )
    if (asked.instances is msgspec.UNSET) == (asked.inputs is msgspec.UNSET):
        raise InvalidInputError("A request has one of 'instances' (rows) and 'inputs' (columns).")
    if asked.inputs is msgspec.UNSET:
        if not isinstance(asked.instances, list):
            raise InvalidInputError("'instances' is no list of rows.", hint="Columns are sent as 'inputs'.")
        return from_instances(asked.instances, names)
    return from_inputs(asked.inputs, names)


def _statuses(endpoint: LoadedEndpoint, places: Iterable[int]) -> list[dict[str, Any]]:
    # Numbers as texts, since that is how protocol buffers write 64-bit numbers as JSON; the newest first.
    return [
        {
            "version": str(endpoint.versions[place]),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        for place in sorted(places, key=lambda place: -endpoint.versions[place])
    ]


def _metadata(endpoint: LoadedEndpoint, place: int) -> dict[str, Any]:
    signature = endpoint.predictors[place].signature
    definition = {
        "inputs": {column.name: _tensor(column.name, _datatype(column)) for column in signature.columns},
        "outputs": {OUTPUT: _tensor(OUTPUT, "DT_DOUBLE")},
        "method_name": METHOD,
    }
    return {
        "model_spec": {
            "name": endpoint.name,
            "signature_name": "",
            "version": str(endpoint.versions[place]),
        },
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: definition}}},
    }


def _tensor(name: str, datatype: str) -> dict[str, Any]:
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    return {"dtype": datatype, "tensor_shape": shape, "name": f"{name}:0"}


def _datatype(column: Column) -> str:
    if column.categories:
        return "DT_STRING" if isinstance(column.categories[0], str) else "DT_INT64"
    return _DATATYPES[column.kind]
