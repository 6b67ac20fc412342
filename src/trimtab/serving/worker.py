"""A gateway worker: one process that answers requests on the socket which its gateway holds.

    python -m trimtab.serving.worker --project DIR --host HOST --port PORT --socket FD [--shared]
                                     [--grpc-port PORT] [--ready FD] [--successor]

It ends gracefully on SIGTERM, and when its standard input ends, which tells that the gateway died.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path

from trimtab.config import STATE_FOLDER, load_settings
from trimtab.models.confined.confinement import Confinement
from trimtab.serving.access import access_for
from trimtab.serving.application import Gateway
from trimtab.serving.freed_memory import keep_freed_memory
from trimtab.serving.grpc_port import load_grpc
from trimtab.serving.http_server import HttpServer
from trimtab.serving.loaded_endpoints import ModelShelf
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.segments import FOLDER, Limits, SegmentWriter, Write
from trimtab.serving.state import State, View
from trimtab.serving.store_link import StoreLink
from trimtab.serving.watcher import Watcher

SYNC_SECONDS = 1.0
"""How much of the log a loss of power may take."""

DRAIN_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Worker:
    """Everything that one worker process holds. `shared`: other workers listen on its socket too; `ready`: a
    pipe that it writes to once it answers and knows its routes; `successor`: it takes the place of one that
    answers until then, so it takes no request before. `write` stands for `os.write`, as in `SegmentWriter`;
    there is gRPC where it has a port."""

    def __init__(
        self,
        project: Path,
        host: str,
        port: int,
        handle: int,
        *,
        shared: bool = False,
        ready: int | None = None,
        successor: bool = False,
        grpc_port: int | None = None,
        write: Write = os.write,
    ) -> None:
        settings = load_settings(project)
        root = project.resolve() / STATE_FOLDER
        self._handle = handle
        self._shared = shared
        self._ready = ready
        self._successor = successor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = State(View(access=access_for(settings, host, ())))
        limits = Limits(
            settings.log_segment_rows,
            span=timedelta(days=settings.log_segment_days),
            disk=settings.log_disk_limit,
        )
        self._writer = SegmentWriter(root / FOLDER, limits, write=write)
        log = PredictionLog(self._writer, settings.log_full)
        self._gateway = Gateway(self._state, log, body_limit=settings.body_limit)
        self._grpc = None
        if grpc_port is not None:
            grpc = load_grpc()
            service = grpc.InferenceService(self._state, log, self._gateway.answering)
            self._grpc = grpc.GrpcServer(service, host, grpc_port, body_limit=settings.body_limit)
        id = f"gateway-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._watcher = Watcher(
            id=id,
            host=host,
            address=f"{host}:{port}",
            settings=settings,
            folder=root / FOLDER,
            link=StoreLink(project, settings, root / FOLDER, actor=id),
            shelf=ModelShelf(
                root / "cache" / "models",
                threads=settings.model_threads,
                confinement=Confinement.of(settings),
            ),
            state=self._state,
            flush=self._flush,
            log=log,
        )

    async def serve(self) -> None:
        """Answer requests until SIGTERM, SIGINT or the gateway's death."""
        self._loop = loop = asyncio.get_running_loop()
        server = HttpServer(self._gateway, socket.socket(fileno=self._handle), shared=self._shared)
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        threading.Thread(target=self._watch_parent, args=(loop, stopping), daemon=True).start()
        threading.Thread(target=self._sync, daemon=True).start()
        self._watcher.start()
        knowing = asyncio.create_task(self._routes_known())
        if self._successor:
            ending = asyncio.create_task(stopping.wait())
            await asyncio.wait({knowing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            await self._answer_until(stopping, server, knowing)
        knowing.cancel()
        self._watcher.stop()
        self._writer.close()
        self._writer.sync()

    async def _answer_until(
        self, stopping: asyncio.Event, server: HttpServer, knowing: asyncio.Task[None]
    ) -> None:
        if self._grpc is not None:
            await self._grpc.start()
        # Connections wait in the socket that workers share. If that takes long, they are told why.
        await self._state.ready_view()
        server.start()
        knowing.add_done_callback(self._announce)
        await stopping.wait()
        self._state.draining = True
        draining = [server.stop(DRAIN_SECONDS)]
        if self._grpc is not None:
            draining.append(self._grpc.stop(DRAIN_SECONDS))
        await asyncio.gather(*draining)

    async def _routes_known(self) -> None:
        while not self._state.view.ready:  # noqa: ASYNC110  (the watcher is a thread of its own)
            await asyncio.sleep(0.02)

    def _announce(self, knowing: asyncio.Task[None]) -> None:
        if self._ready is not None and not knowing.cancelled():
            with contextlib.suppress(OSError):  # nobody reads it for ever
                os.write(self._ready, b"!")

    def _flush(self, demand: int) -> None:
        self._writer.flush = demand
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._writer.close)

    def _sync(self) -> None:
        measured = 0.0
        while True:
            self._writer.ended.wait(SYNC_SECONDS)
            # Large requests end many segments in a second, and a look at the folder is not needed after each.
            measure = time.monotonic() - measured >= SYNC_SECONDS
            if measure:
                measured = time.monotonic()
            try:
                self._writer.sync(measure=measure)
            except OSError as error:
                _log.error("the prediction log cannot be brought to the disk: %s", error)

    @staticmethod
    def _watch_parent(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(stopping.set)


def main() -> None:
    """Run one worker."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.serving.worker")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--ready", type=int)
    parser.add_argument("--successor", action="store_true")
    parser.add_argument("--grpc-port", type=int)
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s gateway %(levelname)s %(message)s", level=logging.INFO)
    # A request makes hundreds of objects and no cycle, so there is no use in looking for cycles often.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    keep_freed_memory()
    worker = Worker(
        asked.project,
        asked.host,
        asked.port,
        asked.socket,
        shared=asked.shared,
        ready=asked.ready,
        successor=asked.successor,
        grpc_port=asked.grpc_port,
    )
    asyncio.run(worker.serve())


if __name__ == "__main__":
    main()
