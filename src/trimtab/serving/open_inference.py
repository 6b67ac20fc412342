"""The Open Inference Protocol, version 2, over REST: JSON, and the binary tensor extension.

    POST /v2/models/NAME/infer               predictions for tensors
    POST /v2/models/NAME/versions/N/infer    the same of one version on the route
    GET  /v2/models/NAME                     (also /versions/N) its tensors
    GET  /v2/models/NAME/ready               (also /versions/N/ready) whether it can be asked
    GET  /v2/models/NAME/config              (also /versions/N/config) the same in Triton's words
    GET  /v2                                 the server, and which extensions it serves
    POST /v2/repository/index                the versions on all routes, and what failed
    POST /v2/repository/models/NAME/load     try again what could not be fetched
    POST /v2/repository/models/NAME/unload   refused: routes decide which models are loaded
    GET  /v2/health/live                     200 while it runs
    GET  /v2/health/ready                    200 once it is ready to answer

The answer's parameter "prediction_id" names the prediction in feedback (with ".ROW" behind it where there are
several rows); a request's parameter "key" keeps a caller with one version, "timeout" says in microseconds how
long it waits. Errors are {"error": "..."}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError, TrimtabError, UnavailableError
from trimtab.serving.compression import packed
from trimtab.serving.http_messages import Response
from trimtab.serving.open_inference_binary import packed_numbers
from trimtab.serving.open_inference_models import (
    OUTPUT_DATATYPE,
    load,
    model_configuration,
    model_metadata,
    refuse_unload,
    repository_index,
    server_metadata,
)
from trimtab.serving.open_inference_requests import JSON_LENGTH, InferRequest, RequestedOutput, read_request
from trimtab.serving.open_inference_tensors import Parameters, refuse_unserved, rows_of
from trimtab.serving.questions import OUTPUT, Answer, Question
from trimtab.serving.requests import Request, allow, checked_key, decoded, json_answer, to_json


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor of an answer; its data stand behind the JSON if it has the parameter "binary_data_size"."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[float] | None = None
    parameters: Parameters | None = None


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of `infer`."""

    model_name: str
    model_version: str
    outputs: tuple[OutputTensor, ...]
    id: str
    parameters: Parameters


class _IndexRequest(msgspec.Struct, frozen=True):
    ready: bool = False


class _LoadRequest(msgspec.Struct, frozen=True):
    parameters: dict[str, Any] | None = None


_index_request = msgspec.json.Decoder(_IndexRequest).decode
_load_request = msgspec.json.Decoder(_LoadRequest).decode


async def respond(request: Request) -> Response:
    """Answer a request below /v2, but its health routes. Raises TrimtabError."""
    match request.parts[1:] if request.parts[0] == "v2" else None:
        case ["models", name, "infer"]:
            allow(request, "POST")
            return await _infer(request, name, None)
        case ["models", name, "versions", number, "infer"]:
            allow(request, "POST")
            return await _infer(request, name, number)
        case ["repository", *parts]:
            allow(request, "POST")
            return await _repository(request, parts)
        case []:
            allow(request, "GET")
            return json_answer(server_metadata())
        case ["models", name, *parts]:
            allow(request, "GET")
            return _told(request, name, parts)
    raise _nothing(request)


def failure(error: TrimtabError) -> bytes:
    """The body that tells an error."""
    return to_json({"error": str(error)})


def refuse_other_outputs(names: list[str]) -> None:
    """Raise InvalidInputError unless the outputs that a request names exist, each once."""
    for name in names:
        if name != OUTPUT:
            raise InvalidInputError(f"There is no output '{name}'.", hint=f"There is '{OUTPUT}'.")
    if len(names) > 1:
        raise InvalidInputError(
            f"The output '{OUTPUT}' is asked for {len(names)} times.", hint="Once will do."
        )


def key_and_deadline(parameters: Mapping[str, Any] | None, started: int) -> tuple[str | None, int | None]:
    """The key in a request's parameters, and when its caller stops to wait (by `time.perf_counter_ns`), from
    its start. Raises InvalidInputError."""
    if not parameters:
        return None, None
    refuse_unserved(parameters, "The request")
    key, timeout = parameters.get("key"), parameters.get("timeout")
    if isinstance(key, float | bool):
        raise InvalidInputError("The parameter 'key' is a text or a whole number.")
    if timeout is not None and (type(timeout) is not int or timeout < 0):
        raise InvalidInputError("The parameter 'timeout' is a whole number of microseconds.")
    return checked_key(key), started + timeout * 1000 if timeout else None


