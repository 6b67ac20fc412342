"""Values as clients of MLflow send them, made those that a signature's columns take.

`mlflow models serve` casts a column to its type in the signature with pandas. Here the same is done where
nothing is lost or guessed:

| column | taken beside its own values |
|---|---|
| number | true and false as 1 and 0, a number written as a text ("1.5"), NaN for a missing value |
| boolean | 0 and 1, and the words true and false in a text, in any case |
| category of whole numbers | a whole number written as a float or a text (5.0, "5") |
| category of texts | nothing |

On purpose it is not MLflow's own: there every number but 0 and every text but "" is true, the text "false"
among them; a fraction is cut off to make a whole number; and true is the whole number 1. These are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from trimtab.errors import InvalidInputError
from trimtab.models.signature import Column
from trimtab.serving.loaded_endpoints import LoadedEndpoint

MISSING_WORDS = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
"""What stands for a missing value in a CSV file, as in pandas."""

_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*|\s*[+-]?nan\s*", re.IGNORECASE)
_WHOLE = re.compile(r"\s*([+-]?\d{1,30})(?:\.0*)?\s*")
_WORDS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_NUMBERS: frozenset[type] = frozenset({int, float, type(None)})
_WHOLE_NUMBERS: frozenset[type] = frozenset({int, type(None)})
_TRUTH_VALUES: frozenset[type] = frozenset({bool, type(None)})
_TEXTS: frozenset[type] = frozenset({str, type(None)})
_PLAIN = re.compile(r"[0-9.eE+-]*")

Coerce = Callable[[Any], Any]


def number(value: Any) -> Any:
    """A number for true, false and a number's text; every other value as it is, for the model to judge."""
    if type(value) is bool:
        return float(value)
    if type(value) is str and _NUMBER.fullmatch(value):
        return float(value.strip())  # float() knows fewer blanks than both
    return value


def boolean(value: Any) -> Any:
    """A truth value for 0, 1 and its words; every other value as it is."""
    kind = type(value)
    if kind is int or kind is float:
        return bool(value) if value in {0, 1} else value
    if kind is str:
        return _WORDS.get(value.strip().lower(), value)
    return value


def whole_number(value: Any) -> Any:
    """A whole number for its text; every other value as it is."""
    if type(value) is str and (match := _WHOLE.fullmatch(value)):
        return int(match[1])
    return value


_BY_KIND: dict[str, Coerce] = {"number": number, "boolean": boolean}


def coercion_of(column: Column) -> Coerce | None:
    """What is done to each value of a column, or None if nothing is."""
    if column.categories and isinstance(column.categories[0], int):
        return whole_number
    return _BY_KIND.get(column.kind)


def _types_of(column: Column) -> frozenset[type]:
    if column.kind == "number":
        return _NUMBERS
    if column.categories and isinstance(column.categories[0], int):
        return _WHOLE_NUMBERS
    return _TRUTH_VALUES if column.kind == "boolean" else _TEXTS


class Coercion:
    """The columns of an endpoint, and what is done to the values of each."""

    def __init__(self, endpoint: LoadedEndpoint) -> None:
        own = endpoint.predictors[endpoint.primary].signature
        self.names = own.names
        self._own = frozenset(own.names)
        self._accepted = endpoint.accepted
        columns: dict[str, Column] = {}
        for place in endpoint.order[endpoint.primary]:
            for column in endpoint.predictors[place].signature.columns:
                columns.setdefault(column.name, column)
        self._coerce = {name: coercion_of(column) for name, column in columns.items()}
        self._types = {name: _types_of(columns[name]) for name in self.names}
        self._numeric = set(self._types.values()) == {_NUMBERS}
        self._missing = {
            name: MISSING_WORDS.difference(map(str, column.categories)) for name, column in columns.items()
        }

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has the model's own columns and values of their own types, so that nothing is done to
        it: most have."""
        if row.keys() != self._own:
            return False
        if self._numeric:
            return set(map(type, row.values())) <= _NUMBERS
        types = self._types
        return all(type(value) in types[name] for name, value in row.items())

    def columns(self, given: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], list[str]]:
        """The columns with their values made fit, and the names of those that were left out because no
        version takes them.

        MLflow leaves out whatever it does not know. Here that is done only beside all columns of the model:
        with one of them missing, even one that may be, the unknown name may be that one misspelt, and
        InvalidInputError is raised.
        """
        left_out: list[str] = []
        if not given.keys() <= self._accepted:
            left_out = [name for name in given if name not in self._accepted]
            missing = [name for name in self.names if name not in given]
            if missing:
                raise InvalidInputError(
                    f"The model's {_columns(missing)} missing, and it has no input {_listed(left_out)}.",
                    hint=f"It takes: {', '.join(self.names)}.",
                )
        made: dict[str, list[Any]] = {}
        for name, values in given.items():
            if name not in self._accepted:
                continue
            coerce = self._coerce[name]
            if coerce is None or (coerce is number and _are_numbers(values)):
                made[name] = values
            elif coerce is number and (numbers := _all_numbers(values)) is not None:
                made[name] = numbers
            else:
                made[name] = [coerce(value) for value in values]
        return made, left_out

    def texts(self, given: dict[str, list[str]]) -> dict[str, list[Any]]:
        """Columns of texts, as in a CSV file, with None where a word says that a value is missing. A word
        that is a category of the column is that category."""
        made: dict[str, list[Any]] = {}
        for name, values in given.items():
            missing = self._missing.get(name, MISSING_WORDS)
            made[name] = [None if value in missing else value for value in values]
        return made


_made: WeakKeyDictionary[LoadedEndpoint, Coercion] = WeakKeyDictionary()


def coercion_for(endpoint: LoadedEndpoint) -> Coercion:
    """The coercion of an endpoint, made once."""
    found = _made.get(endpoint)
    if found is None:
        found = _made[endpoint] = Coercion(endpoint)
    return found


def _are_numbers(values: list[Any]) -> bool:
    if len(values) == 1:
        return type(values[0]) in _NUMBERS
    return set(map(type, values)) <= _NUMBERS


def _all_numbers(values: list[Any]) -> list[Any] | None:
    """The numbers for texts that are all plain numbers or missing, as `number` makes them; else None. A tenth
    of the time that it takes to look at each."""
    if not all(value is None or type(value) is str for value in values):
        return None
    texts = "".join([value for value in values if value is not None])
    if not _PLAIN.fullmatch(texts):
        return None
    try:
        return [None if value is None else float(value) for value in values]
    except ValueError:
        return None


def _columns(names: list[str]) -> str:
    return f"input {_listed(names)} is" if len(names) == 1 else f"inputs {_listed(names)} are"


def _listed(names: Iterable[str]) -> str:
    shown = [f"'{name:.60}'" for name in names]
    return ", ".join(shown[:10]) + (" and more" if len(shown) > 10 else "")
