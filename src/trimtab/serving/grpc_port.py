"""The gateway's port for gRPC: kept by the gateway for itself, shared by its workers.

gRPC opens its own sockets, one in each worker, on one port (SO_REUSEPORT). The kernel deals out connections,
so a client with one connection is answered by one worker. Sockets that share a port would also let a second
gateway of the same user join in and take half of the calls; so the gateway first makes sure that it is alone,
and then holds the port by a socket that listens to nobody.
"""

from __future__ import annotations

import importlib.util
import socket
from types import ModuleType

from trimtab.errors import ConflictError, missing_extra
from trimtab.serving.listener import listen

EXTRA = "grpc"


def check_grpc() -> None:
    """Raise MissingExtraError unless what gRPC needs is installed; loads none of it."""
    for module, package in (("grpc", "grpcio"), ("google.protobuf", "protobuf")):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # of the package "google" itself
            found = None
        if found is None:
            raise missing_extra(package, EXTRA)


def load_grpc() -> ModuleType:
    """The module `grpc_server`, which takes 20 MB and belongs to an extra; raises MissingExtraError."""
    check_grpc()
    return importlib.import_module("trimtab.serving.grpc_server")


def hold_port(host: str, port: int) -> socket.socket:
    """A socket that holds a port for the workers' servers, and is inherited by the program that this process
    becomes. Raises ConflictError if anybody else uses the port."""
    listen(host, port, who="gateway's gRPC", option="the setting gateway_grpc_port").close()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        holder.bind((host.strip("[]"), port))
    except OSError as error:
        holder.close()
        raise ConflictError(
            f"The gateway's gRPC cannot listen on {host}:{port}: {error.strerror}.",
            hint="Choose another port with the setting gateway_grpc_port.",
        ) from error
    holder.set_inheritable(True)
    return holder