def _told(request: Request, name: str, parts: list[str]) -> Response:
    """What is told about a model, or about the version that `parts` begin with."""
    number = None
    if len(parts) > 1 and parts[0] == "versions":
        _, number, *parts = parts
    match parts:
        case []:
            return json_answer(model_metadata(request.view.table.get(name), number))
        case ["ready"]:
            return _readiness(request, name, number)
        case ["config"]:
            return json_answer(model_configuration(request.view.table.get(name), number))
    raise _nothing(request)


def _readiness(request: Request, name: str, version: str | None) -> Response:
    try:
        request.view.table.get(name).place_of(version)
    except UnavailableError:
        return json_answer({"name": name, "ready": False}, status=503)
    return json_answer({"name": name, "ready": True})


async def _repository(request: Request, parts: list[str]) -> Response:
    authorization = request.headers.get("authorization")
    match parts:
        case ["index"]:
            wanted = decoded(_index_request, request.body) if request.body.strip() else _IndexRequest()
            return json_answer(repository_index(request.view.table, ready=wanted.ready))
        case ["models", name, "load"]:
            asked = decoded(_load_request, request.body) if request.body.strip() else _LoadRequest()
            await load(request.state, request.view, name, asked.parameters or {}, authorization)
            return json_answer({"name": name, "state": "READY"})
        case ["models", name, "unload"]:
            raise refuse_unload(request.view, name, authorization)
    raise _nothing(request)


async def _infer(request: Request, name: str, version: str | None) -> Response:
    endpoint = request.view.table.get(name)
    asked, tensors = read_request(request.headers, request.body)
    if asked.outputs:
        refuse_other_outputs([output.name for output in asked.outputs])
        refuse_unserved(asked.outputs[0].parameters or {}, f"The output '{OUTPUT}'")
    key, deadline = key_and_deadline(asked.parameters, request.started)
    predictor = endpoint.predictors[endpoint.place_of(version)]
    rows = rows_of(tensors, predictor.signature)
    answer = await request.answering.answer(
        Question(
            endpoint=endpoint,
            columns=rows.columns,
            row=rows.row,
            matrix=rows.matrix,
            at=request.at,
            started=request.started,
            key=key,
            request_id=checked_key(asked.id or None),
            version=version,
            deadline=deadline,
        )
    )
    return await packed(_answered(name, asked, answer), request.headers)


def _answered(name: str, asked: InferRequest, answer: Answer) -> Response:
    predictions = answer.predictions
    shape = (len(predictions),)
    raw = packed_numbers(predictions) if _binary(asked) else None
    if raw is None:
        output = OutputTensor(OUTPUT, shape, OUTPUT_DATATYPE, data=predictions)
    else:
        output = OutputTensor(OUTPUT, shape, OUTPUT_DATATYPE, parameters={"binary_data_size": len(raw)})
    body = to_json(
        InferResponse(
            model_name=name,
            model_version=str(answer.versions[0]),
            outputs=(output,),
            id=asked.id or answer.id,
            parameters={"prediction_id": answer.id},
        )
    )
    if raw is None:
        return Response(200, body)
    return Response(
        200, body + raw, ((JSON_LENGTH.lower(), str(len(body))),), content_type="application/octet-stream"
    )


def _binary(asked: InferRequest) -> bool:
    """Whether the answer's tensor is to come as bytes: as its own parameter says, or else the request's."""
    wanted = _wish(asked.parameters, "binary_data_output")
    outputs: list[RequestedOutput] = asked.outputs or []
    own = _wish(outputs[0].parameters, "binary_data") if outputs else None
    return bool(wanted if own is None else own)


def _wish(parameters: Parameters | None, name: str) -> bool | None:
    wish = (parameters or {}).get(name)
    if wish is not None and not isinstance(wish, bool):
        raise InvalidInputError(f"The parameter '{name}' is true or false.")
    return wish


def _nothing(request: Request) -> NotFoundError:
    return NotFoundError(
        f"There is nothing at /{'/'.join(request.parts)[:200]}.", hint="Models are at /v2/models/NAME."
    )
