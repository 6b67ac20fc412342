"""Plain values as Python text: what training computed and the packed code only needs to know."""

from __future__ import annotations

import ast
import math
from typing import Any

_LARGEST = 2**20


def literal(value: object) -> str | None:
    """The text that makes an equal value: of None, truth values, numbers, texts, bytes, and of lists, tuples,
    sets and dictionaries of them. None for any other value, or one that is too long (1 MiB)."""
    text = _text(value)
    return text if text is not None and len(text) <= _LARGEST else None


def value_of(text: str) -> Any:
    """The value that `literal` wrote. Runs nothing; raises ValueError for any other text."""
    if len(text) > _LARGEST:
        raise ValueError(f"{text:.60}... is too long")
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"{text:.60} is no plain value") from error


def _text(value: object) -> str | None:
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes):
        return repr(value)
    if isinstance(value, float) and kind.__module__ in ("builtins", "numpy"):
        return _float(float(value))
    if kind.__module__ == "numpy" and kind.__name__.startswith(("int", "uint", "float", "bool")):
        item = getattr(value, "item", None)
        return None if item is None or getattr(value, "shape", None) != () else _text(item())
    if isinstance(value, dict) and kind is dict:
        pairs = [(_text(key), _text(held)) for key, held in value.items()]
        if any(key is None or held is None for key, held in pairs):
            return None
        return "{" + ", ".join(f"{key}: {held}" for key, held in pairs) + "}"
    if isinstance(value, list | tuple | set) and kind in (list, tuple, set):
        return _of_several(value)
    return None


def _of_several(values: list[Any] | tuple[Any, ...] | set[Any]) -> str | None:
    texts = [_text(value) for value in values]
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    if isinstance(values, list):
        return f"[{', '.join(known)}]"
    if isinstance(values, tuple):
        return f"({', '.join(known)}{',' if len(known) == 1 else ''})"
    return f"{{{', '.join(sorted(known))}}}" if known else "set()"


def _float(value: float) -> str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)
