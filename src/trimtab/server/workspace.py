"""What routes are given: the open workspace, in the name of whoever calls."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from trimtab.workspace import Workspace


def _caller(request: Request, x_trimtab_actor: Annotated[str | None, Header()] = None) -> Workspace:
    """The workspace, acting for the caller: the header X-Trimtab-Actor, else "http"."""
    workspace: Workspace = request.app.state.workspace
    workspace.clock.refresh()
    return workspace.acting_as(x_trimtab_actor or "http")


Caller = Annotated[Workspace, Depends(_caller)]
