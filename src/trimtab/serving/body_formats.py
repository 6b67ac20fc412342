"""Rows in the formats that MLflow's and TensorFlow Serving's clients send, made into columns.

Every function raises InvalidInputError, naming the row, for data that are no table. Rows without names are in
the order of the model's columns.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec

from trimtab.errors import InvalidInputError, MalformedError

Table = dict[str, list[Any]]

LONGEST_CELL = 2**20


class SplitFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data frame as `DataFrame.to_dict("split")` gives it."""

    data: list[list[Any]]
    columns: list[str | int] | None = None
    index: list[Any] | None = None


def from_split(frame: SplitFrame, names: Sequence[str]) -> Table:
    """The columns of a frame; without names they are `names`."""
    if frame.index is not None and len(frame.index) != len(frame.data):
        raise InvalidInputError(
            f"The index has {len(frame.index)} values for {len(frame.data)} rows.", hint="Leave it out."
        )
    if frame.columns is None:
        return from_rows(frame.data, names)
    given = [str(name) for name in frame.columns]
    if len(set(given)) != len(given):
        twice = next(name for name in given if given.count(name) > 1)
        raise InvalidInputError(f"The column '{twice:.60}' is given twice.")
    return from_rows(frame.data, given, named=True)


def from_records(records: Sequence[Any]) -> Table:
    """The columns of rows by name; what a row has not is missing in it."""
    if not records:
        raise _no_rows()
    for place, record in enumerate(records):
        if type(record) is not dict:
            raise InvalidInputError(
                f"Row {place} is {_kind(record)}.", hint='Write each row as {"COLUMN": VALUE, ...}.'
            )
    if len(records) == 1:
        return {name: [value] for name, value in records[0].items()}
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def from_rows(rows: Sequence[Any], names: Sequence[str], *, named: bool = False) -> Table:
    """The columns of rows of values in the order of `names`; `named` if the request itself names them."""
    if not rows:
        raise _no_rows()
    width = len(names)
    for place, row in enumerate(rows):
        if type(row) is not list or len(row) != width:
            has = f"has {len(row)} values" if isinstance(row, list) else f"is {_kind(row)}"
            raise InvalidInputError(
                f"Row {place} {has}, and there are {width} columns.",
                hint="" if named else f"They are, in this order: {', '.join(names)}.",
            )
    if len(rows) == 1:
        return {name: [value] for name, value in zip(names, rows[0], strict=True)}
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def from_instances(instances: Any, names: Sequence[str]) -> Table:
    """The columns of TensorFlow Serving's row format: rows by name, rows of values in the order of `names`,
    or single values for a model of one column."""
    if isinstance(instances, dict):  # MLflow takes columns here, too
        return from_inputs(instances, names)
    if not isinstance(instances, list):
        raise InvalidInputError(f"'instances' is {_kind(instances)} and not a list of rows.")
    if not instances:
        raise _no_rows()
    first = instances[0]
    if isinstance(first, dict) and not _is_binary(first):
        return {name: _unwrapped(values, name) for name, values in from_records(instances).items()}
    if isinstance(first, list):
        return from_rows(instances, names)
    if len(names) != 1:
        raise InvalidInputError(
            f"Row 0 is {_kind(first)}, and the model takes {len(names)} columns.",
            hint=f"Give each row as a list of its values, in this order: {', '.join(names)}.",
        )
    return {names[0]: _unwrapped(instances, names[0])}


def from_inputs(inputs: Any, names: Sequence[str]) -> Table:
    """The columns of TensorFlow Serving's column format: lists by name, of shape [rows] or [rows, 1]; single
    values by name, for one row; or without names what the row format takes."""
    if not isinstance(inputs, dict):
        return from_instances(inputs, names)
    if not inputs:
        raise InvalidInputError("The request has no columns.", hint=f"Give: {', '.join(names)}.")
    if not any(isinstance(values, list) for values in inputs.values()):
        return {name: _unwrapped([value], name) for name, value in inputs.items()}
    made: Table = {}
    rows = -1
    for name, values in inputs.items():
        if not isinstance(values, list):
            raise InvalidInputError(f"The column '{name:.60}' is {_kind(values)} and not a list of values.")
        if rows >= 0 and len(values) != rows:
            raise InvalidInputError(
                f"The column '{name:.60}' has {len(values)} values where others have {rows}.",
                hint="Give every column one value for each row.",
            )
        rows = len(values)
        made[name] = _unwrapped(values, name)
    if rows == 0:
        raise _no_rows()
    return made


def from_csv(text: str, names: Sequence[str], *, header: bool) -> dict[str, list[str]]:
    """The columns of a CSV text, as texts; without a header they are `names`. Blank lines are passed over,
    and so is a column without a name, which is the index that pandas writes."""
    # A text with quotes in it may have very long cells; what a request may have is limited elsewhere.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    lines: list[list[str]] = []
    try:
        given = [name.strip() for name in next(reader, [])] if header else list(names)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(given):
                raise InvalidInputError(
                    f"Line {reader.line_num} of the CSV text has {len(cells)} values, and there are "
                    f"{len(given)} columns."
                )
            lines.append(cells)
    except csv.Error as error:
        raise MalformedError(f"Line {reader.line_num} of the CSV text is not CSV: {error}.") from None
    if not given:
        raise InvalidInputError("The CSV text is empty.", hint=f"Give a header: {','.join(names)}")
    if len(set(given)) != len(given):
        twice = next(name for name in given if given.count(name) > 1)
        raise InvalidInputError(f"The column '{twice:.60}' is given twice in the header.")
    if not lines:
        raise _no_rows()
    return {name: list(cells) for name, cells in zip(given, zip(*lines, strict=True), strict=True) if name}


def _unwrapped(values: list[Any], name: str) -> list[Any]:
    """Values of the shape [rows, 1] as [rows], and binary values as the texts that they are."""
    kind = type(values[0]) if values else None
    if kind is list:
        for place, value in enumerate(values):
            if type(value) is not list or len(value) != 1:
                raise InvalidInputError(
                    f"The column '{name:.60}' has in row {place} no single value.",
                    hint="A column has the shape [rows] or [rows, 1].",
                )
        return _unwrapped([value[0] for value in values], name) if type(values[0][0]) is not list else values
    if kind is dict and _is_binary(values[0]):
        return [_from_base64(value, name, place) for place, value in enumerate(values)]
    return values


def _is_binary(value: dict[str, Any]) -> bool:
    return value.keys() == {"b64"}


def _from_base64(value: Any, name: str, place: int) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        return base64.b64decode(value["b64"], validate=True).decode()
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InvalidInputError(
            f"The column '{name:.60}' has in row {place} no base64 of a UTF-8 text."
        ) from None


def _no_rows() -> InvalidInputError:
    return InvalidInputError("The request has no rows.", hint="Send at least one.")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else "a text" if isinstance(value, str) else "a number"
