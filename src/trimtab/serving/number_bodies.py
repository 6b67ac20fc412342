"""JSON bodies of many rows that are nothing but numbers, read straight into one matrix.

Most large requests are such. They are decoded with the types that they must have for it, so that no value is
looked at again: of a row by name, msgspec makes a struct with the model's columns as fields. A body that is
anything else (a row fewer than two, a column more or less, a text, NaN) is left to the protocol's own way to
read it, which takes more and says what is wrong.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.models.encoding import floats
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.signature import Signature

LARGE_BYTES = 4_096
"""Bodies of fewer bytes are not worth a second try."""

_Number = float | None
_NumberRow = list[_Number]
Matrix = NDArray[np.float64]
Decode = Callable[[bytes], Any]


class NumberBodies:
    """Reads the bodies of requests to a model whose columns are all numbers: `plain`, `invocation` and
    `tensorflow` decode them (None for a body that is something else; of the fields that may hold rows, all
    but one are `msgspec.UNSET`), and `matrix` makes one of what that field has: in the signature's order, NaN
    where a number is missing."""

    def __init__(self, signature: Signature) -> None:
        self._names = signature.names
        self._required = any(not column.nullable for column in signature.columns)
        self._pack = struct.Struct(f"{len(self._names)}d").pack
        fields = [f"c{place}" for place in range(len(self._names))]
        rename = dict(zip(fields, self._names, strict=True))
        self._record = msgspec.defstruct(
            "Record",
            [
                (field, _Number, None) if column.nullable else (field, _Number)
                for field, column in zip(fields, signature.columns, strict=True)
            ],
            rename=rename,
            kw_only=True,
            forbid_unknown_fields=True,
            gc=False,
        )
        self._columns = msgspec.defstruct(
            "Columns",
            [
                (field, _NumberRow | msgspec.UnsetType, msgspec.UNSET)
                if column.nullable
                else (field, _NumberRow)
                for field, column in zip(fields, signature.columns, strict=True)
            ],
            rename=rename,
            kw_only=True,
            forbid_unknown_fields=True,
        )

    @functools.cached_property
    def plain(self) -> Decode:
        """Reads a body of the plain protocol."""
        key = str | int | None
        return _decoder(
            {"rows": list[self._record], "columns": self._columns},  # type: ignore[name-defined]  # made above
            {"key": key, "keys": list[key] | None, "request_id": key},
            strict=True,
        )

    @functools.cached_property
    def invocation(self) -> Decode:
        """Reads a body of `/invocations`."""
        frame = msgspec.defstruct(
            "Frame",
            [
                ("data", list[_NumberRow]),
                ("columns", list[str] | None, None),
                ("index", list[Any] | None, None),
            ],
            forbid_unknown_fields=True,
        )
        return _decoder(
            {
                "dataframe_split": frame,
                "dataframe_records": list[self._record],  # type: ignore[name-defined]  # made above
                "instances": self._either,
                "inputs": self._either,
            }
        )

    @functools.cached_property
    def tensorflow(self) -> Decode:
        """Reads a body of TensorFlow Serving's `:predict`."""
        return _decoder({"instances": self._either, "inputs": self._either}, {"signature_name": str | None})

    @property
    def _either(self) -> Any:
        return list[_NumberRow | self._record] | self._columns  # type: ignore[name-defined]  # made above

    def matrix(self, given: Any, names: list[str] | None = None) -> Matrix | None:
        """The matrix of rows or columns as they were decoded, None if they are none. Rows without names are
        in the order of `names`, or else of the signature."""
        if isinstance(given, self._columns):
            return self._from_columns(msgspec.structs.astuple(given))
        if not isinstance(given, list) or len(given) < 2:
            return None
        if names is not None and names != self._names:
            return self._ordered(given, names)
        try:
            return self._from_rows(given if type(given[0]) is list else list(map(_cells, given)))
        except TypeError:  # rows by name and without names among each other
            return None

    def _ordered(self, rows: list[Any], names: list[str]) -> Matrix | None:
        if sorted(names) != sorted(self._names):
            return None
        matrix = self._from_rows(rows)
        return None if matrix is None else matrix[:, [names.index(name) for name in self._names]]

    def _from_rows(self, rows: list[Any]) -> Matrix | None:
        pack = self._pack
        try:
            packed = b"".join([pack(*row) for row in rows])
        except struct.error:  # one is missing, or there are more or fewer
            try:
                made = np.array(rows, dtype=np.float64)
            except ValueError:
                return None
            return made if made.shape == (len(rows), len(self._names)) and self._has_some(made) else None
        return np.frombuffer(packed).reshape(len(rows), len(self._names))

    def _from_columns(self, columns: tuple[Any, ...]) -> Matrix | None:
        given = [column for column in columns if column is not msgspec.UNSET]
        rows = len(given[0]) if given else 0
        if rows < 2 or any(len(column) != rows for column in given):
            return None
        matrix = np.empty((len(self._names), rows))
        for place, column in enumerate(columns):
            if column is msgspec.UNSET:
                matrix[place] = np.nan
            else:
                numbers = floats(column)
                matrix[place] = np.array(column, dtype=np.float64) if numbers is None else numbers
        return np.ascontiguousarray(matrix.T)

    def _has_some(self, matrix: Matrix) -> bool:
        """Whether a number is there at all, where none is required."""
        return self._required or not np.isnan(matrix).all()


_made: WeakKeyDictionary[Predictor, NumberBodies | None] = WeakKeyDictionary()


def number_bodies_for(predictor: Predictor, body: bytes) -> NumberBodies | None:
    """What reads this body to the model, made once for it; None if that is not worth a try: it is small, or
    not all of the model's columns are numbers."""
    if len(body) < LARGE_BYTES:
        return None
    if predictor not in _made:
        _made[predictor] = _bodies_of(predictor.signature)
    return _made[predictor]


def _bodies_of(signature: Signature) -> NumberBodies | None:
    if signature.other_than_number is not None:
        return None
    try:
        return NumberBodies(signature)
    except ValueError:  # a name that msgspec cannot compare as it stands in JSON
        return None


_cells = msgspec.structs.astuple


def _decoder(tables: dict[str, Any], others: dict[str, Any] | None = None, *, strict: bool = False) -> Decode:
    """Decodes an object with one of `tables` and with `others`, None where it is not there (`strict`: and
    nothing else). None for what is no such object."""
    made = msgspec.defstruct(
        "Body",
        [
            *((name, kind | msgspec.UnsetType, msgspec.UNSET) for name, kind in tables.items()),
            *((name, kind, None) for name, kind in (others or {}).items()),
        ],
        forbid_unknown_fields=strict,
    )
    decode = msgspec.json.Decoder(made).decode

    def read(body: bytes) -> Any:
        try:
            found = decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # the protocol's own way says what is wrong, or takes it after all
        given = [name for name in tables if getattr(found, name) is not msgspec.UNSET]
        return found if len(given) == 1 else None

    return read
