"""What the stores share: a workspace, read and written with errors as MLflow has them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from trimtab.models.mlflow_plugin.errors import as_mlflow
from trimtab.models.mlflow_plugin.workspaces import workspace_at, workspace_in
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

T = TypeVar("T")


class StoredWorkspace:
    """The workspace at an address. It is asked for anew each time, so that a forked process opens its own."""

    def __init__(self, uri: str) -> None:
        with as_mlflow():
            self.project: Path = workspace_at(uri).project  # "trimtab:" is the folder of this moment

    @property
    def open(self) -> Workspace:
        """The open workspace."""
        return workspace_in(self.project)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on one consistent snapshot."""
        with as_mlflow(), self.open.read() as connection:
            yield connection

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Do `work` in one durable transaction."""
        with as_mlflow():
            workspace = self.open
            workspace.clock.refresh()
            return workspace.write(work)
