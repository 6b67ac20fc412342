"""What the gateway's protocols share: the request as it came, the response as it goes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple, TypeVar

import msgspec

from trimtab.errors import InvalidInputError, MalformedError, TrimtabError
from trimtab.serving.answering import Answering
from trimtab.serving.frames import Label
from trimtab.serving.http_messages import Headers, Response
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import LONGEST_KEY
from trimtab.serving.state import State, View
from trimtab.store.types import to_microseconds

T = TypeVar("T")

EVENT_TIME = "Trimtab-Event-Time"

to_json = msgspec.json.Encoder().encode
"""A value as the bytes of its JSON."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request. `parts` are the path's segments, `query` what stands behind its question mark; `at`
    is its event time in microseconds since 1970; `started` is `time.perf_counter_ns()` at its arrival, and
    `view` is what `state` held then."""

    method: str
    parts: list[str]
    query: str
    headers: Headers
    body: bytes
    at: int
    started: int
    view: View
    state: State
    answering: Answering
    log: PredictionLog


class Speaker(NamedTuple):
    """A protocol: what answers its requests (or raises TrimtabError), and how it words errors."""

    respond: Callable[[Request], Awaitable[Response]]
    failure: Callable[[TrimtabError], bytes]


class MethodNotAllowedError(TrimtabError):
    """This address takes another method."""

    code = "method_not_allowed"
    http_status = 405

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"{method} is not for this address.", hint=f"Use {allowed}.")
        self.allowed = allowed


def allow(request: Request, *methods: str) -> None:
    """Raise MethodNotAllowedError unless the request has one of these methods."""
    if request.method not in methods:
        raise MethodNotAllowedError(request.method, ", ".join(methods))


def json_answer(value: object, headers: tuple[tuple[str, str], ...] = (), *, status: int = 200) -> Response:
    """A response that holds a value as JSON."""
    return Response(status, to_json(value), headers)


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """The body as `decode` (of a msgspec decoder) reads it; raises MalformedError, InvalidInputError."""
    if not body.strip():
        raise MalformedError("The request has no body.", hint="Send JSON.")
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"The request is not understood: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "JSON has no NaN or Infinity: write null for a missing value." if _not_numbers(body) else ""
        raise MalformedError(f"The body is not valid JSON: {error}.", hint=hint) from None
    except RecursionError:
        raise MalformedError("The body is nested too deeply.") from None


def _not_numbers(body: bytes) -> bool:
    return b"NaN" in body or b"Infinity" in body


def checked_key(key: str | int | None) -> str | None:
    """The key as text; raises InvalidInputError for one that is empty, too long, or that no store can hold:
    one such row would keep all that are logged after it waiting."""
    if key is None:
        return None
    text = str(key)
    if not 0 < len(text) <= LONGEST_KEY:
        raise InvalidInputError(f"A key has between 1 and {LONGEST_KEY} characters, and this {len(text)}.")
    if "\0" in text:
        raise InvalidInputError("A key cannot have the character NUL in it.", hint="Leave it out.")
    return text


def checked_label(label: Label, place: int) -> Label:
    """The label of item `place`; whole numbers beyond 64 bits become floats, and those that are none are
    refused with InvalidInputError."""
    if not isinstance(label, int) or -(2**63) <= label < 2**63:
        return label
    try:
        return float(label)
    except OverflowError:
        raise InvalidInputError(
            f"The label of item {place} is a number too large to be one.", hint="Send a number up to 1e308."
        ) from None


def event_time(header: str | None, view: View) -> int:
    """The event time of a request; raises MalformedError for a header that cannot be used."""
    if header is None:
        return time.time_ns() // 1000 if view.replay_at is None else view.replay_at
    if view.replay_at is None:
        raise MalformedError(
            f"The header {EVENT_TIME} is accepted only in a workspace in replay.", hint="Leave it out."
        )
    return microseconds(header, f"The header {EVENT_TIME}")


def microseconds(text: str, what: str) -> int:
    """An RFC 3339 time in microseconds since 1970; raises MalformedError if it is not one, or lies outside
    the years 1900 to 2999."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not 1900 <= at.year < 3000:
        raise MalformedError(
            f"{what} is not a time that can be used: {text[:60]!r}.",
            hint="Write it with its zone, as in 2011-09-01T00:00:00Z.",
        )
    return to_microseconds(at)
