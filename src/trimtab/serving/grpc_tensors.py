"""Input tensors as gRPC brings them: raw, or in the field for their datatype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trimtab.errors import InvalidInputError
from trimtab.serving.open_inference_binary import DATATYPES, unpacked
from trimtab.serving.open_inference_tensors import GivenTensor, Values, refuse_unserved, size_of

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

_RANGES = {"INT8": (-(2**7), 2**7), "INT16": (-(2**15), 2**15), "UINT8": (0, 2**8), "UINT16": (0, 2**16)}
"""Of the datatypes whose field holds more than they do: the least number, and the first that is too large."""

_ARRAYS = {"FP32": np.float32, "FP64": np.float64}


def read_tensors(asked: Any) -> list[GivenTensor]:
    """The tensors of a ModelInferRequest; raises InvalidInputError."""
    raws = asked.raw_input_contents
    # KServe's client sends the inputs that it has as lists with contents, and the others raw.
    bare = [not tensor.contents.ByteSize() for tensor in asked.inputs] if raws else []
    if len(raws) != sum(bare):
        raise InvalidInputError(
            f"There are {len(raws)} raw contents for {sum(bare)} inputs without contents.",
            hint="Send one for each of these, in their order.",
        )
    following = iter(raws)
    return [
        _given(tensor, next(following) if raws and bare[place] else None)
        for place, tensor in enumerate(asked.inputs)
    ]


def parameters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """A map of InferParameter by what each holds."""
    return {
        name: getattr(value, chosen)
        for name, value in given.items()
        if (chosen := value.WhichOneof("parameter_choice")) is not None
    }


def _given(tensor: Any, raw: bytes | None) -> GivenTensor:
    name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
    if datatype not in DATATYPES:
        raise InvalidInputError(
            f"The tensor '{name}' has the datatype '{datatype[:40]}', which does not exist.",
            hint=f"There are: {', '.join(sorted(DATATYPES))}.",
        )
    if tensor.parameters:
        refuse_unserved(parameters_of(tensor.parameters), f"The tensor '{name}'")
    size = size_of(name, shape)
    if raw is None:
        return GivenTensor(name, shape, datatype, _typed(name, datatype, size, tensor.contents))
    return GivenTensor(name, shape, datatype, unpacked(name, datatype, size, raw))


def _typed(name: str, datatype: str, size: int, contents: Any) -> Values:
    field = _FIELDS.get(datatype)
    if field is None:
        raise InvalidInputError(
            f"The tensor '{name}' of {datatype} has no raw contents.", hint="There is no other form of it."
        )
    given = getattr(contents, field)
    if len(given) != size:
        raise InvalidInputError(
            f"The tensor '{name}' has {len(given)} values in {field} where its shape says {size}."
        )
    if datatype == "BYTES":
        return _texts(name, given)
    if size > 1 and (dtype := _ARRAYS.get(datatype)) is not None:
        return np.array(given, dtype=dtype)
    values = list(given)
    if datatype in _RANGES:
        least, end = _RANGES[datatype]
        if min(values) < least or max(values) >= end:
            raise InvalidInputError(f"The tensor '{name}' has a value that {datatype} does not hold.")
    return values


def _texts(name: str, given: Any) -> list[str]:
    try:
        return [value.decode() for value in given]
    except UnicodeDecodeError:
        raise InvalidInputError(
            f"An element of the tensor '{name}' is not UTF-8, so it is no text."
        ) from None
