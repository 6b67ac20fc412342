"""The workspaces that MLflow's client has open in this process: one for each project, shared by all stores.

MLflow makes stores and artifact repositories as it likes and closes none of them.
"""

from __future__ import annotations

import atexit
import functools
import os
from pathlib import Path

from trimtab.models.addresses import project_of
from trimtab.tracking import experiments
from trimtab.workspace import Workspace


def workspace_at(uri: str) -> Workspace:
    """The open workspace of an address; raises NotFoundError if there is no project."""
    return workspace_of(project_of(uri))


def workspace_of(project: Path) -> Workspace:
    """The open workspace of a project folder."""
    return workspace_in(project.resolve())


def workspace_in(resolved: Path) -> Workspace:
    """The open workspace of a project folder whose path is resolved."""
    # By process too: what a parent had open is not its forked child's to use.
    return _opened(resolved, os.getpid())


def close_workspaces() -> None:
    """Close all that this process has open. They open again when they are used."""
    for workspace in _all.pop(os.getpid(), []):
        workspace.close()
    _opened.cache_clear()


_all: dict[int, list[Workspace]] = {}


@functools.cache
def _opened(project: Path, process: int) -> Workspace:
    workspace = Workspace.open(project)
    if process not in _all:
        atexit.register(close_workspaces)
    _all.setdefault(process, []).append(workspace)
    workspace.write(experiments.make_default)
    return workspace
