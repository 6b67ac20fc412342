"""From named columns to the matrix of numbers that a model takes.

The one code path of training (`Inputs.matrix`), gates and serving (`Predictor.predict`).
"""

from __future__ import annotations

import difflib
import math
import operator
import struct
from collections.abc import Mapping, Sequence, Set
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, unknown
from trimtab.models.signature import Column, Signature

Values = Sequence[Any] | NDArray[Any]
Columns = Mapping[str, Values]

_NUMBERS = frozenset({int, float})
_FLOATS = {float}


class Encoder:
    """Checks and encodes rows for one signature. Immutable, so safe to share between threads."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._missing = math.nan if signature.missing is None else signature.missing
        self._columns = [_ColumnEncoder(column, self._missing) for column in signature.columns]
        self._row_plan = [(encoder.name, encoder.one) for encoder in self._columns]
        names = signature.names
        numbers_only = len(names) > 1 and all(column.kind == "number" for column in signature.columns)
        self._numbers = operator.itemgetter(*names) if numbers_only else None

    def rows(self, columns: Columns, *, ignore_unknown: bool = False) -> int:
        """How many rows `columns` have. Raises InvalidInputError for missing, unknown or uneven columns."""
        found = 0
        length = -1
        for encoder in self._columns:
            values = columns.get(encoder.name)
            if values is None:
                if encoder.name in columns:
                    raise InvalidInputError(f"The column '{encoder.name}' is null.", hint="Give its values.")
                if not encoder.nullable:
                    raise _missing_column(encoder.name, columns)
                continue
            found += 1
            if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
                raise InvalidInputError(
                    f"The column '{encoder.name}' is {_shown(values)} and not a list of values.",
                    hint=f'Write ["{encoder.name}"] with one value for each row, in a list.',
                )
            if len(values) != length:
                if length >= 0:
                    raise InvalidInputError(
                        f"The column '{encoder.name}' has {len(values)} values where others have {length}.",
                        hint="Give every column one value for each row.",
                    )
                length = len(values)
        if found != len(columns) and not ignore_unknown:
            raise self._unknown_column(columns)
        if length < 0:
            raise InvalidInputError(
                "None of the model's columns is given.", hint=f"It takes: {', '.join(self.signature.names)}."
            )
        return length

    def row(self, columns: Columns) -> list[float]:
        """The first row's numbers, in the signature's order. `rows` must have accepted `columns`."""
        missing = self._missing
        return [
            one(values[0]) if (values := columns.get(name)) is not None else missing
            for name, one in self._row_plan
        ]

    def row_of(self, row: Mapping[str, Any], *, ignore_unknown: bool = False) -> Sequence[float]:
        """The numbers of one row, given by column name. Raises what `rows` and `matrix` do."""
        numbers = self._plain_row(row)
        if numbers is not None and (ignore_unknown or len(row) == len(self._columns)):
            return numbers
        columns = {name: (value,) for name, value in row.items()}
        self.rows(columns, ignore_unknown=ignore_unknown)
        return self.row(columns)

    def _plain_row(self, row: Mapping[str, Any]) -> tuple[float, ...] | None:
        """The numbers of a row that has all columns and nothing unusual in them; None for any other."""
        try:
            if self._numbers is None:
                return tuple([encode(row[name]) for name, encode in self._row_plan])
            numbers: tuple[float, ...] = self._numbers(row)
        except (KeyError, InvalidInputError):
            return None  # `rows` and `row` say what is wrong, or take it after all
        return numbers if set(map(type, numbers)) == _FLOATS and isfinite(sum(numbers)) else None

    def matrix(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """All rows' numbers, shape (rows, columns), C order. `rows` must have accepted `columns`."""
        matrix = self._from_arrays(columns, rows)
        if matrix is None:
            matrix = np.empty((len(self._columns), rows), dtype=np.float64)
            for place, encoder in enumerate(self._columns):
                values = columns.get(encoder.name)
                matrix[place] = self._missing if values is None else encoder.many(values)
        return np.ascontiguousarray(matrix.T)

    def _from_arrays(self, columns: Columns, rows: int) -> NDArray[np.float64] | None:
        """The numbers of columns that are all arrays with nothing unusual in them, one column after another;
        None for any other."""
        arrays: list[NDArray[Any]] = []
        for encoder in self._columns:
            values = columns.get(encoder.name)
            if not isinstance(values, np.ndarray) or values.ndim != 1 or not encoder.takes(values):
                return None
            arrays.append(values)
        matrix = np.empty((len(arrays), rows), dtype=np.float64)
        np.stack(arrays, out=matrix)
        return matrix if np.isfinite(matrix).all() else None

    def checked(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """The numbers of rows that came as a matrix of numbers in the signature's order, NaN where one is
        missing. Raises what `matrix` does, and InvalidInputError if not all columns are numbers."""
        if (
            matrix.ndim != 2
            or matrix.shape[1] != len(self._columns)
            or self.signature.other_than_number is not None
        ):
            raise InvalidInputError(
                f"A matrix of the shape {matrix.shape} is not what the model takes.",
                hint=f"It takes the columns {', '.join(self.signature.names)}.",
            )
        numbers: NDArray[np.float64] = np.require(matrix, np.float64, ["C", "A"])
        if np.isfinite(numbers).all():
            return numbers
        return self.matrix(dict(zip(self.signature.names, matrix.T, strict=True)), len(matrix))

    def _unknown_column(self, columns: Columns) -> InvalidInputError:
        name = next(name for name in columns if self.signature.get(name) is None)
        hint = unknown("column", str(name), self.signature.names).hint
        return InvalidInputError(f"The model has no input column '{name}'.", hint=hint)


class _ColumnEncoder:
    """Encodes the values of one column."""

    def __init__(self, column: Column, missing: float) -> None:
        self.name = column.name
        self.nullable = column.nullable
        self._missing = missing
        self._codes = {value: float(code) for code, value in enumerate(column.categories)}
        self._wanted: str
        self._types: Set[type]
        self._array_kinds: str
        if column.kind == "number":
            self._wanted, self._types, self._array_kinds = "a finite number", _NUMBERS, "iuf"
            self.one = self._number
        elif column.kind == "boolean":
            self._wanted, self._types, self._array_kinds = "true or false", {bool}, "b"
            self.one = self._boolean
        elif column.kind == "text":  # which no matrix holds: see trimtab.models.confined
            self._wanted, self._types, self._array_kinds = "a text", {str}, ""
            self.one = self._other
        else:
            texts = isinstance(column.categories[0], str)
            self._wanted = "a text" if texts else "a whole number"
            self._types, self._array_kinds = ({str}, "") if texts else (_NUMBERS, "")
            self.one = self._closed_category if column.closed else self._category
        self._closed = column.closed

    def _number(self, value: Any) -> float:
        if type(value) is float and value - value == 0.0:
            return value
        return self._other(value)

    def _boolean(self, value: Any) -> float:
        if value is True:
            return 1.0
        if value is False:
            return 0.0
        return self._other(value)

    def _category(self, value: Any) -> float:
        if type(value) in self._types and value == value:
            return self._codes.get(value, self._missing)
        return self._other(value)

    def _closed_category(self, value: Any) -> float:
        code = self._codes.get(value) if type(value) in self._types else None
        return self._other(value) if code is None else code

    def _other(self, value: Any, row: int = 0) -> float:
        """The number for a value that is not of the plainest Python type, or the reason why there is none."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or (isinstance(value, float) and math.isnan(value)):
            if self.nullable:
                return self._missing
            raise InvalidInputError(
                f"The column '{self.name}' is missing in row {row}, and the model does not allow that.",
                hint=f"Give {self._wanted}, or train with this column declared nullable.",
            )
        if type(value) in self._types:
            if self._codes:
                if self._closed and value not in self._codes:
                    raise self._unknown_category(value, row)
                return self._codes.get(value, self._missing)
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
        raise InvalidInputError(
            f"The column '{self.name}' has {_shown(value)} in row {row}, which is not {self._wanted}."
        )

    def _unknown_category(self, value: Any, row: int) -> InvalidInputError:
        return InvalidInputError(
            f"The column '{self.name}' has {_shown(value)} in row {row}, which the model does not know.",
            hint=f"It knows: {', '.join(map(str, list(self._codes)[:20]))}.",
        )

    def takes(self, values: NDArray[Any]) -> bool:
        """Whether the values of an array are numbers for this column, if they are finite."""
        return values.dtype.kind in self._array_kinds

    def many(self, values: Values) -> NDArray[np.float64]:
        """The numbers of a whole column."""
        if isinstance(values, np.ndarray):
            if values.ndim != 1:
                raise InvalidInputError(f"The column '{self.name}' has the shape {values.shape}.")
            if self.takes(values):
                return self._from_array(values)
            if values.dtype.kind in "mM":
                raise InvalidInputError(
                    f"The column '{self.name}' has dates or durations, which are not {self._wanted}."
                )
            values = values.tolist()
        types = set(map(type, values))
        if types <= self._types:
            if self._codes:
                if float not in types and not self._closed:
                    get, missing = self._codes.get, self._missing
                    return np.array([get(value, missing) for value in values], dtype=np.float64)
            elif (numbers := _finite(values)) is not None:
                return numbers
        return np.array([self._other(value, row) for row, value in enumerate(values)], dtype=np.float64)

    def _from_array(self, values: NDArray[Any]) -> NDArray[np.float64]:
        numbers = values.astype(np.float64)
        wrong = ~np.isfinite(numbers)
        if self.nullable and wrong.any():
            missing = np.isnan(numbers)
            numbers[missing] = self._missing
            wrong &= ~missing
        for row in np.flatnonzero(wrong):
            numbers[row] = self._other(values[row], int(row))
        return numbers


def floats(values: Values) -> NDArray[np.float64] | None:
    """The numbers, which nobody may write to, or None if one is none or too large. True and false count as
    numbers here. A third of the time that np.array takes, which asks each value what it is."""
    try:
        return np.frombuffer(struct.Struct(f"{len(values)}d").pack(*values))
    except (struct.error, OverflowError):
        return None


def _finite(values: Values) -> NDArray[np.float64] | None:
    """The numbers as an array, or None if one is not finite or too large."""
    numbers = floats(values)
    return numbers if numbers is not None and np.isfinite(numbers).all() else None


def _missing_column(name: str, columns: Columns) -> InvalidInputError:
    near = difflib.get_close_matches(name, [str(other) for other in columns], n=1)
    hint = f"Is '{near[0]}' meant to be it?" if near else "The model needs it."
    return InvalidInputError(f"The column '{name}' is missing.", hint=hint)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
