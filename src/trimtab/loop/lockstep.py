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


def lagging_shippers(workspace: Workspace, generation: int) -> list[str]:
    """The live log shippers that have not acknowledged this generation of the replay."""
    return [
        shipper.id for shipper in workspace.instances.live("shipper") if shipper.acknowledged < generation
    ]


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


def settled(workspace: Workspace) -> bool:
    """Whether no job is queued or running and all live gateways serve the routes that stand."""
    with workspace.read() as connection:
        return not unfinished_jobs(connection) and not lagging_gateways(workspace, connection)
