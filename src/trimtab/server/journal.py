"""Journal routes."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from trimtab.server.workspace import Caller
from trimtab.store import journal

router = APIRouter(prefix="/v1/journal", tags=["journal"])


@router.get("")
def entries(
    workspace: Caller,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    kind: str | None = None,
    name: str | None = None,
    action: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """Entries with a number above `after`, oldest first."""
    with workspace.read() as connection:
        found = journal.entries(connection, after=after, kind=kind, name=name, action=action, limit=limit)
        return [msgspec.to_builtins(entry) for entry in found]


@router.get("/verification")
def verification(workspace: Caller) -> dict[str, Any]:
    """Check the whole hash chain; 500 with the code `journal_broken` if it does not hold."""
    with workspace.read() as connection:
        outcome: dict[str, Any] = msgspec.to_builtins(journal.verify(connection))
        return outcome
