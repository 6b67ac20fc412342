"""Who may talk to a port: bearer tokens, and the rule that beyond loopback nothing answers without one.

Tokens are random and long, so one SHA-256 keeps them safe at rest; they are shown once, when made.
"""

from __future__ import annotations

import secrets
from datetime import datetime

import msgspec
from sqlalchemy import Connection, insert, select, update

from trimtab.errors import ConflictError, InvalidInputError, unknown
from trimtab.serving.admission import (
    Access,
    access_for,
    check_binding,
    check_origin,
    hash_token,
    is_loopback,
)
from trimtab.serving.endpoints import announce
from trimtab.serving.schema import tokens_table as tokens
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

__all__ = [
    "Access",
    "Token",
    "Tokens",
    "access_for",
    "check_binding",
    "check_origin",
    "is_loopback",
    "token_hashes",
]

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


def token_hashes(connection: Connection) -> frozenset[str]:
    """The hashes of the tokens that are in force in the metadata store."""
    return frozenset(connection.execute(select(tokens.c.hash).where(tokens.c.revoked_at.is_(None))).scalars())
