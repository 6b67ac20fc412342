"""The gateway's HTTP side: one application in front of the protocols."""

from __future__ import annotations

import logging
from collections.abc import Callable
from urllib.parse import unquote

from trimtab.errors import NotFoundError, TrimtabError, UnavailableError
from trimtab.serving import invocations, open_inference, openapi, plain_json, tensorflow_serving
from trimtab.serving.access import check_origin
from trimtab.serving.answering import Answering
from trimtab.serving.bodies import body_of, too_large
from trimtab.serving.frames import FailureFrame, encoded
from trimtab.serving.http_messages import Message, Response
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.requests import (
    EVENT_TIME,
    MethodNotAllowedError,
    Request,
    Speaker,
    allow,
    event_time,
    json_answer,
)
from trimtab.serving.state import State

_log = logging.getLogger(__name__)
_EVENT_TIME = EVENT_TIME.lower()
_HEALTH = {"/", "/health", "/ping", "/v2/health/live", "/v2/health/ready"}

Failure = Callable[[TrimtabError], bytes]

_PLAIN = Speaker(plain_json.respond, plain_json.failure)
_MLFLOW = Speaker(invocations.respond, invocations.failure)

_SPEAKERS = {
    "v2": Speaker(open_inference.respond, open_inference.failure),
    "v1/endpoints": _PLAIN,
    "v1/models": Speaker(tensorflow_serving.respond, tensorflow_serving.failure),
    "invocations": _MLFLOW,
    "endpoints": _MLFLOW,
    "serving-endpoints": _MLFLOW,
    "version": _MLFLOW,
    "openapi.json": Speaker(openapi.respond, plain_json.failure),
}
"""The protocols, by what paths begin with."""


class Gateway:
    """Answers HTTP requests out of the present view of a gateway worker. Unpacked bodies may have up to
    `body_limit` bytes."""

    def __init__(self, state: State, log: PredictionLog, *, body_limit: int) -> None:
        self._state = state
        self._log = log
        self._body_limit = body_limit
        self._answering: Answering | None = None

    def objection(self, message: Message) -> TrimtabError | None:
        """Why a request is refused that nobody need read on."""
        if message.path in _HEALTH:
            return None
        access, headers = self._state.view.access, message.headers
        try:
            if access.required:
                access.check(headers.get("authorization"))
            else:
                check_origin(headers.get("host", ""), headers.get("origin"))
        except TrimtabError as error:
            return error
        length = headers.get("content-length")
        return None if length is None else self.body_objection(int(length))

    def body_objection(self, size: int) -> TrimtabError | None:
        """Why a body of so many bytes is refused."""
        return too_large(self._body_limit) if size > self._body_limit else None

    async def respond(self, message: Message) -> Response:
        """Answer one request."""
        parts = message.path.strip("/").split("/")
        speaker = _SPEAKERS.get("/".join(parts[:2]) if parts[0] == "v1" else parts[0])
        try:
            return await self._routed(message, parts, speaker)
        except TrimtabError as error:
            return self._failed(message, error, plain_json.failure if speaker is None else speaker.failure)
        except Exception:  # noqa: BLE001  (a bug answers 500 and ends no worker)
            _log.exception("a request to %s failed", message.path)
            bug = TrimtabError("The gateway failed on this request.", hint="Its log has the details.")
            return self._failed(message, bug, plain_json.failure if speaker is None else speaker.failure)

    def _failed(self, message: Message, error: TrimtabError, failure: Failure) -> Response:
        headers: list[tuple[str, str]] = []
        if isinstance(error, UnavailableError):
            headers.append(("retry-after", "5"))
        if isinstance(error, MethodNotAllowedError):
            headers.append(("allow", error.allowed))
        if error.http_status == 401:
            headers.append(("www-authenticate", "Bearer"))
        if error.http_status >= 500:
            self._record(message.path, error)
        return Response(error.http_status, failure(error), tuple(headers))

    async def _routed(self, message: Message, parts: list[str], speaker: Speaker | None) -> Response:
        if message.problem is not None:
            raise message.problem
        path, headers = message.path, message.headers
        if path in _HEALTH:
            return self._health(message.method, path)
        view = self._state.view
        given = headers.get(_EVENT_TIME)
        if given is not None and view.replay_at is None:
            view = await self._state.fresh_view()  # the replay may have begun this very moment
        at = event_time(given, view)
        if view.ids is None:
            view = await self._state.ready_view()
        if view.ids is None:
            raise UnavailableError("This gateway is starting and does not know its routes yet.")
        if "%" in path:
            parts = [unquote(part) for part in parts]
        request = Request(
            method=message.method,
            parts=parts,
            query=message.query,
            headers=headers,
            body=body_of(message, self._body_limit) if message.body else b"",
            at=at,
            started=message.started,
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
            self._answering = Answering(ids, self._log)
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
        return json_answer({"status": word}, status=status)

    def _status(self) -> Response:
        view, log = self._state.view, self._log
        return json_answer(
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
        )

    def _record(self, path: str, error: TrimtabError) -> None:
        """Log a failure of the gateway's own, so that service levels can be judged."""
        parts = path.strip("/").split("/")
        if len(parts) > 2 and parts[2] in self._state.view.table.endpoints:
            at = event_time(None, self._state.view)
            self._log.failed(encoded(FailureFrame(parts[2], at, error.code)), at=at)
