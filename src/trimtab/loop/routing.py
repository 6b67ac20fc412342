"""The routes of a cycle: the challenger beside the champion, and the champion alone."""

from __future__ import annotations

from typing import Literal

from trimtab.loop.champions import Champion, champion_of
from trimtab.loop.cycle import Cycle
from trimtab.loop.declaration import Declaration
from trimtab.loop.rollout import Stage
from trimtab.models.registry import Registry
from trimtab.serving.endpoints import Endpoints
from trimtab.serving.routes import Arm, Route, single
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

CHALLENGER = "challenger"


class Routing:
    """Sets routes, and the alias that says who is on trial, within the caller's transaction."""

    def __init__(self, workspace: Workspace) -> None:
        self._registry = Registry(workspace)
        self._endpoints = Endpoints(workspace)

    def try_out(
        self,
        tx: Transaction,
        declared: Declaration,
        stage: Stage,
        *,
        champion: Champion,
        challenger: Champion,
        cycle: Cycle,
        reason: str,
    ) -> int:
        """Put the challenger beside the champion in its stage's share; answers the route's generation."""
        role: Literal["shadow", "challenger"] = "shadow" if stage.share == 0 else "challenger"
        route = Route(
            model=declared.model,
            arms=(
                Arm(champion.version, champion.digest, "primary", 100 - stage.share),
                Arm(challenger.version, challenger.digest, role, stage.share),
            ),
            salt=cycle.id,
        )
        if cycle.rollout_started is None:
            self._registry.set_alias(tx, declared.model, CHALLENGER, challenger.version, reason=reason)
        return self._endpoints.set_route(tx, declared.endpoint, route, reason=reason)

    def settle(self, tx: Transaction, declared: Declaration, cycle: Cycle | None, *, reason: str) -> None:
        """Let the present champion answer alone; whoever was on trial in `cycle` no longer is."""
        if cycle is not None and cycle.rollout_started is not None:
            self._registry.delete_alias(tx, declared.model, CHALLENGER, reason=reason)
        champion = champion_of(tx.connection, declared.model)
        if champion is not None:
            route = single(declared.model, champion.version, champion.digest)
            self._endpoints.set_route(tx, declared.endpoint, route, reason=reason)
