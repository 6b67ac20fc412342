"""Model and endpoint routes."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter

from trimtab.errors import NotFoundError
from trimtab.models.registry import Registry
from trimtab.server.workspace import Caller
from trimtab.serving.endpoints import Endpoints

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models")
def models(workspace: Caller) -> list[dict[str, Any]]:
    """All models, by name."""
    return [msgspec.to_builtins(model) for model in Registry(workspace).models()]


@router.get("/models/{name}")
def model(name: str, workspace: Caller) -> dict[str, Any]:
    """One model."""
    answer: dict[str, Any] = msgspec.to_builtins(Registry(workspace).model(name))
    return answer


@router.get("/models/{name}/versions")
def versions(name: str, workspace: Caller) -> list[dict[str, Any]]:
    """Its versions, oldest first."""
    return [msgspec.to_builtins(version) for version in Registry(workspace).versions(name)]


@router.get("/models/{name}/aliases")
def aliases(name: str, workspace: Caller, alias: str | None = None) -> list[dict[str, Any]]:
    """The history of its aliases, oldest first."""
    return [msgspec.to_builtins(event) for event in Registry(workspace).history(name, alias)]


@router.get("/endpoints")
def endpoints(workspace: Caller) -> list[dict[str, Any]]:
    """All endpoints, by name."""
    return [msgspec.to_builtins(endpoint) for endpoint in Endpoints(workspace).list()]


@router.get("/endpoints/{name}/route")
def route(name: str, workspace: Caller) -> dict[str, Any]:
    """Which versions answer an endpoint now, in which role and share."""
    found = Endpoints(workspace).route(name)
    if found is None:
        raise NotFoundError(
            f"The endpoint '{name}' has no route yet.", hint="Its first version is on its way."
        )
    answer: dict[str, Any] = msgspec.to_builtins(found)
    return answer
