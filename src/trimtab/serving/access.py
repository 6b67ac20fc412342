"""Who may talk to a port: bearer tokens, and the rule that beyond loopback nothing answers without one.

Tokens are random and long, so one SHA-256 keeps them safe at rest; they are shown once, when made.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection, insert, select, update

from trimtab.config import Settings
from trimtab.errors import ConflictError, InvalidInputError, RefusedError, UnauthorizedError, unknown
from trimtab.serving.endpoints import announce
from trimtab.serving.schema import tokens_table as tokens
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

PREFIX = "tt_"


class Token(msgspec.Struct, frozen=True):
    """A token as it is on record; the token itself is not."""

    name: str
    created_at: datetime
    created_by: str
    revoked_at: datetime | None


class Tokens:
    """The access tokens of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def create(self, name: str) -> str:
        """Make a token and answer it, this once; raises ConflictError if the name was used before."""
        if not name.strip():
            raise InvalidInputError("A token needs a name.", hint="Name it after who will use it.")
        token = PREFIX + secrets.token_urlsafe(32)

        def work(tx: Transaction) -> None:
            if tx.execute(select(tokens.c.name).where(tokens.c.name == name)).one_or_none() is not None:
                raise ConflictError(f"There is already a token '{name}'.", hint="Choose another name.")
            tx.execute(
                insert(tokens).values(
                    name=name, hash=hash_token(token), created_at=tx.at, created_by=tx.actor
                )
            )
            announce(tx)
            tx.journal("token.created", "token", name)

        self._workspace.write(work)
        return token

    def revoke(self, name: str) -> None:
        """Let a token open nothing any more; raises NotFoundError."""

        def work(tx: Transaction) -> None:
            known = tx.execute(select(tokens.c.name)).scalars().all()
            if name not in known:
                raise unknown("token", name, known)
            changed = tx.execute(
                update(tokens)
                .where(tokens.c.name == name, tokens.c.revoked_at.is_(None))
                .values(revoked_at=tx.at)
            )
            if changed.rowcount:
                announce(tx)
                tx.journal("token.revoked", "token", name)

        self._workspace.write(work)

    def list(self) -> list[Token]:
        """All tokens ever made, by name."""
        columns = [tokens.c.name, tokens.c.created_at, tokens.c.created_by, tokens.c.revoked_at]
        with self._workspace.read() as connection:
            found = connection.execute(select(*columns).order_by(tokens.c.name))
            return [Token(**row) for row in found.mappings()]


class Access:
    """Checks the `Authorization` header of requests to one port. Immutable: made anew when tokens change."""

    def __init__(self, hashes: Iterable[str], *, required: bool) -> None:
        self.hashes = frozenset(hashes)
        self.required = required
        self._hashes = [bytes.fromhex(each) for each in sorted(self.hashes)]

    def allows(self, authorization: str | None) -> bool:
        """Whether a request with this header may pass; takes the same time whichever token is tried."""
        if not self.required:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        given = hashlib.sha256(token.strip().encode()).digest()
        found = False
        for known in self._hashes:
            found |= hmac.compare_digest(given, known)
        return found

    def check(self, authorization: str | None) -> None:
        """Raise UnauthorizedError unless the request may pass."""
        if not self.allows(authorization):
            raise UnauthorizedError(
                "This address wants a token." if not authorization else "This token is not known.",
                hint="Send the header 'Authorization: Bearer TOKEN'; make one with `trimtab token create`.",
            )


def hash_token(token: str) -> str:
    """How a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_hashes(connection: Connection) -> frozenset[str]:
    """The hashes of the tokens that are in force in the metadata store."""
    return frozenset(connection.execute(select(tokens.c.hash).where(tokens.c.revoked_at.is_(None))).scalars())


def access_for(settings: Settings, host: str, stored: Iterable[str]) -> Access:
    """The rule for a port on `host`: a token is demanded beyond loopback, and wherever the settings name
    one. `stored` are the hashes out of the metadata store."""
    hashes = set(stored)
    if settings.token is not None:
        hashes.add(hash_token(settings.token.get_secret_value()))
    return Access(hashes, required=settings.token is not None or not is_loopback(host))


def check_binding(host: str, access: Access) -> None:
    """Raise RefusedError if a port on `host` would be open to others with no token to ask for."""
    if not is_loopback(host) and not access.hashes:
        raise RefusedError(
            f"Listening on {host} is refused: others can reach it, and there is no token to ask them for.",
            hint="Set TRIMTAB_TOKEN, or make one with `trimtab token create`, or listen on 127.0.0.1.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than "localhost" counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_origin(host: str, origin: str | None) -> None:
    """Raise RefusedError for a request that a web page of somebody else's may have sent: one that reached
    this machine under another name (DNS rebinding), or whose origin is another than this port."""
    if not _names_this_machine(host) or (origin and origin.partition("://")[2] != host):
        raise RefusedError(
            "This port answers only requests made on this machine, to this machine.",
            hint="Call it as 127.0.0.1, or set TRIMTAB_TOKEN and send it.",
        )


@lru_cache(maxsize=256)
def _names_this_machine(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:  # half an IPv6 address
        return False
