"""The Open Inference Protocol, version 2, over REST with JSON tensors.

A tensor is a column, of shape [rows] or [rows, 1], named as the model's signature names it; or all columns at
once where all are numbers: one tensor of shape [rows, columns] in the signature's order, whatever its name.
The answer's parameter "prediction_id" names the prediction in feedback (with ".ROW" behind it where there are
several rows); a request's parameter "key" keeps a caller with one version.
"""

from __future__ import annotations

import functools
import math
from importlib.metadata import version as package_version
from typing import Any, Literal

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError, TrimtabError, UnavailableError
from trimtab.models.signature import Column, Signature
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.questions import Question
from trimtab.serving.requests import Request, Response, allow, checked_key, decoded

OUTPUT = "prediction"

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
Parameters = dict[str, str | float | int | bool]


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor of a request or an answer; `data` is flat in row order, or nested as the shape."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any]
    parameters: Parameters | None = None


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that a request asks for."""

    name: str
    parameters: Parameters | None = None


class InferRequest(msgspec.Struct, frozen=True):
    """The body of `infer`."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of `infer`."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None
    parameters: Parameters | None = None


_encode = msgspec.json.Encoder().encode
_infer_request = msgspec.json.Decoder(InferRequest).decode
_DATATYPES = {"number": "FP64", "boolean": "BOOL"}


async def respond(request: Request) -> Response:
    """Answer a request below /v2, but its health routes. Raises TrimtabError."""
    match request.parts[1:]:
        case []:
            allow(request, "GET")
            return _json({"name": "trimtab", "version": _version(), "extensions": []})
        case ["models", name]:
            allow(request, "GET")
            return _metadata(request.view.table.get(name), None)
        case ["models", name, "versions", number]:
            allow(request, "GET")
            return _metadata(request.view.table.get(name), number)
        case ["models", name, "ready"]:
            allow(request, "GET")
            return _readiness(request, name, None)
        case ["models", name, "versions", number, "ready"]:
            allow(request, "GET")
            return _readiness(request, name, number)
        case ["models", name, "infer"]:
            allow(request, "POST")
            return await _infer(request, name, None)
        case ["models", name, "versions", number, "infer"]:
            allow(request, "POST")
            return await _infer(request, name, number)
    raise NotFoundError(f"There is nothing at /{'/'.join(request.parts)}.")


@functools.cache
def _version() -> str:
    return package_version("trimtab")


def failure(error: TrimtabError) -> bytes:
    """The body that tells an error."""
    return _encode({"error": str(error)})


def _readiness(request: Request, name: str, version: str | None) -> Response:
    try:
        endpoint = request.view.table.get(name)
    except UnavailableError:
        return Response(503, _encode({"name": name, "ready": False}))
    if version is not None:
        endpoint.place_of(version)
    return _json({"name": name, "ready": True})


def _metadata(endpoint: LoadedEndpoint, version: str | None) -> Response:
    place = endpoint.primary if version is None else endpoint.place_of(version)
    predictor = endpoint.predictors[place]
    return _json(
        {
            "name": endpoint.name,
            "versions": [str(number) for number in endpoint.versions],
            "platform": f"trimtab_{predictor.specification.runtime}",
            "inputs": [
                {"name": column.name, "datatype": _datatype(column), "shape": [-1]}
                for column in predictor.signature.columns
            ],
            "outputs": [{"name": OUTPUT, "datatype": "FP64", "shape": [-1]}],
        }
    )


def _datatype(column: Column) -> str:
    if column.kind == "category":
        return "BYTES" if isinstance(column.categories[0], str) else "INT64"
    return _DATATYPES[column.kind]


