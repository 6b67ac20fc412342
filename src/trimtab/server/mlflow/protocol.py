"""The way of one MLflow request: its path finds an endpoint, its body or query becomes a message, a thread
does the work, and the answer goes out as JSON.

There is no framework between: MLflow's clients send thousands of small requests, and what routing and
validation by a framework cost is more than what most of them do.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import re
import time
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from trimtab.errors import InvalidInputError, TrimtabError
from trimtab.server.mlflow.errors import EndpointMissingError, answer, answer_mlflow_error
from trimtab.server.mlflow.threads import Threads
from trimtab.store.replay import StoreClock
from trimtab.store.sqlite import SqliteDatabase
from trimtab.tracking import experiments
from trimtab.tracking.metrics import MetricWriter
from trimtab.workspace import Workspace

Request = TypeVar("Request", bound=msgspec.Struct)

_log = logging.getLogger(__name__)
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")


BODY = "trimtab.body"
"""Where a scope has the body, if it was read already."""

QUICK = frozenset({("GET", "runs/get"), ("GET", "experiments/get"), ("GET", "experiments/get-by-name")})
"""Reads of a few rows."""

CLOCK_SECONDS = 0.05
"""How late a server may hear of the beginning of a replay."""

THREADS = 32
"""Requests that are worked on at once: as many as the store has connections."""


class Empty(msgspec.Struct):
    """A message that says nothing."""


class Door:
    """What MLflow's endpoints share: the workspace and the writer of their metrics."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.writer = MetricWriter(workspace.database)
        self.sequence = itertools.count(1)
        self.threads = Threads(THREADS, "mlflow")
        # A look into a file is quicker than the way to a thread and back; one over the network may hang.
        self.reads_at_once = isinstance(workspace.database, SqliteDatabase)
        self._has_default = False
        self._looked_at = 0.0

    def caller(self, actor: str) -> Caller:
        """The workspace in somebody's name. Makes the experiment 0 when first asked."""
        clock, now = self.workspace.clock, time.monotonic()
        # In real time there is nothing to catch up with, until a replay begins.
        if now - self._looked_at > CLOCK_SECONDS or not isinstance(clock, StoreClock) or clock.replay:
            clock.refresh()
            self._looked_at = now
        if not self._has_default:
            self.workspace.acting_as("mlflow").write(experiments.make_default)
            self._has_default = True
        return Caller(self, self.workspace.acting_as(actor))


class Caller:
    """Who asks, and for what workspace."""

    def __init__(self, door: Door, workspace: Workspace) -> None:
        self.workspace = workspace
        self.writer = door.writer
        self.sequence = door.sequence


class Endpoint(msgspec.Struct, frozen=True):
    """One method and path, such as "runs/get" or "logged-models/{model_id}", and what answers it."""

    method: str
    path: str
    request: type[msgspec.Struct]
    answer: Callable[[Caller, Any], object]


def endpoint(
    method: str, path: str, request: type[Request], answer: Callable[[Caller, Request], object]
) -> Endpoint:
    """An endpoint whose function takes the message that it names."""
    return Endpoint(method, path, request, answer)


class Protocol:
    """Answers MLflow's JSON endpoints below `prefix`."""

    def __init__(self, door: Door, prefix: str, endpoints: Iterable[Endpoint]) -> None:
        self._door = door
        self._prefix = prefix.rstrip("/") + "/"
        self._plain: dict[tuple[str, str], Endpoint] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Endpoint]] = []
        for each in endpoints:
            if "{" in each.path:
                pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(each.path))
                self._patterns.append((each.method, re.compile(pattern), each))
            else:
                self._plain[each.method, each.path] = each

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = await whole_body(scope, receive)
        if self._door.reads_at_once and (scope["method"], scope["path"].removeprefix(self._prefix)) in QUICK:
            response = self._answer(scope, body)
        else:
            response = await self._door.threads.run(self._answer, scope, body)
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await send({"type": "http.response.body", "body": response.body})

    def _answer(self, scope: Scope, body: bytes) -> Response:
        path = scope["path"].removeprefix(self._prefix)
        return guarded(path, lambda: self._work(scope, path, body))

    def _work(self, scope: Scope, path: str, body: bytes) -> Response:
        found, from_path = self._find(scope["method"], path)
        request = read_request(found.request, scope, body, from_path)
        answer = found.answer(self._door.caller(actor_of(scope)), request)
        return Response(b"{}" if answer is None else encode(answer), media_type="application/json")

    def _find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        if (plain := self._plain.get((method, path))) is not None:
            return plain, {}
        for its_method, pattern, each in self._patterns:
            if its_method == method and (match := pattern.fullmatch(path)):
                return each, match.groupdict()
        raise EndpointMissingError(f"Trimtab has no MLflow endpoint {method} {self._prefix}{path:.200}.")


