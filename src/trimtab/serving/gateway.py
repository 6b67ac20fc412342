"""The gateway role: checks that it may listen, opens the socket, and becomes its supervision.

The socket is opened once and inherited by every worker, so that a connection waits while a dead worker is
replaced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from trimtab.config import FILE_NAME, STATE_FOLDER, Settings, load_settings
from trimtab.errors import NotFoundError, TrimtabError, UnavailableError
from trimtab.serving.admission import access_for, check_binding, is_loopback
from trimtab.serving.grpc_port import check_grpc, hold_port
from trimtab.serving.last_known import read_last_known
from trimtab.serving.listener import listen
from trimtab.serving.log_folder import FOLDER

_log = logging.getLogger(__name__)


def run_gateway(
    project: Path,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    *,
    grpc_port: int | None = None,
    lifeline: int | None = None,
    listening: Callable[[str], None] | None = None,
) -> NoReturn:
    """Turn this process into the gateway of a project, which runs until SIGTERM or SIGINT and does not come
    back; None means the settings' value. It ends when the pipe `lifeline` is closed at its other end. Before
    it begins, `listening` is told its address as "HOST:PORT".

    Raises NotFoundError if there is no project, RefusedError for an address beyond loopback without a token,
    ConflictError if a port is taken, MissingExtraError for a port for gRPC where that is not installed.
    """
    if not (project / FILE_NAME).exists():
        raise NotFoundError(
            f"There is no Trimtab project in {project} (no {FILE_NAME}).",
            hint="Make one with `trimtab init`.",
        )
    settings = load_settings(project)
    host = settings.host if host is None else host
    port = settings.gateway_port if port is None else port
    check_binding(host, access_for(settings, host, _stored_tokens(project, settings, host)))
    grpc_port = settings.gateway_grpc_port if grpc_port is None else grpc_port
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(listen(host, port, who="gateway", option="--gateway-port"))
        listener.set_inheritable(True)
        _log.info("listening on %s:%s", host, listener.getsockname()[1])
        grpc: list[str] = []
        if grpc_port is not None:
            check_grpc()
            holder = sockets.enter_context(hold_port(host, grpc_port))
            grpc_port = holder.getsockname()[1]
            grpc = ["--grpc-port", str(grpc_port), "--grpc-socket", str(holder.fileno())]
            _log.info("serving gRPC on %s:%s", host, grpc_port)
        if listening is not None:
            listening(f"{host}:{listener.getsockname()[1]}")
        os.execv(  # noqa: S606  (our own interpreter)
            sys.executable,
            [
                *(sys.executable, "-m", "trimtab.serving.supervision"),
                *("--project", str(project.resolve())),
                *("--host", host),
                *("--port", str(listener.getsockname()[1])),
                *("--socket", str(listener.fileno())),
                *("--workers", str(settings.gateway_workers if workers is None else workers)),
                *grpc,
                *(() if lifeline is None else ("--lifeline", str(lifeline))),
            ],
        )


def _stored_tokens(project: Path, settings: Settings, host: str) -> frozenset[str]:
    """The tokens in the metadata store, or those that were last known if it does not answer."""
    if is_loopback(host):
        return frozenset()
    from trimtab.serving.access import token_hashes  # noqa: PLC0415  (SQLAlchemy: 0.2 s, on loopback in vain)
    from trimtab.serving.store_link import StoreLink  # noqa: PLC0415  (the same)

    folder = project.resolve() / STATE_FOLDER / FOLDER
    link = StoreLink(project, settings, folder, actor="gateway")
    try:
        with link.workspace().read() as connection:
            return token_hashes(connection)
    except UnavailableError as error:
        _log.warning("%s", error)
        known = read_last_known(folder)
        return frozenset() if known is None else frozenset(known.tokens)
    finally:
        link.close()


def main() -> None:
    """`python -m trimtab.serving.gateway PROJECT [HOST [PORT [WORKERS]]]`."""
    logging.basicConfig(format="%(asctime)s gateway %(levelname)s %(message)s", level=logging.INFO)
    given = sys.argv[1:]
    try:
        run_gateway(
            Path(given[0]),
            given[1] if len(given) > 1 else None,
            int(given[2]) if len(given) > 2 else None,
            int(given[3]) if len(given) > 3 else None,
        )
    except TrimtabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
