"""The server role: the HTTP API and a status page over the same functions that the CLI calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from granian.constants import Interfaces
from starlette.types import ASGIApp, Receive, Scope, Send

from trimtab.errors import InvalidInputError, TooLargeError, TrimtabError, UnavailableError
from trimtab.server import datasets, journal, loops, mlflow, models, status
from trimtab.server.errors import answer_to, install_error_handlers
from trimtab.server.inherited_server import InheritedServer
from trimtab.server.mlflow.protocol import BODY
from trimtab.serving.access import Access, access_for, check_binding, check_origin, token_hashes
from trimtab.serving.listener import listen
from trimtab.workspace import Workspace

OPEN_PATHS = frozenset({"/health"})
"""What answers without a token."""

BEAT_SECONDS = 5.0
TOKEN_SECONDS = 1.0
"""How long a revoked token may still open this port."""

_log = logging.getLogger(__name__)


class Application(FastAPI):
    """FastAPI behind what every request passes first: the guard, the limit of bodies, and MLflow's endpoints,
    whose many small requests need nothing of what FastAPI does around one."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to the routes."""
        await self.front(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by the routes."""
        await super().__call__(scope, receive, send)


def create_app(workspace: Workspace, host: str) -> Application:
    """The application over an open workspace, for a port on `host`.

    Raises RefusedError if `host` lies beyond loopback and there is no token.
    """
    check_binding(host, access(workspace, host))
    app = Application(title="Trimtab", version="1", lifespan=_heartbeats(workspace))
    app.state.workspace = workspace
    install_error_handlers(app)
    limited = BodyLimit(mlflow.Front(workspace, app.routed), workspace.settings.body_limit)
    app.front = Guard(limited, Cached(lambda: access(workspace, host), TOKEN_SECONDS))
    for module in (status, datasets, loops, models, journal):
        app.include_router(module.router)

    @app.get("/health", tags=["status"])
    def health() -> JSONResponse:
        """200 once this server answers."""
        return JSONResponse({"status": "ok"})

    return app


def run_server(project: Path, *, host: str, port: int) -> None:
    """Serve a project's workspace until SIGTERM; raises ConflictError if the port is taken."""
    with Workspace.open(project, actor="server") as workspace:
        app = create_app(workspace, host)
        listener = listen(host, port, who="server", option="--port")
        asyncio.run(_serve(app, listener))


async def _serve(app: FastAPI, listener: socket.socket) -> None:
    host, port, *_ = listener.getsockname()
    server = InheritedServer(app, listener.detach(), address=host, port=port, interface=Interfaces.ASGI)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(server.serve())
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
        return
    server.stop()  # type: ignore[no-untyped-call]  # Granian does not annotate it
    await serving


def access(workspace: Workspace, host: str) -> Access:
    """Who may use this port now."""
    with workspace.read() as connection:
        return access_for(workspace.settings, host, token_hashes(connection))


class Cached:
    """The answer of a function, asked again when it is older than `seconds`."""

    def __init__(self, ask: Callable[[], Access], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._answer: Access | None = None
        self._asked = 0.0
        self._lock = threading.Lock()

    def fresh(self) -> Access | None:
        """The answer if there is one that is young enough; never waits."""
        asked, answer = self._asked, self._answer  # in this order: an answer is never older than its time
        return answer if time.monotonic() - asked <= self._seconds else None

    def __call__(self) -> Access:
        """The answer, at most `seconds` old."""
        with self._lock:
            answer = self.fresh()
            if answer is None:
                asked = time.monotonic()
                answer = self._answer = self._ask()
                self._asked = asked
            return answer


_ASKED = frozenset({b"authorization", b"host", b"origin"})


class Guard:
    """Lets a request in only with a token, where this port demands one; where it does not, only requests that
    no foreign web page can have sent: named for this machine, and from no other origin."""

    def __init__(self, app: ASGIApp, current: Cached) -> None:
        self._app = app
        self._current = current

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _ASKED}
            current = self._current.fresh()
            try:
                if current is None:
                    current = await asyncio.to_thread(self._current)
                current.check(headers.get(b"authorization"))
                if not current.required:
                    check_origin(headers.get(b"host", ""), headers.get(b"origin"))
            except TrimtabError as error:
                await answer_to(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses a request whose body is larger than `limit` bytes, by its header or while it arrives."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http" or mlflow.is_streamed(scope["path"]):
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            try:
                message = await receive()
            except asyncio.CancelledError:  # Granian's word for a caller who is gone
                message = {"type": "http.disconnect"}
            if message["type"] != "http.request":
                # Who only ended the sending may still read; without an answer Granian makes it a 500.
                cut = InvalidInputError("The request ended before its body did.", hint="Send it whole.")
                await answer_to(scope["path"], cut)(scope, receive, send)
                return
            body += message.get("body", b"")
            if len(body) > self._limit:
                error = TooLargeError(
                    f"The body is larger than {self._limit:,} bytes.",
                    hint="Send it in parts, or raise the setting body_limit.",
                )
                await answer_to(scope["path"], error)(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        told = False

        async def whole() -> dict[str, object]:
            nonlocal told
            if told:
                return dict(await receive())
            told = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        scope[BODY] = body
        await self._app(scope, whole, send)


def _heartbeats(workspace: Workspace) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Reports this server as alive while it serves."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        name = f"server-{os.getpid()}"

        async def beat() -> None:
            while True:
                try:
                    await asyncio.to_thread(workspace.instances.beat, name, "server")
                except UnavailableError as error:
                    _log.warning("the server cannot report itself as alive: %s", error)
                await asyncio.sleep(BEAT_SECONDS)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(UnavailableError):  # then it counts as gone a little later
                await asyncio.to_thread(workspace.instances.leave, name)

    return lifespan
