"""The address of an open workspace, by which another process on this machine opens it too."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.config import Settings
from trimtab.workspace import Workspace

_KEPT_BACK = {"token", "webhook"}
"""Settings that no step needs to know."""


class Address(msgspec.Struct, frozen=True):
    """Where a workspace is, and in whose name it is opened."""

    project: str
    settings: bytes
    actor: str

    @classmethod
    def of(cls, workspace: Workspace) -> Address:
        """The address of an open workspace."""
        settings = workspace.settings.model_dump_json(exclude=_KEPT_BACK, exclude_none=True)
        return cls(str(workspace.project), settings.encode(), workspace.actor)

    def open(self) -> Workspace:
        """Open it in this process."""
        settings = Settings(**msgspec.json.decode(self.settings))
        return Workspace.open(Path(self.project), settings, actor=self.actor)