async def _infer(request: Request, name: str, version: str | None) -> Response:
    endpoint = request.view.table.get(name)
    asked = decoded(_infer_request, request.body)
    place = endpoint.primary if version is None else endpoint.place_of(version)
    for output in asked.outputs or ():
        if output.name != OUTPUT:
            raise InvalidInputError(f"There is no output '{output.name}'.", hint=f"There is '{OUTPUT}'.")
    columns = columns_of(asked, endpoint.predictors[place].signature)
    given = (asked.parameters or {}).get("key")
    if isinstance(given, float):
        raise InvalidInputError("The parameter 'key' is a text or a whole number.")
    answer = await request.answering.answer(
        Question(
            endpoint=endpoint,
            columns=columns,
            at=request.at,
            started=request.started,
            key=checked_key(given),
            request_id=checked_key(asked.id or None),
            version=version,
        )
    )
    return Response(
        200,
        _encode(
            InferResponse(
                model_name=name,
                model_version=str(answer.versions[0]),
                outputs=[Tensor(OUTPUT, [len(answer.predictions)], "FP64", answer.predictions)],
                id=asked.id or answer.id,
                parameters={"prediction_id": answer.id},
            )
        ),
    )


def columns_of(asked: InferRequest, signature: Signature) -> dict[str, list[Any]]:
    """The columns that a request's tensors are; raises InvalidInputError."""
    if not asked.inputs:
        raise InvalidInputError("The request has no input tensors.", hint="Send one for each column.")
    names = [tensor.name for tensor in asked.inputs]
    if len(set(names)) != len(names):
        raise InvalidInputError("An input tensor is given twice.")
    if len(asked.inputs) == 1 and len(asked.inputs[0].shape) == 2 and signature.get(names[0]) is None:
        return _split(asked.inputs[0], signature)
    return {tensor.name: _column(tensor) for tensor in asked.inputs}


def _column(tensor: Tensor) -> list[Any]:
    shape = tensor.shape
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise InvalidInputError(
            f"The tensor '{tensor.name}' has the shape {shape}.", hint="A column's is [rows] or [rows, 1]."
        )
    return _flat(tensor)


def _split(tensor: Tensor, signature: Signature) -> dict[str, list[Any]]:
    others = [column.name for column in signature.columns if column.kind != "number"]
    if others:
        raise InvalidInputError(
            f"The model's column '{others[0]}' is no number, so its rows are no matrix.",
            hint="Send one tensor for each column, named as the column.",
        )
    width = len(signature.columns)
    if tensor.shape[1] != width:
        raise InvalidInputError(
            f"The tensor '{tensor.name}' has {tensor.shape[1]} columns, and the model takes {width}.",
            hint=f"They are, in this order: {', '.join(signature.names)}.",
        )
    data = _flat(tensor)
    return {name: data[place::width] for place, name in enumerate(signature.names)}


def _flat(tensor: Tensor) -> list[Any]:
    """The values in row order; raises InvalidInputError unless they are as many as the shape says."""
    if any(size < 0 for size in tensor.shape):
        raise InvalidInputError(f"The tensor '{tensor.name}' has the negative shape {tensor.shape}.")
    data = tensor.data
    if len(tensor.shape) == 2 and data and isinstance(data[0], list):
        rows, width = tensor.shape
        if len(data) != rows or any(not isinstance(row, list) or len(row) != width for row in data):
            raise InvalidInputError(
                f"The nested data of the tensor '{tensor.name}' do not have its shape {tensor.shape}."
            )
        data = [value for row in data for value in row]
    if len(data) != math.prod(tensor.shape):
        raise InvalidInputError(
            f"The tensor '{tensor.name}' has {len(data)} values where its shape {tensor.shape} says "
            f"{math.prod(tensor.shape)}."
        )
    if not data:
        raise InvalidInputError("The request has no rows.", hint="Send at least one.")
    if tensor.datatype.startswith(("FP", "INT", "UINT")) and any(isinstance(value, str) for value in data):
        raise InvalidInputError(f"The tensor '{tensor.name}' of {tensor.datatype} has texts in it.")
    return data


def _json(value: object) -> Response:
    return Response(200, _encode(value))
