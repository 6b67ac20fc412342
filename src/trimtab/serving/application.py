"""The gateway's HTTP side: one RSGI application in front of the protocols."""

from __future__ import annotations

import logging
import time
from importlib.metadata import version as package_version
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError, TooLargeError, TrimtabError, UnavailableError
from trimtab.serving import open_inference, plain_json
from trimtab.serving.access import check_origin
from trimtab.serving.answering import Answering
from trimtab.serving.frames import FailureFrame, encoded
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.requests import EVENT_TIME, MethodNotAllowedError, Request, Response, allow, event_time
from trimtab.serving.state import State

JSON = ("content-type", "application/json")
DRAINED_BYTES = 64 * 2**20
"""How much of a body that is too large is read and thrown away, so that the client hears why."""

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_EVENT_TIME = EVENT_TIME.lower()
_HEALTH = {"/health", "/v2/health/live", "/v2/health/ready"}


class Headers(Protocol):
    """The headers of a request, by lower-case name."""

    def get(self, key: str, default: Any = None) -> Any:
        """A header's value."""
        ...


class Scope(Protocol):
    """What RSGI tells about a request."""

    proto: str
    method: str
    path: str
    authority: str | None
    headers: Headers


class Channel(Protocol):
    """RSGI's HTTP protocol: the request's body, and the way back."""

    async def __call__(self) -> bytes:
        """The whole body."""
        ...

    def __aiter__(self) -> Any:
        """The body in chunks."""
        ...

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""
        ...


class Gateway:
    """Answers HTTP requests out of the present view of a gateway worker."""

    def __init__(self, state: State, log: PredictionLog, *, body_limit: int) -> None:
        self._state = state
        self._log = log
        self._body_limit = body_limit
        self._version = package_version("trimtab")
        self._answering: Answering | None = None

    async def __rsgi__(self, scope: Scope, channel: Channel) -> None:
        """Answer one request."""
        started = time.perf_counter_ns()
        state = self._state
        state.in_flight += 1
        try:
            response = await self._respond(scope, channel, started)
            headers = [JSON, *response.headers]
            if state.draining:
                headers.append(("connection", "close"))
            channel.response_bytes(response.status, headers, response.body)
        finally:
            state.in_flight -= 1

    async def _respond(self, scope: Scope, channel: Channel, started: int) -> Response:
        path = scope.path
        failure = open_inference.failure if path.startswith("/v2") else plain_json.failure
        try:
            return await self._routed(scope, channel, path, started)
        except TrimtabError as error:
            headers: list[tuple[str, str]] = []
            if isinstance(error, UnavailableError):
                headers.append(("retry-after", "5"))
            if isinstance(error, MethodNotAllowedError):
                headers.append(("allow", error.allowed))
            if error.http_status == 401:
                headers.append(("www-authenticate", "Bearer"))
            if error.http_status >= 500:
                self._record(path, error)
            return Response(error.http_status, failure(error), tuple(headers))
        except Exception:  # noqa: BLE001  (a bug answers 500 and ends no worker)
            _log.exception("a request to %s failed", path)
            bug = TrimtabError("The gateway failed on this request.", hint="Its log has the details.")
            self._record(path, bug)
            return Response(500, failure(bug))

    async def _routed(self, scope: Scope, channel: Channel, path: str, started: int) -> Response:
        view = self._state.view
        if path in _HEALTH:
            return self._health(scope.method, path)
        headers = scope.headers
        if view.access.required:
            view.access.check(headers.get("authorization"))
        else:
            check_origin(headers.get("host") or scope.authority or "", headers.get("origin"))
        given = headers.get(_EVENT_TIME)
        if given is not None and view.replay_at is None:
            view = await self._state.fresh_view()  # the replay may have begun this very moment
        at = event_time(given, view)
        body = await self._body(headers, channel) if scope.method == "POST" else b""
        if view.ids is None:
            raise UnavailableError("This gateway is starting and does not know its routes yet.")
        parts = [unquote(part) if "%" in part else part for part in path.strip("/").split("/")]
        request = Request(
            method=scope.method,
            parts=parts,
            body=body,
            at=at,
            started=started,
            view=view,
            answering=self._answers(view.ids),
            log=self._log,
        )
        if parts[0] == "v2":
            return await open_inference.respond(request, self._version)
        if parts[:2] == ["v1", "endpoints"]:
            return await plain_json.respond(request)
        if parts == ["v1", "status"]:
            allow(request, "GET")
            return self._status()
        raise NotFoundError(
            f"There is nothing at {path[:200]}.", hint="Endpoints are at /v1/endpoints and /v2/models."
        )

    def _answers(self, ids: PredictionIds) -> Answering:
        if self._answering is None or self._answering.ids is not ids:
            self._answering = Answering(ids, self._log, self._state)
        return self._answering

    async def _body(self, headers: Headers, channel: Channel) -> bytes:
        encoding = headers.get("content-encoding")
        if encoding not in {None, "", "identity"}:
            raise _UnsupportedEncodingError(f"The body's encoding '{encoding[:40]}' is not understood.")
        length = headers.get("content-length")
        if length is not None and length.isdigit() and int(length) <= self._body_limit:
            return await channel()
        chunks: list[bytes] = []
        size = 0
        async for chunk in channel:
            size += len(chunk)
            if size <= self._body_limit:
                chunks.append(chunk)
            else:
                chunks.clear()
                if size > DRAINED_BYTES:
                    break
        if size > self._body_limit:
            raise TooLargeError(
                f"The body is larger than {self._body_limit} bytes.",
                hint="Send fewer rows in one request, or raise the setting body_limit.",
            )
        return b"".join(chunks)

    def _health(self, method: str, path: str) -> Response:
        if method not in {"GET", "HEAD"}:
            raise MethodNotAllowedError(method, "GET")
        if path == "/v2/health/live":
            return Response(200, b'{"live":true}')
        draining, ready = self._state.draining, self._state.view.ready
        status = 200 if ready and not draining else 503
        if path == "/v2/health/ready":
            return Response(status, b'{"ready":true}' if status == 200 else b'{"ready":false}')
        word = "draining" if draining else "ok" if ready else "starting"
        return Response(status, _encode({"status": word}))

    def _status(self) -> Response:
        view, log = self._state.view, self._log
        return Response(
            200,
            _encode(
                {
                    "routes": view.table.generations,
                    "failures": dict(view.table.failures),
                    "store": view.trouble or "ok",
                    "log": {
                        "predictions": log.predictions,
                        "labels": log.labels,
                        "refused": log.refused,
                        "dropped": log.dropped,
                        "trouble": log.trouble,
                    },
                }
            ),
        )

    def _record(self, path: str, error: TrimtabError) -> None:
        """Log a failure of the gateway's own, so that service levels can be judged."""
        parts = path.strip("/").split("/")
        if len(parts) > 2 and parts[2] in self._state.view.table.endpoints:
            at = event_time(None, self._state.view)
            self._log.failed(encoded(FailureFrame(parts[2], at, error.code)), at=at)


class _UnsupportedEncodingError(InvalidInputError):
    code = "unsupported_encoding"
    http_status = 415
