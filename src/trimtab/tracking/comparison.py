"""Comparisons and pages in SQL that mean the same on SQLite and Postgres."""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, func, literal

from trimtab.errors import InvalidInputError
from trimtab.tracking.filters import Condition

_GLOB_SIGNS = re.compile(r"[*?\[]")
_ANY_SIGN = re.compile("[%_]")


def compared(connection: Connection, column: ColumnElement[Any], condition: Condition) -> ColumnElement[bool]:
    """`column` compared with the condition's value. LIKE tells upper from lower case, ILIKE does not, and
    neither has an escape sign."""
    value: Any = condition.value
    match condition.comparator:
        case "LIKE" if connection.dialect.name == "sqlite":
            # Its LIKE ignores case; GLOB does not.
            return column.op("GLOB", is_comparison=True)(_glob(str(value)))
        case "LIKE":
            return column.like(value, escape="")
        case "ILIKE":
            return func.lower(column).like(func.lower(literal(value)), **_no_escape(connection))
        case "IN":
            return column.in_(value)
        case "NOT IN":
            return column.not_in(value)
        case "IS NULL":
            return column.is_(None)
        case "IS NOT NULL":
            return column.is_not(None)
        case sign:
            return column.op("<>" if sign == "!=" else sign, is_comparison=True)(value)


def literal_beginning(pattern: str) -> str:
    """What every text begins with that is LIKE the pattern."""
    return _ANY_SIGN.split(pattern, maxsplit=1)[0]


def offset_token(offset: int) -> str:
    """The token of the page that begins after `offset` rows."""
    return base64.urlsafe_b64encode(msgspec.json.encode({"offset": offset})).decode()


def offset_of(token: str) -> int:
    """How many rows come before the page that a token asks for ("": none); raises InvalidInputError."""
    if not token:
        return 0
    try:
        offset = msgspec.json.decode(base64.urlsafe_b64decode(token), type=dict[str, int])["offset"]
    except (ValueError, KeyError):
        offset = -1
    if not 0 <= offset < 2**62:
        raise InvalidInputError(f"Invalid page token '{token:.80}'.")
    return offset


def _glob(pattern: str) -> str:
    escaped = _GLOB_SIGNS.sub(lambda sign: f"[{sign[0]}]", pattern)
    return escaped.replace("%", "*").replace("_", "?")


def _no_escape(connection: Connection) -> dict[str, str]:
    return {} if connection.dialect.name == "sqlite" else {"escape": ""}
