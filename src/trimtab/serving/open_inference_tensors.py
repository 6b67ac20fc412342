"""The input tensors of the Open Inference Protocol, of REST and gRPC alike, and the columns that they are.

A tensor is a column, of shape [rows] or [rows, 1], named as the model's signature names it; or all columns at
once where all are numbers: one tensor of shape [rows, columns] in the signature's order, whatever its name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError
from trimtab.models.encoding import floats
from trimtab.models.signature import Column, Signature

Parameters = dict[str, str | float | int | bool | None]
Values = list[Any] | NDArray[Any]

_DATATYPES = {"number": "FP64", "boolean": "BOOL", "text": "BYTES"}
_SEQUENCES = frozenset({"sequence_id", "sequence_start", "sequence_end"})


class GivenTensor(NamedTuple):
    """A tensor with as many elements as its shape says: `values` in row order."""

    name: str
    shape: Sequence[int]
    datatype: str
    values: Values


class GivenRows(NamedTuple):
    """The rows of a request: as `columns`, as a `matrix` in the signature's order with NaN for what is
    missing, or one of them as `row` by column name."""

    columns: Mapping[str, Values] = MappingProxyType({})
    row: dict[str, Any] | None = None
    matrix: NDArray[Any] | None = None


def datatype_of(column: Column) -> str:
    """The datatype that metadata tell for a column; others that hold its values are taken as well."""
    if column.kind == "category":
        return "BYTES" if isinstance(column.categories[0], str) else "INT64"
    return _DATATYPES[column.kind]


def size_of(name: str, shape: Sequence[int]) -> int:
    """How many elements a tensor of this shape has; raises InvalidInputError for one that no input has."""
    if len(shape) == 1 and shape[0] > 0:  # as nearly all have
        return shape[0]
    if not 1 <= len(shape) <= 2:
        shown = list(shape) if len(shape) < 9 else f"of {len(shape)} dimensions"
        raise InvalidInputError(
            f"The tensor '{name}' has the shape {shown}.",
            hint="A column's is [rows] or [rows, 1], that of all columns [rows, columns].",
        )
    if min(shape) < 0:
        raise InvalidInputError(f"The tensor '{name}' has the negative shape {list(shape)}.")
    size = math.prod(shape)
    if not size:
        raise InvalidInputError("The request has no rows.", hint="Send at least one.")
    return size


def flat(name: str, shape: Sequence[int], data: list[Any]) -> list[Any]:
    """JSON data, flat or nested as the shape, in row order; raises InvalidInputError unless they are as many
    as the shape says."""
    size = size_of(name, shape)
    if data and type(data[0]) is list:
        width = shape[1] if len(shape) == 2 else -1
        if len(data) != shape[0] or set(map(type, data)) != {list} or set(map(len, data)) != {width}:
            raise InvalidInputError(
                f"The nested data of the tensor '{name}' do not have its shape {list(shape)}."
            )
        return data[0] if len(data) == 1 else list(itertools.chain.from_iterable(data))
    if len(data) != size:
        raise InvalidInputError(
            f"The tensor '{name}' has {len(data)} values where its shape {list(shape)} says {size}."
        )
    return data


def numbers(name: str, values: list[Any]) -> NDArray[np.float64]:
    """JSON numbers as an array, null as NaN, which is taken as missing. Raises InvalidInputError."""
    if (found := floats(values)) is not None:
        return found
    try:
        return np.array(values, dtype=np.float64)
    except (ValueError, TypeError):
        raise InvalidInputError(f"The data of the tensor '{name}' are nested unevenly.") from None
    except OverflowError:
        raise InvalidInputError(f"The tensor '{name}' has a number that is too large.") from None


def rows_of(tensors: Sequence[GivenTensor], signature: Signature) -> GivenRows:
    """The rows that a request's tensors are; raises InvalidInputError."""
    if not tensors:
        raise InvalidInputError("The request has no input tensors.", hint="Send one for each column.")
    if len(tensors) == 1 and len(tensors[0].shape) == 2 and signature.get(tensors[0].name) is None:
        return _split(tensors[0], signature)
    columns: dict[str, Values] = {}
    single = True
    for name, shape, _, values in tensors:
        if len(shape) == 2 and shape[1] != 1:
            raise InvalidInputError(
                f"The tensor '{name}' has the shape {list(shape)}.", hint="A column's is [rows] or [rows, 1]."
            )
        columns[name] = values
        single = single and len(values) == 1
    if len(columns) != len(tensors):
        raise InvalidInputError("An input tensor is given twice.")
    if single:
        return GivenRows(
            row={
                name: values[0] if isinstance(values, list) else values.item()
                for name, values in columns.items()
            }
        )
    return GivenRows(columns)


def refuse_unserved(parameters: Mapping[str, Any], what: str) -> None:
    """Raise InvalidInputError for parameters that would make `what` mean something that is not done here."""
    for name in parameters:
        if name.startswith("shared_memory_"):
            raise InvalidInputError(
                f"{what} is said to be in shared memory, which is not served.",
                hint="Send the tensor itself, binary where it is large.",
            )
        if name == "classification" and parameters[name]:
            raise InvalidInputError(
                f"{what} is asked for as a classification, which is not served.",
                hint="Take the values themselves and sort them in the client.",
            )
        if name in _SEQUENCES and parameters[name]:
            raise InvalidInputError(
                f"{what} is part of a sequence, and models keep no state between requests.",
                hint=f"Leave the parameter '{name}' out.",
            )


def _split(tensor: GivenTensor, signature: Signature) -> GivenRows:
    if (column := signature.other_than_number) is not None:
        raise InvalidInputError(
            f"The model's column '{column.name}' is no number, so its rows are no matrix.",
            hint="Send one tensor for each column, named as the column.",
        )
    rows, width = tensor.shape
    names = signature.names
    if width != len(names):
        raise InvalidInputError(
            f"The tensor '{tensor.name}' has {width} columns, and the model takes {len(names)}.",
            hint=f"They are, in this order: {', '.join(names)}.",
        )
    values = tensor.values
    if rows == 1:
        cells = values if isinstance(values, list) else values.tolist()
        return GivenRows(row=dict(zip(names, cells, strict=True)))
    if isinstance(values, list):
        if tensor.datatype in {"BOOL", "BYTES"}:
            return GivenRows({name: values[place::width] for place, name in enumerate(names)})
        values = numbers(tensor.name, values)
    matrix = values.reshape(rows, width)
    if matrix.dtype.kind == "b":
        return GivenRows(dict(zip(names, matrix.T, strict=True)))
    return GivenRows(matrix=matrix)
