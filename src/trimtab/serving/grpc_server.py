"""gRPC's server inside a gateway worker, in its event loop."""

from __future__ import annotations

import asyncio

import grpc.aio

from trimtab.errors import ConflictError
from trimtab.serving.grpc_service import InferenceService

LEAST_PING_SECONDS = 5
"""How often a client may ask whether its connection still stands."""

KEEPALIVE_SECONDS = 60
"""How often a silent client is asked whether it is still there; if not, its connection is closed."""

IDLE_SECONDS = 300
"""How long a connection may be without a call; a client whose connection ends so opens another by itself."""

GREETING_SECONDS = 30
"""How long a client may take to begin to speak HTTP/2."""

QUIET_SECONDS = 0.1
"""So long after the last call a server that is to end takes it that no more will come."""

MOST_CALLS = 256
"""Calls of one connection that are under way at once, each with its message; others wait their turn."""


class GrpcServer:
    """Serves the Open Inference Protocol on a port that other workers share."""

    def __init__(self, service: InferenceService, host: str, port: int, *, body_limit: int) -> None:
        self._service = service
        self._address = f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"
        self._body_limit = body_limit
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen; raises ConflictError."""
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", self._body_limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", MOST_CALLS),
                ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
                ("grpc.server_handshake_timeout_ms", GREETING_SECONDS * 1000),
                ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_SECONDS * 1000),
            ]
        )
        self._server.add_generic_rpc_handlers((self._service.handlers(),))
        try:
            self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise ConflictError(
                f"The gateway's gRPC cannot listen on {self._address}: {error}",
                hint="Choose another port with the setting gateway_grpc_port.",
            ) from error
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Answer what has come, then take no more; all within about `grace` seconds.

        gRPC cancels calls that it has received and not yet handed over when it stops, so it is let stop once
        none came for a moment; if they never cease to come, some of the last are cancelled.
        """
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        patience = loop.time() + grace / 2
        seen = -1
        while seen != self._service.calls and loop.time() < patience:
            seen = self._service.calls
            await asyncio.sleep(QUIET_SECONDS)
        await self._server.stop(grace / 2)
