"""The language in which runs, experiments and models are searched: MLflow's filters and orders.

    metrics.loss < 0.3 AND params.`learning rate` = '0.1' AND tags.team LIKE 'b%' AND run_id IN ('a', 'b')

Conditions are joined by AND alone. Here is what they say; what they mean in SQL is in the
modules that search.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from trimtab.errors import InvalidInputError

Entity = Literal["attribute", "metric", "param", "tag", "dataset"]

Comparator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "LIKE", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"
]  # fmt: skip

LONGEST_PATTERN = 10_000
"""Characters of what LIKE and ILIKE compare with; SQLite refuses much longer ones."""

_ENTITIES: Mapping[str, Entity] = {
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
}

_ORDERED = frozenset({"=", "!=", "<", "<=", ">", ">="})
_TEXTUAL = frozenset({"=", "!=", "LIKE", "ILIKE"})
_LISTED = _TEXTUAL | {"IN", "NOT IN"}
_PRESENT = _TEXTUAL | {"IS NULL", "IS NOT NULL"}

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"""(?:\w+|`[^`]+`|"[^"]+")(?:\.(?:\w+|`[^`]+`|"[^"]+"))*""")
_COMPARATOR = re.compile(
    r"(>=|<=|!=|<>|=|<|>)|(NOT\s+IN|IS\s+NOT\s+NULL|IS\s+NULL|IN|LIKE|ILIKE)(?![\w])", re.IGNORECASE
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
_TEXT = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_AND = re.compile(r"AND(?!\w)", re.IGNORECASE)
_ORDER = re.compile(r"^(.*?)(?:\s+(asc|desc))?$", re.IGNORECASE | re.DOTALL)


class Vocabulary(msgspec.Struct, frozen=True):
    """What may be searched: `attributes` gives for each name that is known the name of its column, `numeric`
    those that are numbers, `listed` those that can be compared with a list."""

    attributes: Mapping[str, str]
    numeric: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    entities: frozenset[Entity] = frozenset({"attribute", "tag"})


class Condition(msgspec.Struct, frozen=True):
    """One comparison. `value` is a float for what is numeric, a tuple for lists, None for IS [NOT] NULL."""

    entity: Entity
    key: str
    comparator: Comparator
    value: str | float | tuple[str, ...] | None


class Order(msgspec.Struct, frozen=True):
    """One key to order by."""

    entity: Entity
    key: str
    ascending: bool


def parse_filter(text: str, vocabulary: Vocabulary) -> list[Condition]:
    """The conditions of a filter; raises InvalidInputError for what is not in the language."""
    if not text.strip():
        return []
    reader = _Reader(text, vocabulary)
    conditions = [reader.condition()]
    while not reader.at_end():
        reader.take(_AND, "AND")
        conditions.append(reader.condition())
    return conditions


def parse_order(text: str, vocabulary: Vocabulary) -> Order:
    """One clause of an order, "metrics.loss DESC"; raises InvalidInputError."""
    match = _ORDER.match(text.strip())
    assert match is not None  # it matches anything
    name = match[1].strip()
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(f"Invalid order_by clause '{text:.200}'. Could not be parsed.")
    entity, key = _identified(name, vocabulary)
    return Order(entity, key, (match[2] or "asc").lower() == "asc")


class _Reader:
    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self._text = text
        self._vocabulary = vocabulary
        self._at = _skip(text, 0)

    def at_end(self) -> bool:
        return self._at == len(self._text)

    def take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            found = self._text[self._at : self._at + 40] or "the end"
            raise InvalidInputError(f"Invalid filter '{self._text:.200}': expected {what}, found '{found}'.")
        self._at = _skip(self._text, match.end())
        return match

    def condition(self) -> Condition:
        entity, key = _identified(self.take(_NAME, "a name")[0], self._vocabulary)
        spelled = " ".join(self.take(_COMPARATOR, "a comparison")[0].upper().split())
        comparator: Comparator = "!=" if spelled == "<>" else spelled  # type: ignore[assignment]  # by pattern
        numeric = entity == "metric" or (entity == "attribute" and key in self._vocabulary.numeric)
        allowed = _allowed(entity, key, numeric, self._vocabulary)
        if comparator not in allowed:
            raise InvalidInputError(f"Invalid comparator '{comparator}' for {entity} '{key}'.")
        if comparator in {"IS NULL", "IS NOT NULL"}:
            return Condition(entity, key, comparator, None)
        if numeric:
            return Condition(entity, key, comparator, float(self.take(_NUMBER, "a numeric value")[0]))
        if comparator in {"IN", "NOT IN"}:
            return Condition(entity, key, comparator, self._list())
        value = self._string()
        if comparator in {"LIKE", "ILIKE"} and len(value) > LONGEST_PATTERN:
            raise InvalidInputError(f"A pattern may have {LONGEST_PATTERN} characters.")
        return Condition(entity, key, comparator, value)

    def _string(self) -> str:
        match = self.take(_TEXT, "a quoted string value")
        return match[1] if match[1] is not None else match[2]

    def _list(self) -> tuple[str, ...]:
        self.take(re.compile(r"\("), "a list of quoted string values")
        values = [self._string()]
        while self.take(re.compile(r"[,)]"), "',' or ')'")[0] == ",":
            values.append(self._string())
        return tuple(values)


def _identified(name: str, vocabulary: Vocabulary) -> tuple[Entity, str]:
    prefix, point, key = name.partition(".")
    if not point or name[0] in '`"':
        entity: Entity | None = "attribute"
        key = name
    else:
        entity = _ENTITIES.get(prefix)
    if entity is None or entity not in vocabulary.entities:
        valid = ", ".join(sorted(vocabulary.entities))
        raise InvalidInputError(f"Invalid entity type '{prefix:.80}'. Valid values are: {valid}.")
    key = key[1:-1] if len(key) > 1 and key[0] == key[-1] and key[0] in '`"' else key
    if entity == "attribute":
        column = vocabulary.attributes.get(key)
        if column is None:
            valid = ", ".join(sorted(vocabulary.attributes))
            raise InvalidInputError(f"Invalid attribute key '{key:.80}' specified. Valid keys are: {valid}.")
        key = column
    elif entity == "dataset" and key not in {"name", "digest", "context"}:
        raise InvalidInputError(f"Invalid dataset key '{key:.80}' specified. Use name, digest or context.")
    return entity, key


def _allowed(entity: Entity, key: str, numeric: bool, vocabulary: Vocabulary) -> frozenset[str]:
    if numeric:
        return _ORDERED
    if entity in {"param", "tag"}:
        return _PRESENT
    if entity == "dataset" or key in vocabulary.listed:
        return _LISTED
    return _TEXTUAL


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # it matches nothing too
    return match.end()
