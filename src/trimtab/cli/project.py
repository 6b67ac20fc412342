"""The option --dir, and the workspace that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.workspace import Workspace

Project = Annotated[
    Path, typer.Option("--dir", help="The project's folder (with trimtab.toml).", file_okay=False)
]

HERE = Path()
"""The default of --dir."""


def open_workspace(project: Path) -> Workspace:
    """Open the workspace of a project; raises NotFoundError if there is no project in the folder."""
    return Workspace.open(project)
