"""Projects for pipelines: files written into a workspace's folder, and runs of what is in them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.workspace import Workspace

Write = Callable[..., Path]


@pytest.fixture
def write(workspace: Workspace) -> Write:
    """Write modules into the workspace's project: `write(loop="...", helpers="...")`; "__" in a name
    stands for a folder. Answers the project's folder."""

    def files(**modules: str) -> Path:
        for name, text in modules.items():
            path = workspace.project / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return workspace.project

    return files