def guarded(what: str, work: Callable[[], Response]) -> Response:
    """The answer of `work`, or to what it raised."""
    try:
        return work()
    except TrimtabError as error:
        return answer_mlflow_error(error)
    except Exception:  # noqa: BLE001  (logged, and told in the shape that the client reads)
        _log.exception("MLflow request %s", what)
        return answer(500, "INTERNAL_ERROR", "Something went wrong within the server; its log says what.")


async def whole_body(scope: Scope, receive: Receive) -> bytes:
    """The body of a request, which was limited before."""
    if (known := scope.get(BODY)) is not None:
        return bytes(known)
    parts: list[bytes] = []
    while True:
        message: Message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def actor_of(scope: Scope) -> str:
    """Who is named in the journal: the header X-Trimtab-Actor, else "mlflow"."""
    for name, value in scope["headers"]:
        if name == b"x-trimtab-actor":
            return str(value.decode("latin-1")) or "mlflow"
    return "mlflow"


def read_request(
    kind: type[Request], scope: Scope, body: bytes, from_path: dict[str, str] | None = None
) -> Request:
    """The message of a request: its query for GET, its JSON body otherwise, and what the path says.

    Numbers may come as text, as protobuf's JSON has them; what is not known is passed over. Raises
    InvalidInputError.
    """
    query = scope["query_string"]
    try:
        if (scope["method"] == "GET" and (query or not body)) or from_path or not body:
            return msgspec.convert(_builtins(kind, query, body, from_path or {}), kind, strict=False)
        if b"\\u0000" in body:
            raise InvalidInputError("The request has a NUL in it.")
        try:
            return msgspec.json.decode(body, type=kind, strict=False)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # Python's JSON has NaN and infinities, and MLflow takes them.
            return msgspec.convert(json.loads(body), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"The request is not JSON: {error!s:.200}") from None


def _builtins(kind: type[msgspec.Struct], query: bytes, body: bytes, more: dict[str, str]) -> dict[str, Any]:
    lists = _repeated(kind)
    values: dict[str, Any] = {}
    for name, texts in parse_qs(query.decode("latin-1"), keep_blank_values=True).items():
        if any("\0" in text or "\ufffd" in text for text in texts):
            raise InvalidInputError(f"The parameter '{name:.80}' has a NUL in it, or is not UTF-8.")
        values[name] = texts if name in lists else texts[0]
    if body:
        decoded = msgspec.json.decode(body)
        if not isinstance(decoded, dict) or b"\\u0000" in body:
            raise InvalidInputError("The request is not a JSON object, or has a NUL in it.")
        values |= decoded
    return values | more


@functools.cache
def _repeated(kind: type[msgspec.Struct]) -> set[str]:
    hints = typing.get_type_hints(kind)
    return {name for name, hint in hints.items() if "list[" in str(hint)}


def _explained(error: msgspec.ValidationError) -> InvalidInputError:
    text = str(error)
    place = _PLACE.search(text)
    name = place[1] if place else ""
    if missing := _MISSING.search(text):
        name = f"{name}.{missing[1]}" if name else missing[1]
    if missing or "got `null`" in text or "of length >= 1" in text:
        return InvalidInputError(
            f"Missing value for required parameter '{name}'. "
            "See the API docs for more information about request parameters."
        )
    what = text[: place.start()] if place else text
    return InvalidInputError(f"Invalid value for parameter '{name}' supplied: {what}.")


encode = msgspec.json.Encoder().encode
