"""What `trimtab doctor` looks at: this machine, this workspace, and whether the roles are alive."""

from __future__ import annotations

import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from trimtab.errors import TrimtabError
from trimtab.loop.lockstep import failing_loops
from trimtab.models.runtimes.lightgbm import library
from trimtab.server.supervisor import ROLES
from trimtab.serving.access import access_for, check_binding, token_hashes
from trimtab.store import journal, migrations
from trimtab.store.replay import read_replay
from trimtab.workspace import Workspace

LOW_SPACE = 1_000_000_000
"""Free bytes below which the prediction log may soon be full."""


class Finding(msgspec.Struct, frozen=True):
    """The outcome of one check; `advice` says what to do where it is not "ok"."""

    check: str
    status: Literal["ok", "warning", "problem"]
    found: str
    advice: str = ""


def examine(project: Path) -> Iterator[Finding]:
    """Run all checks; one that cannot run is itself a problem, and the others go on."""
    yield _python()
    yield _lightgbm()
    yield _space(project)
    try:
        workspace = Workspace.open(project)
    except TrimtabError as error:
        yield Finding("workspace", "problem", error.message, error.hint)
        return
    except OSError as error:
        yield Finding(
            "workspace", "problem", f"{error.filename}: {error.strerror}", "See that this account may use it."
        )
        return
    with workspace:
        for check in (_schema, _journal, _blobs, _clock, _access, _ports, _roles, _routes, _loops):
            yield _guarded(check, workspace)


def _guarded(check: Callable[[Workspace], Finding], workspace: Workspace) -> Finding:
    try:
        return check(workspace)
    except TrimtabError as error:
        return Finding(check.__name__.strip("_"), "problem", error.message, error.hint)


def _python() -> Finding:
    return Finding(
        "python", "ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    )


def _lightgbm() -> Finding:
    try:
        library()
    except TrimtabError as error:
        return Finding("lightgbm", "problem", error.message, error.hint)
    return Finding("lightgbm", "ok", "its library can be loaded")


def _space(project: Path) -> Finding:
    folder = next(path for path in (project.resolve(), *project.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if free < LOW_SPACE:
        return Finding(
            "space", "warning", found, "Free some space: a full disk makes the gateway refuse requests."
        )
    return Finding("space", "ok", found)


def _schema(workspace: Workspace) -> Finding:
    with workspace.read() as connection:
        return Finding("schema", "ok", f"revision {migrations.revision(connection)}")


def _journal(workspace: Workspace) -> Finding:
    with workspace.read() as connection:
        verified = journal.verify(connection)
    return Finding("journal", "ok", f"{verified.entries} entries, the chain holds")


def _blobs(workspace: Workspace) -> Finding:
    digest = workspace.blobs.put(b"trimtab doctor")
    workspace.blobs.get(digest)
    return Finding("blobs", "ok", "a blob can be written and read back")


def _clock(workspace: Workspace) -> Finding:
    with workspace.read() as connection:
        state = read_replay(connection)
    if state is None:
        return Finding("clock", "ok", "event time is the system's")
    words = "ended" if state.ended else "in progress"
    return Finding("clock", "ok", f"replay {words}, event time {state.at:%Y-%m-%d %H:%M}")


def _access(workspace: Workspace) -> Finding:
    host = workspace.settings.host
    with workspace.read() as connection:
        rule = access_for(workspace.settings, host, token_hashes(connection))
    check_binding(host, rule)
    return Finding(
        "access", "ok", f"{host}, {'a token is demanded' if rule.required else 'this machine only'}"
    )


def _ports(workspace: Workspace) -> Finding:
    settings = workspace.settings
    alive = {instance.role for instance in workspace.instances.live()}
    taken = [
        str(port)
        for role, port in (("server", settings.port), ("gateway", settings.gateway_port))
        if role not in alive and port and _taken(settings.host, port)
    ]
    if taken:
        return Finding(
            "ports",
            "warning",
            f"in use by another program: {', '.join(taken)}",
            "Choose others with --port and --gateway-port, or in trimtab.toml.",
        )
    return Finding("ports", "ok", f"{settings.port} and {settings.gateway_port}")


def _roles(workspace: Workspace) -> Finding:
    alive = {instance.role for instance in workspace.instances.live()}
    missing = [role for role in ROLES if role not in alive]
    if not alive:
        return Finding("roles", "ok", "not running; `trimtab up` starts them")
    if missing:
        return Finding("roles", "warning", f"not heard of: {', '.join(missing)}", "See .trimtab/logs.")
    return Finding("roles", "ok", "all four are alive")


def _routes(workspace: Workspace) -> Finding:
    failures = {
        f"{endpoint}: {reason}"
        for gateway in workspace.instances.live("gateway")
        for endpoint, reason in gateway.detail.get("failures", {}).items()
    }
    if failures:
        return Finding(
            "routes",
            "problem",
            f"a gateway cannot load what it should serve: {'; '.join(sorted(failures))}",
            "It serves the route before, if there was one. See .trimtab/logs/gateway.log.",
        )
    return Finding("routes", "ok", "every live gateway serves what it should")


def _loops(workspace: Workspace) -> Finding:
    failing = failing_loops(workspace)
    if failing:
        words = "; ".join(f"{loop}: {reason}" for loop, reason in sorted(failing.items()))
        return Finding(
            "loops", "problem", f"cannot be moved on: {words}", "See .trimtab/logs/controller.log."
        )
    return Finding("loops", "ok", "none is stuck")


def _taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
