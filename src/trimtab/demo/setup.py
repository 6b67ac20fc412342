"""What stands before the replay begins: the project, its history as dataset versions, its loop."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from trimtab.data.sources import Sources
from trimtab.demo.driver import INCOMING, REPLAY_FROM
from trimtab.demo.example import DATASET, append_history, write_example
from trimtab.errors import ConflictError
from trimtab.loop.applying import apply_reference
from trimtab.loop.replay import Replay
from trimtab.workspace import Workspace

MARKER = ".trimtab-demo"


def make_project(folder: Path) -> None:
    """Write the example project into `folder`; what an earlier demo left there is removed first.

    Raises ConflictError if the folder holds anything else.
    """
    if (folder / MARKER).exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise ConflictError(
            f"The folder {folder} is not empty, and no demo made it.", hint="Name another one with --dir."
        )
    write_example("bikes", folder)
    (folder / MARKER).touch()
    (folder / INCOMING).mkdir()


def prepare(workspace: Workspace) -> None:
    """Start the replay, append the first eight months month by month, watch the folder, apply the loop."""
    Replay(workspace).start(REPLAY_FROM)
    append_history(workspace)
    sources = Sources(workspace)
    sources.register(DATASET, workspace.project / INCOMING, every=timedelta(days=7), settle=timedelta(0))
    apply_reference(workspace)
