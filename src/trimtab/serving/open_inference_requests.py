"""The body of `infer`: JSON, and behind it the bytes of those tensors that have their data there.

The header `Inference-Header-Content-Length` says how long the JSON is; without it, that is the whole body.
Each datatype has a struct of its own, so that a tensor's data are checked while they are decoded.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from trimtab.errors import InvalidInputError, MalformedError
from trimtab.serving.http_messages import Headers
from trimtab.serving.open_inference_binary import unpacked
from trimtab.serving.open_inference_tensors import (
    GivenTensor,
    Parameters,
    Values,
    flat,
    numbers,
    refuse_unserved,
    size_of,
)
from trimtab.serving.requests import decoded

JSON_LENGTH = "Inference-Header-Content-Length"

FEW = 16
"""So many numbers are not worth an array."""

_JSON_LENGTH = JSON_LENGTH.lower()

_I8 = Annotated[int, msgspec.Meta(ge=-(2**7), lt=2**7)]
_I16 = Annotated[int, msgspec.Meta(ge=-(2**15), lt=2**15)]
_I32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_U8 = Annotated[int, msgspec.Meta(ge=0, lt=2**8)]
_U16 = Annotated[int, msgspec.Meta(ge=0, lt=2**16)]
_U32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
_U64 = Annotated[int, msgspec.Meta(ge=0)]


class _Tensor(msgspec.Struct, frozen=True, tag_field="datatype"):
    """`data` is flat in row order or nested as the shape; null stands for a missing value."""

    name: str
    shape: list[int]
    parameters: Parameters | None = None


class _Floats(_Tensor, frozen=True, tag="FP64"):
    data: list[float | list[float | None] | None] | None = None


class _Fp32(_Floats, frozen=True, tag="FP32"):
    pass


class _Fp16(_Floats, frozen=True, tag="FP16"):
    pass


class _Bf16(_Floats, frozen=True, tag="BF16"):
    pass


class _Integers(_Tensor, frozen=True, tag="INT64"):
    data: list[int | list[int | None] | None] | None = None


class _Int32(_Tensor, frozen=True, tag="INT32"):
    data: list[_I32 | list[_I32 | None] | None] | None = None


class _Int16(_Tensor, frozen=True, tag="INT16"):
    data: list[_I16 | list[_I16 | None] | None] | None = None


class _Int8(_Tensor, frozen=True, tag="INT8"):
    data: list[_I8 | list[_I8 | None] | None] | None = None


class _Uint64(_Tensor, frozen=True, tag="UINT64"):
    data: list[_U64 | list[_U64 | None] | None] | None = None


class _Uint32(_Tensor, frozen=True, tag="UINT32"):
    data: list[_U32 | list[_U32 | None] | None] | None = None


class _Uint16(_Tensor, frozen=True, tag="UINT16"):
    data: list[_U16 | list[_U16 | None] | None] | None = None


class _Uint8(_Tensor, frozen=True, tag="UINT8"):
    data: list[_U8 | list[_U8 | None] | None] | None = None


class _Booleans(_Tensor, frozen=True, tag="BOOL"):
    data: list[bool | list[bool | None] | None] | None = None


class _Texts(_Tensor, frozen=True, tag="BYTES"):
    data: list[str | list[str | None] | None] | None = None


_Input = (
    _Floats
    | _Fp32
    | _Fp16
    | _Bf16
    | _Integers
    | _Int32
    | _Int16
    | _Int8
    | _Uint64
    | _Uint32
    | _Uint16
    | _Uint8
    | _Booleans
    | _Texts
)


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that a request asks for."""

    name: str
    parameters: Parameters | None = None


class InferRequest(msgspec.Struct, frozen=True):
    """The JSON of `infer`."""

    inputs: list[_Input]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


_infer_request = msgspec.json.Decoder(InferRequest).decode


def read_request(headers: Headers, body: bytes) -> tuple[InferRequest, list[GivenTensor]]:
    """The request and its tensors. Raises MalformedError, InvalidInputError."""
    length = headers.get(_JSON_LENGTH)
    if length is None:
        asked = decoded(_infer_request, body)
        return asked, [_given(tensor) for tensor in asked.inputs]
    if not (length.isascii() and length.isdigit() and len(length) < 16 and 0 < int(length) <= len(body)):
        raise MalformedError(
            f"The header {JSON_LENGTH} says {length[:40]!r} of a body of {len(body)} bytes.",
            hint="It is how many bytes of JSON stand before the bytes of the tensors.",
        )
    start = int(length)
    asked = decoded(_infer_request, body[:start])
    raw = memoryview(body)
    tensors: list[GivenTensor] = []
    for tensor in asked.inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            tensors.append(_given(tensor))
            continue
        if type(size) is not int or not 0 <= size <= len(raw) - start:
            raise InvalidInputError(
                f"The tensor '{tensor.name}' claims {size} bytes, where {len(raw) - start} are left."
            )
        tensors.append(_given(tensor, raw[start : start + size]))
        start += size
    if start != len(raw):
        raise InvalidInputError(f"{len(raw) - start} bytes are left over that belong to no input tensor.")
    return asked, tensors


def _given(tensor: _Input, raw: memoryview | None = None) -> GivenTensor:
    name, shape, data = tensor.name, tensor.shape, tensor.data
    datatype = str(tensor.__struct_config__.tag)
    if tensor.parameters:
        refuse_unserved(tensor.parameters, f"The tensor '{name}'")
    values: Values
    if raw is not None:
        if data is not None:
            raise InvalidInputError(f"The tensor '{name}' has its data twice: in JSON and as bytes.")
        values = unpacked(name, datatype, size_of(name, shape), raw)
    elif data is None:
        raise InvalidInputError(
            f"The tensor '{name}' has no data.",
            hint=f"Give 'data', or its parameter 'binary_data_size' and the header {JSON_LENGTH}.",
        )
    else:
        values = flat(name, shape, data)
        if len(values) > FEW and tensor.shape[:1] != [1] and isinstance(tensor, _Floats):
            values = numbers(name, values)
    return GivenTensor(name, shape, datatype, values)
