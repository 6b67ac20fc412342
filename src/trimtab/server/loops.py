"""Loop routes: what loops do, why, and what a person may tell them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from trimtab.loop.loops import Loops
from trimtab.loop.machine import Mode
from trimtab.monitoring.alerts import Alerts
from trimtab.server.workspace import Caller

router = APIRouter(prefix="/v1/loops", tags=["loops"])

Limit = Annotated[int, Query(ge=1, le=1000)]


class Order(BaseModel):
    """What a person says with an order; every order may give a reason, which is journaled."""

    model_config = ConfigDict(extra="forbid")

    reason: str = ""


class TriggerOrder(Order):
    """Start a cycle; `params` override the training pipeline's."""

    params: dict[str, Any] = {}


class ModeOrder(Order):
    """Say how much the loop may do by itself."""

    mode: Mode


@router.get("")
def loops(workspace: Caller) -> list[dict[str, Any]]:
    """All loops, by name."""
    return [msgspec.to_builtins(loop) for loop in Loops(workspace).list()]


@router.get("/{name}")
def loop(name: str, workspace: Caller) -> dict[str, Any]:
    """How a loop stands: declaration, champion, the cycle under way, finished cycles."""
    return _object(Loops(workspace).status(name))


@router.get("/{name}/cycles")
def cycles(name: str, workspace: Caller, limit: Limit = 100) -> list[dict[str, Any]]:
    """Its cycles, the newest first."""
    return [msgspec.to_builtins(cycle) for cycle in Loops(workspace).cycles(name, limit=limit)]


@router.get("/{name}/why")
def why(name: str, workspace: Caller, cycle: str | None = None) -> dict[str, Any]:
    """The evidence of every decision about a cycle (the newest, if none is named)."""
    return _object(Loops(workspace).why(name, cycle))


@router.get("/{name}/findings")
def findings(name: str, workspace: Caller, limit: Limit = 100) -> list[dict[str, Any]]:
    """What its monitors found, the newest first."""
    Loops(workspace).status(name)
    return [msgspec.to_builtins(finding) for finding in Alerts(workspace).findings(name, limit=limit)]


@router.get("/{name}/alerts")
def alerts(name: str, workspace: Caller, limit: Limit = 100) -> list[dict[str, Any]]:
    """Its alerts, the newest first."""
    Loops(workspace).status(name)
    return [msgspec.to_builtins(alert) for alert in Alerts(workspace).alerts(name, limit=limit)]


@router.post("/{name}/trigger", status_code=201)
def trigger(name: str, order: TriggerOrder, workspace: Caller) -> dict[str, Any]:
    """Start a cycle now."""
    return _object(Loops(workspace).trigger(name, params=order.params, reason=order.reason))


@router.post("/{name}/approve")
def approve(name: str, order: Order, workspace: Caller) -> dict[str, Any]:
    """Approve the cycle that waits for it."""
    return _object(Loops(workspace).approve(name, reason=order.reason))


@router.post("/{name}/cancel")
def cancel(name: str, order: Order, workspace: Caller) -> dict[str, Any]:
    """End the cycle under way before its challenger is out."""
    return _object(Loops(workspace).cancel(name, reason=order.reason))


@router.post("/{name}/pause")
def pause(name: str, order: Order, workspace: Caller) -> dict[str, Any]:
    """Let the loop only watch."""
    return _object(Loops(workspace).pause(name, reason=order.reason))


@router.post("/{name}/resume")
def resume(name: str, order: Order, workspace: Caller) -> dict[str, Any]:
    """Let a paused loop go on."""
    return _object(Loops(workspace).resume(name, reason=order.reason))


@router.post("/{name}/mode")
def mode(name: str, order: ModeOrder, workspace: Caller) -> dict[str, Any]:
    """Set the loop's mode."""
    return _object(Loops(workspace).set_mode(name, order.mode, reason=order.reason))


@router.post("/{name}/rollback")
def rollback(name: str, order: Order, workspace: Caller) -> dict[str, Any]:
    """Undo what was last let onto the endpoint; answers how the loop stands then."""
    Loops(workspace).rollback(name, reason=order.reason)
    return _object(Loops(workspace).status(name))


def _object(value: msgspec.Struct) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.to_builtins(value)
    return answer
