"""What keeps a replay from moving on: shippers behind, gateways on old routes, jobs unfinished."""

from __future__ import annotations

from sqlalchemy import Connection

from trimtab.loop.job_queue import unfinished_jobs
from trimtab.serving.endpoints import current_routes
from trimtab.workspace import Workspace


def gateway_generations(workspace: Workspace, endpoint: str) -> dict[str, int]:
    """The generation of the endpoint's route that each live gateway serves; 0 for none yet."""
    return {
        gateway.id: int(gateway.detail.get("routes", {}).get(endpoint, 0))
        for gateway in workspace.instances.live("gateway")
    }


def gateway_failures(workspace: Workspace, endpoint: str, generation: int) -> dict[str, str]:
    """The live gateways that could not load the endpoint's route of this generation, and why."""
    return {
        gateway.id: str(failures[endpoint])
        for gateway in workspace.instances.live("gateway")
        if int(gateway.detail.get("routes", {}).get(endpoint, 0)) < generation
        and endpoint in (failures := gateway.detail.get("failures", {}))
    }


def lagging_shippers(workspace: Workspace, generation: int) -> list[str]:
    """Who has not acknowledged this generation of the replay: live log shippers, and gateways of which no
    shipper is heard."""
    shippers = workspace.instances.live("shipper")
    behind = [shipper.id for shipper in shippers if shipper.acknowledged < generation]
    return behind if shippers else [gateway.id for gateway in workspace.instances.live("gateway")]


def lagging_gateways(workspace: Workspace, connection: Connection) -> list[str]:
    """The live gateways that serve an older route than the one that stands, of any endpoint."""
    routes = current_routes(connection)
    return [
        gateway.id
        for gateway in workspace.instances.live("gateway")
        if any(
            int(gateway.detail.get("routes", {}).get(endpoint, 0)) < route.generation
            for endpoint, route in routes.items()
        )
    ]


def failing_loops(workspace: Workspace) -> dict[str, str]:
    """The loops that the live controllers cannot move on, and why."""
    found: dict[str, str] = {}
    for controller in workspace.instances.live("controller"):
        found |= controller.detail.get("failures", {})
    return found


def settled(workspace: Workspace) -> bool:
    """Whether no job is queued or running and all live gateways serve the routes that stand."""
    with workspace.read() as connection:
        return not unfinished_jobs(connection) and not lagging_gateways(workspace, connection)
