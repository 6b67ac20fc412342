"""Registered versions put behind endpoints by a person, where no loop decides what answers."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, select

from trimtab.errors import ConflictError, RefusedError, unknown
from trimtab.loop.schema import loop_versions_table, loops_table
from trimtab.models import governance, versions
from trimtab.models.aliases import CHAMPION
from trimtab.models.policy import Override
from trimtab.models.registry import Registry
from trimtab.serving.endpoints import Endpoints, announce
from trimtab.serving.routes import Arm, Route, single
from trimtab.serving.schema import endpoints_table, routes_table
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace


class _Declared(msgspec.Struct):
    """What of a loop's declaration matters here; the whole takes long to load, and a start is waiting."""

    endpoint: str


class Deployments:
    """The endpoints of a workspace, as far as no loop governs them. What a loop governs is refused with
    RefusedError, in every method."""

    def __init__(self, workspace: Workspace) -> None:
        self._registry = Registry(workspace)
        self._endpoints = Endpoints(workspace)

    def deploy(
        self,
        tx: Transaction,
        endpoint: str,
        model: str,
        version: int,
        *,
        reason: str = "",
        override: Override | None = None,
    ) -> int:
        """Let one version answer everything at an endpoint, which is made if need be; answers the route's
        generation.

        Of a model that is governed, only the champion and versions that may become it are deployed, others
        with an `override`. Raises NotFoundError, ConflictError for an endpoint of another model.
        """
        _check_no_loop(tx.connection, endpoint)
        found = self._registry.get_version(model, version, tx=tx)
        basis = _check_gates(tx.connection, model, version, override)
        self._endpoints.create(tx, endpoint, model)
        details: dict[str, object] = {
            "model": model,
            "version": version,
            "digest": found.digest,
            "basis": basis,
        }
        if override is not None:
            details["override"] = override
        tx.journal("endpoint.deployed", "endpoint", endpoint, reason=reason, details=details)
        return self._endpoints.set_route(tx, endpoint, single(model, version, found.digest), reason=reason)

    def rollback(self, tx: Transaction, endpoint: str, *, to: int | None = None, reason: str = "") -> Route:
        """Put the route back that stood before the present one, or that of generation `to`, as a new
        generation; answers it. The same gates are asked for as by `deploy`.

        Raises ConflictError if there is none, NotFoundError for a generation or version that is not there.
        """
        _check_no_loop(tx.connection, endpoint)
        _check_known(tx.connection, endpoint)
        routes = _routes(tx.connection, endpoint)
        if to is None:
            present = routes[max(routes)].arms if routes else ()
            earlier = [route for route in routes.values() if route.arms != present]
            if not earlier:
                raise ConflictError(f"The endpoint '{endpoint}' has had no other route to go back to.")
            target = earlier[-1]
        elif to in routes:
            target = routes[to]
        else:
            raise unknown(f"generation of '{endpoint}'", str(to), map(str, routes))
        for arm in target.arms:
            standing = self._registry.get_version(target.model, arm.version, tx=tx)
            if standing.digest != arm.digest:
                raise ConflictError(
                    f"Version {arm.version} of '{target.model}' is not what it was when it answered."
                )
            _check_gates(tx.connection, target.model, arm.version, None)
        generation = self._endpoints.set_route(tx, endpoint, target, reason=reason)
        details = {"from": target.generation, "generation": generation}
        tx.journal("endpoint.rolled_back", "endpoint", endpoint, reason=reason, details=details)
        return target

    def delete(self, tx: Transaction, endpoint: str, *, reason: str = "") -> None:
        """Let an endpoint answer no more. Its routes go with it; what it predicted, and the journal, stay.
        Raises NotFoundError."""
        _check_no_loop(tx.connection, endpoint)
        _check_known(tx.connection, endpoint)
        tx.execute(delete(routes_table).where(routes_table.c.endpoint == endpoint))
        tx.execute(delete(endpoints_table).where(endpoints_table.c.name == endpoint))
        announce(tx)
        tx.journal("endpoint.deleted", "endpoint", endpoint, reason=reason)


def _check_known(connection: Connection, endpoint: str) -> None:
    known = connection.execute(select(endpoints_table.c.name)).scalars().all()
    if endpoint not in known:
        raise unknown("endpoint", endpoint, known)


def _routes(connection: Connection, endpoint: str) -> dict[int, Route]:
    """All routes that an endpoint had, by generation, the first first."""
    query = (
        select(routes_table).where(routes_table.c.endpoint == endpoint).order_by(routes_table.c.generation)
    )
    return {
        row.generation: Route(
            model=row.model,
            arms=msgspec.convert(row.arms, tuple[Arm, ...]),
            salt=row.salt,
            generation=row.generation,
        )
        for row in connection.execute(query)
    }


def _check_no_loop(connection: Connection, endpoint: str) -> None:
    applied = loop_versions_table.c
    query = select(applied.loop, applied.declaration).join(
        loops_table, (loops_table.c.name == applied.loop) & (loops_table.c.version == applied.version)
    )
    for loop, declaration in connection.execute(query):
        if msgspec.json.decode(declaration, type=_Declared).endpoint == endpoint:
            raise RefusedError(
                f"The endpoint '{endpoint}' belongs to the loop '{loop}', which decides what answers.",
                hint=f"Use `trimtab loop trigger {loop}` or `trimtab loop rollback {loop}`, or another "
                "endpoint.",
            )


def _check_gates(connection: Connection, model: str, version: int, override: Override | None) -> str:
    """On what ground a version may answer; raises RefusedError if a governed model's gates forbid it."""
    record = versions.find_model(connection, model, lock=True)
    if versions.aliases_of(connection, record.id).get(CHAMPION) == version:
        return "champion"
    row = versions.find_version(connection, record, version)
    policy = governance.policy_in_force(connection, record)
    try:
        return governance.basis_for(connection, record, row, policy, override).ground
    except RefusedError as error:
        raise RefusedError(
            f"Version {version} of '{model}' may not be deployed. The model is governed by "
            f"{record.governed_by}: {error.message}",
            hint=error.hint,
        ) from None
