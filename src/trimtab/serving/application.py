"""The gateway's HTTP side: one RSGI application in front of the protocols."""

from __future__ import annotations

import logging
import time
from typing import Protocol
from urllib.parse import unquote

import msgspec

from trimtab.errors import NotFoundError, TrimtabError, UnavailableError
from trimtab.serving import invocations, open_inference, openapi, plain_json, tensorflow_serving
from trimtab.serving.access import check_origin
from trimtab.serving.answering import Answering
from trimtab.serving.bodies import Channel, Patience
from trimtab.serving.frames import FailureFrame, encoded
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.requests import (
    EVENT_TIME,
    Headers,
    MethodNotAllowedError,
    Request,
    Response,
    Speaker,
    allow,
    event_time,
)
from trimtab.serving.state import State

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_EVENT_TIME = EVENT_TIME.lower()
_HEALTH = {"/", "/health", "/ping", "/v2/health/live", "/v2/health/ready"}


class Scope(Protocol):
    """What RSGI tells about a request."""

    proto: str
    method: str
    path: str
    query_string: str
    authority: str | None
    headers: Headers


_SPEAKERS = (
    Speaker("/v2", open_inference.respond, open_inference.failure),
    Speaker("/v1/endpoints", plain_json.respond, plain_json.failure),
    Speaker("/invocations", invocations.respond, invocations.failure),
    Speaker("/v1/models", tensorflow_serving.respond, tensorflow_serving.failure),
    Speaker("/endpoints", invocations.respond, invocations.failure),
    Speaker("/serving-endpoints", invocations.respond, invocations.failure),
    Speaker("/version", invocations.respond, invocations.failure),
    Speaker("/openapi.json", openapi.respond, plain_json.failure),
)


class Gateway:
    """Answers HTTP requests out of the present view of a gateway worker."""

    def __init__(self, state: State, log: PredictionLog, *, body_limit: int) -> None:
        self._state = state
        self._log = log
        self._body_limit = body_limit
        self._patience = Patience()
        self._answering: Answering | None = None

    async def __rsgi__(self, scope: Scope, channel: Channel) -> None:
        """Answer one request."""
        started = time.perf_counter_ns()
        state = self._state
        state.in_flight += 1
        try:
            response = await self._respond(scope, channel, started)
            headers = [("content-type", response.content_type), *response.headers]
            if state.draining:
                headers.append(("connection", "close"))
            channel.response_bytes(response.status, headers, response.body)
        finally:
            state.in_flight -= 1

    async def _respond(self, scope: Scope, channel: Channel, started: int) -> Response:
        path = scope.path
        speaker = next((each for each in _SPEAKERS if path.startswith(each.prefix)), None)
        failure = plain_json.failure if speaker is None else speaker.failure
        try:
            return await self._routed(scope, channel, path, started, speaker)
        except TrimtabError as error:
            headers: list[tuple[str, str]] = []
            if isinstance(error, UnavailableError):
                headers.append(("retry-after", "5"))
            if isinstance(error, MethodNotAllowedError):
                headers.append(("allow", error.allowed))
            if error.http_status == 408:
                headers.append(("connection", "close"))
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

    async def _routed(
        self, scope: Scope, channel: Channel, path: str, started: int, speaker: Speaker | None
    ) -> Response:
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
        body = b""
        if scope.method == "POST":
            body = await self._patience.read(headers, channel, self._body_limit)
        if view.ids is None:
            view = await self._state.ready_view()
        if view.ids is None:
            raise UnavailableError("This gateway is starting and does not know its routes yet.")
        parts = [unquote(part) if "%" in part else part for part in path.strip("/").split("/")]
        request = Request(
            method=scope.method,
            parts=parts,
            query=scope.query_string,
            headers=headers,
            body=body,
            at=at,
            started=started,
            view=view,
            state=self._state,
            answering=self.answering(view.ids),
            log=self._log,
        )
        if speaker is not None:
            return await speaker.respond(request)
        if parts == ["v1", "status"]:
            allow(request, "GET")
            return self._status()
        raise NotFoundError(
            f"There is nothing at {path[:200]}.", hint="Endpoints are at /v1/endpoints and /v2/models."
        )

    def answering(self, ids: PredictionIds) -> Answering:
        """What answers questions under these prediction ids, for every protocol of this worker."""
        if self._answering is None or self._answering.ids is not ids:
            self._answering = Answering(ids, self._log, self._state)
        return self._answering

    def _health(self, method: str, path: str) -> Response:
        if method not in {"GET", "HEAD"}:
            raise MethodNotAllowedError(method, "GET")
        if path == "/":  # where KServe's clients of version 1 look for life
            return Response(200, b'{"status":"alive"}')
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
