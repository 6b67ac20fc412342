"""`trimtab up`: run the four roles."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.group import single_command
from trimtab.cli.output import say
from trimtab.cli.project import HERE, Project, open_workspace
from trimtab.config import load_settings
from trimtab.server.supervisor import Address, Supervisor
from trimtab.serving.access import access_for, check_binding, token_hashes

app = single_command()


@app.command()
def up(
    project: Project = HERE,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the server.")] = None,
    gateway_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the gateway.")] = None,
) -> None:
    """Run server, gateway, worker and controller, and restart what dies. SIGTERM or Ctrl-C ends them."""
    address = _address(project, host, port, gateway_port)
    supervisor = Supervisor(project, address, report=say)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run(ready=lambda: _tell(address), first=lambda: _apply_loop(project))
    say("Stopped.")


def _address(project: Path, host: str | None, port: int | None, gateway_port: int | None) -> Address:
    """What was given, else what the settings say; a workspace that cannot be opened fails here, once, and so
    does an address that others could reach with no token to ask them for."""
    with open_workspace(project) as workspace:
        settings = workspace.settings
        host = host or settings.host
        with workspace.read() as connection:
            check_binding(host, access_for(settings, host, token_hashes(connection)))
        return Address(host, port or settings.port, gateway_port or settings.gateway_port)


def _apply_loop(project: Path) -> None:
    """Put the loop that the settings name into force, in a process of its own: it loads the user's code."""
    if load_settings(project).loop:
        command = [sys.executable, "-m", "trimtab.cli", "loop", "apply", "--dir", str(project)]
        status = subprocess.run(command, check=False).returncode
        if status:
            raise typer.Exit(status)


def _tell(address: Address) -> None:
    say(f"server   {address.url('server')}")
    say(f"gateway  {address.url('gateway')}")
    say("Ready. Press Ctrl-C to stop.")
