"""What MLflow accepts as keys and values; `mlflow.utils.validation` is the pattern."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Sequence

from trimtab.errors import InvalidInputError
from trimtab.server.mlflow.wire import KeyValue
from trimtab.tracking.params_and_tags import checked_text

LONGEST_KEY = 250
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
LONGEST_EXPERIMENT_TAG = 20_000
LONGEST_MODEL_TAG = 100_000
MOST_METRICS = 1000
MOST_PARAMS_OR_TAGS = 100
MOST_ENTITIES = 1000

_KEY = re.compile(r"[/\w.\- :]*")


def key_of(key: str, path: str = "key") -> str:
    """`key`, if it can name a metric, a param or a tag."""
    if _is_key(key):
        return key
    if _KEY.fullmatch(key) is None:
        raise InvalidInputError(
            f"Invalid value {key!r:.300} for parameter '{path}' supplied: Names may only contain "
            "alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        )
    normal = posixpath.normpath(key)
    if normal != key or normal == "." or normal.startswith(("..", "/")):
        raise InvalidInputError(
            f"Invalid value {key!r:.300} for parameter '{path}' supplied: Names may be treated as files in "
            "certain cases, and must not resolve to other names when treated as such. This name would "
            f"resolve to {normal!r:.300}"
        )
    if len(key) > LONGEST_KEY:
        raise InvalidInputError(f"'{path}' exceeds the maximum length of {LONGEST_KEY} characters")
    return key


@functools.lru_cache(maxsize=32_768)
def _is_key(key: str) -> bool:
    """Whether a key can name a metric, a param or a tag; the same few come again and again."""
    return (
        len(key) <= LONGEST_KEY
        and _KEY.fullmatch(key) is not None
        and posixpath.normpath(key) == key
        and key != "."
        and not key.startswith(("..", "/"))
    )


def params_of(params: Sequence[KeyValue]) -> dict[str, str]:
    """Params by key; longer values are cut, as in MLflow. A key may come once."""
    keys = [param.key for param in params]
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise InvalidInputError(f"Duplicate parameter keys have been submitted: {twice}."[:500])
    return {
        key_of(param.key, f"params[{index}].key"): param.value[:LONGEST_PARAM]
        for index, param in enumerate(params)
    }


def tags_of(tags: Sequence[KeyValue]) -> dict[str, str]:
    """Tags of a run by key; longer values are cut, as in MLflow, and the last of a key counts."""
    return {key_of(tag.key, f"tags[{index}].key"): tag.value[:LONGEST_TAG] for index, tag in enumerate(tags)}


def limited_tags(tags: Sequence[KeyValue], limit: int) -> dict[str, str]:
    """Tags of anything else by key; longer values are refused."""
    for tag in tags:
        if len(tag.value) > limit:
            raise InvalidInputError(f"'value' exceeds the maximum length of {limit} characters")
    return {key_of(tag.key): checked_text(f"'{tag.key}'", tag.value) for tag in tags}


def at_most(limit: int, what: str, count: int) -> None:
    """Raise InvalidInputError for a batch that is too large."""
    if count > limit:
        raise InvalidInputError(
            f"A batch logging request can contain at most {limit} {what}. Got {count} {what}. Please split "
            f"up {what} across multiple requests and try again."
        )


def page_size(value: int, most: int) -> int:
    """How many results a page may have: 1 to `most`."""
    if not 1 <= value <= most:
        raise InvalidInputError(
            f"Invalid value {value} for parameter 'max_results' supplied. It must be at least 1, and at most "
            f"{most}."
        )
    return value
