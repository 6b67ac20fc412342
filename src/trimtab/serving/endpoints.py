"""Endpoints: stable names that clients call, and the routes behind them."""

from __future__ import annotations

import re
import secrets
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from trimtab.errors import ConflictError, InvalidInputError, unknown
from trimtab.serving.options import DEFAULT, Options, options_from
from trimtab.serving.prediction_ids import SECRET_BYTES
from trimtab.serving.routes import Arm, Route
from trimtab.serving.schema import endpoints_table as endpoints
from trimtab.serving.schema import routes_table as routes
from trimtab.serving.schema import serving_state_table as serving_state
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.workspace import Workspace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint. `generation` is that of its present route, 0 before the first."""

    name: str
    model: str
    generation: int
    created_at: datetime
    options: Options = DEFAULT


class RouteChange(msgspec.Struct, frozen=True):
    """A route, when it was set, by whom and why."""

    route: Route
    at: datetime
    actor: str
    reason: str


class Endpoints:
    """The endpoints of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def create(self, tx: Transaction, name: str, model: str) -> Endpoint:
        """Make an endpoint for a model; answers the one that stands if it is the same.

        Raises ConflictError if the name is taken by another model, InvalidInputError for an unusable name.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"'{name}' cannot be the name of an endpoint.",
                hint="Use letters, digits, '.', '_' and '-', at most 128 of them.",
            )
        standing = _find(tx.connection, name)
        if standing is None:
            tx.execute(insert(endpoints).values(name=name, model=model, generation=0, created_at=tx.at))
            announce(tx)
            tx.journal("endpoint.created", "endpoint", name, details={"model": model})
            return Endpoint(name, model, 0, tx.at)
        if standing.model != model:
            raise ConflictError(
                f"The endpoint '{name}' serves the model '{standing.model}'.", hint="Choose another name."
            )
        return standing

    def set_route(self, tx: Transaction, name: str, route: Route, *, reason: str = "") -> int:
        """Put a route behind an endpoint and answer its generation, which grows with each change.

        Setting what stands already changes nothing. Raises NotFoundError, ConflictError for a route of
        another model.
        """
        endpoint = self._get(tx.connection, name)
        if route.model != endpoint.model:
            raise ConflictError(
                f"The endpoint '{name}' serves the model '{endpoint.model}', not '{route.model}'."
            )
        standing = _route(tx.connection, name, endpoint.generation)
        if (
            standing is not None
            and msgspec.structs.replace(route, generation=standing.generation) == standing
        ):
            return standing.generation
        generation = endpoint.generation + 1
        tx.execute(update(endpoints).where(endpoints.c.name == name).values(generation=generation))
        tx.execute(
            insert(routes).values(
                endpoint=name,
                generation=generation,
                model=route.model,
                salt=route.salt,
                arms=route.arms,
                at=tx.at,
                actor=tx.actor,
                reason=reason,
            )
        )
        announce(tx)
        tx.journal(
            "endpoint.route_set",
            "endpoint",
            name,
            reason=reason,
            details={"generation": generation, "salt": route.salt, "arms": route.arms},
        )
        return generation

    def set_options(self, tx: Transaction, name: str, options: Options) -> None:
        """Serve an endpoint with these options from now on; raises NotFoundError."""
        if self._get(tx.connection, name).options == options:
            return
        tx.execute(update(endpoints).where(endpoints.c.name == name).values(options=options))
        announce(tx)
        tx.journal("endpoint.options_set", "endpoint", name, details=options)

    def get(self, name: str) -> Endpoint:
        """The endpoint; raises NotFoundError."""
        with self._workspace.read() as connection:
            return self._get(connection, name)

    def route(self, name: str) -> Route | None:
        """The present route, or None before the first; raises NotFoundError."""
        with self._workspace.read() as connection:
            return _route(connection, name, self._get(connection, name).generation)

    def list(self) -> list[Endpoint]:
        """All endpoints by name."""
        with self._workspace.read() as connection:
            found = connection.execute(select(endpoints).order_by(endpoints.c.name))
            return [_endpoint(row) for row in found]

    def history(self, name: str) -> tuple[RouteChange, ...]:
        """All routes that the endpoint had, the first first; raises NotFoundError."""
        with self._workspace.read() as connection:
            self._get(connection, name)
            query = select(routes).where(routes.c.endpoint == name).order_by(routes.c.generation)
            return tuple(
                RouteChange(_built(row), row.at, row.actor, row.reason) for row in connection.execute(query)
            )

    def _get(self, connection: Connection, name: str) -> Endpoint:
        found = _find(connection, name)
        if found is None:
            raise unknown("endpoint", name, connection.execute(select(endpoints.c.name)).scalars())
        return found


def current_routes(connection: Connection) -> dict[str, Route]:
    """The present route of every endpoint that has one."""
    query = select(routes).join(
        endpoints,
        (endpoints.c.name == routes.c.endpoint) & (endpoints.c.generation == routes.c.generation),
    )
    return {row.endpoint: _built(row) for row in connection.execute(query)}


def current_options(connection: Connection) -> dict[str, Options]:
    """The options of every endpoint for which any were set."""
    query = select(endpoints.c.name, endpoints.c.options).where(endpoints.c.options.is_not(None))
    return {row.name: options_from(row.options) for row in connection.execute(query)}


def labels_dataset(endpoint: str) -> str:
    """The name of the dataset whose rows are told to an endpoint as labels (`trimtab.serving.labels`)."""
    return f"{endpoint}.labels"


def announce(tx: Transaction) -> None:
    """Let all gateways know that there is something new to read."""
    _ensure_state(tx)
    tx.execute(update(serving_state).values(revision=serving_state.c.revision + 1))


def demand_flush(tx: Transaction) -> int:
    """Ask all gateways and shippers to ship everything; answers the demand's number."""
    _ensure_state(tx)
    tx.execute(update(serving_state).values(flush=serving_state.c.flush + 1))
    return int(tx.execute(select(serving_state.c.flush)).scalar_one())


def signing_secret(tx: Transaction) -> bytes:
    """The secret under which prediction ids are made; made itself when first asked for."""
    _ensure_state(tx)
    return bytes.fromhex(tx.execute(select(serving_state.c.secret)).scalar_one())


def _ensure_state(tx: Transaction) -> None:
    if tx.execute(select(serving_state.c.id)).one_or_none() is None:
        row = {"id": 1, "revision": 0, "flush": 0, "secret": secrets.token_hex(SECRET_BYTES)}
        upsert(tx, serving_state, [row], keys=["id"], update=[])


def _find(connection: Connection, name: str) -> Endpoint | None:
    row = connection.execute(select(endpoints).where(endpoints.c.name == name)).one_or_none()
    return None if row is None else _endpoint(row)


def _endpoint(row: Row[tuple[object, ...]]) -> Endpoint:
    return Endpoint(row.name, row.model, row.generation, row.created_at, options_from(row.options))


def _route(connection: Connection, name: str, generation: int) -> Route | None:
    row = connection.execute(
        select(routes).where(routes.c.endpoint == name, routes.c.generation == generation)
    ).one_or_none()
    return None if row is None else _built(row)


def _built(row: object) -> Route:
    values = {"generation": row.generation, "model": row.model, "salt": row.salt}  # type: ignore[attr-defined]  # a row
    return Route(arms=msgspec.convert(row.arms, tuple[Arm, ...]), **values)  # type: ignore[attr-defined]  # a row
