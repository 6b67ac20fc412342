"""The status page: one plain page for a person, and the same as JSON."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from trimtab.loop.loops import Loops
from trimtab.monitoring.alerts import Alert, Alerts
from trimtab.server.workspace import Caller
from trimtab.serving.endpoints import Endpoints
from trimtab.store import journal
from trimtab.store.replay import read_replay
from trimtab.workspace import Workspace

router = APIRouter(tags=["status"])

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }
td { vertical-align: top; }
th { font-weight: 600; opacity: .7; } p { opacity: .8; } .scroll { overflow-x: auto; }
"""


class Role(msgspec.Struct, frozen=True):
    """One living process of a role."""

    id: str
    role: str
    pid: int
    heartbeat_at: str


class LoopLine(msgspec.Struct, frozen=True):
    """How a loop stands, in a line."""

    name: str
    mode: str
    paused: bool
    champion: int | None
    cycle: str
    state: str


class Overview(msgspec.Struct, frozen=True):
    """What the status page shows."""

    event_time: str
    replay: bool
    roles: list[Role]
    loops: list[LoopLine]
    routes: dict[str, str]
    alerts: list[Alert]
    journal: list[dict[str, Any]]


@router.get("/v1/status")
def overview(workspace: Caller) -> dict[str, Any]:
    """Roles, loops, routes, open alerts, and the newest journal entries."""
    answer: dict[str, Any] = msgspec.to_builtins(_look(workspace))
    return answer


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def page(workspace: Caller) -> HTMLResponse:
    """The same, for a person."""
    seen = _look(workspace)
    replay = " (replay)" if seen.replay else ""
    parts = [
        f"<h1>Trimtab</h1><p>Event time {escape(seen.event_time)}{replay}.</p>",
        "<h2>Loops</h2>",
        _table(
            ["loop", "mode", "champion", "cycle", "state"],
            [
                [line.name, "paused" if line.paused else line.mode, line.champion, line.cycle, line.state]
                for line in seen.loops
            ],
            "There is no loop yet: <code>trimtab loop apply</code>.",
        ),
        "<h2>Endpoints</h2>",
        _table(["endpoint", "who answers"], seen.routes.items(), "There is no endpoint yet."),
        "<h2>Open alerts</h2>",
        _table(
            ["since", "loop", "alert", "why"],
            [
                [f"{alert.opened_at:%Y-%m-%d %H:%M}", alert.owner, alert.name, alert.reason]
                for alert in seen.alerts
            ],
            "None.",
        ),
        "<h2>Roles</h2>",
        _table(
            ["role", "process", "last heard of"],
            [[r.role, r.pid, r.heartbeat_at] for r in seen.roles],
            "None.",
        ),
        "<h2>Journal</h2>",
        _table(
            ["entry", "at", "who", "what", "of", "why"],
            [[e["seq"], e["at"], e["actor"], e["action"], e["name"], e["reason"]] for e in seen.journal],
            "Empty.",
        ),
    ]
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Trimtab</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>",
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )


def _look(workspace: Workspace) -> Overview:
    loops = Loops(workspace)
    with workspace.read() as connection:
        entries = [
            {**msgspec.to_builtins(entry), "at": f"{entry.at:%Y-%m-%d %H:%M}"}
            for entry in journal.entries(connection, limit=15, newest_first=True)
        ]
        replay = read_replay(connection)
    return Overview(
        event_time=f"{workspace.clock.now():%Y-%m-%d %H:%M:%S}",
        replay=replay is not None,
        roles=[
            Role(each.id, each.role, each.pid, f"{each.heartbeat_at:%H:%M:%S}")
            for each in workspace.instances.live()
        ],
        loops=[_line(loops, record.name) for record in loops.list()],
        routes={endpoint.name: _route(workspace, endpoint.name) for endpoint in Endpoints(workspace).list()},
        alerts=Alerts(workspace).alerts(only_open=True),
        journal=entries,
    )


def _line(loops: Loops, name: str) -> LoopLine:
    status = loops.status(name)
    cycle = status.cycle or (status.finished[0] if status.finished else None)
    return LoopLine(
        name=name,
        mode=status.loop.mode,
        paused=status.loop.paused,
        champion=None if status.champion is None else status.champion.version,
        cycle="" if cycle is None else cycle.id,
        state="" if cycle is None else cycle.state.value,
    )


def _route(workspace: Workspace, endpoint: str) -> str:
    route = Endpoints(workspace).route(endpoint)
    if route is None:
        return "nobody yet"
    return ", ".join(f"version {arm.version} ({arm.role}, {arm.share:g} %)" for arm in route.arms)


def _table(columns: list[str], rows: Any, empty: str) -> str:
    body = "".join(
        "<tr>" + "".join(f"<td>{escape('' if cell is None else str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    if not body:
        return f"<p>{empty}</p>"
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
