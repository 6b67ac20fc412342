"""The entry of each role's process: `python -m trimtab.server.roles ROLE --dir FOLDER ...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trimtab.errors import MissingExtraError, TrimtabError, WorkspaceVersionError
from trimtab.server.supervisor import MISCONFIGURED, ROLES
from trimtab.serving.lifeline import follow_lifeline


def main(arguments: list[str] | None = None) -> int:
    """Run one role until SIGTERM; answers its exit status."""
    parser = argparse.ArgumentParser(prog="trimtab.server.roles")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gateway-port", type=int, required=True)
    parser.add_argument("--lifeline", type=int)
    given = parser.parse_args(arguments)
    if given.lifeline is not None and given.role != "gateway":  # that one becomes another program
        follow_lifeline(given.lifeline)
    try:
        _run(given)
    except TrimtabError as error:
        print(error, file=sys.stderr)  # noqa: T201  (the supervisor shows a role's last line)
        hopeless = error.http_status < 500 or isinstance(error, WorkspaceVersionError | MissingExtraError)
        return MISCONFIGURED if hopeless else 1
    return 0


def _run(given: argparse.Namespace) -> None:
    """Each role loads its own packages and nothing of the others': that keeps it small and quick to start."""
    if given.role == "server":
        from trimtab.server.http import run_server

        run_server(given.dir, host=given.host, port=given.port)
    elif given.role == "gateway":
        from trimtab.serving.gateway import run_gateway

        run_gateway(given.dir, host=given.host, port=given.gateway_port, lifeline=given.lifeline)
    elif given.role == "worker":
        from trimtab.server.jobs import run_worker

        run_worker(given.dir)
    else:
        from trimtab.loop.controller import run_controller

        run_controller(given.dir)


if __name__ == "__main__":
    sys.exit(main())
