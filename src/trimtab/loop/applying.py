"""Putting the loop that a project declares into force."""

from __future__ import annotations

from trimtab.errors import InvalidInputError
from trimtab.loop.declaration import Loop
from trimtab.loop.loops import Loops
from trimtab.loop.records import Applied
from trimtab.models.policy import Override
from trimtab.pipelines.project import import_project_object
from trimtab.workspace import Workspace


def apply_reference(
    workspace: Workspace, reference: str | None = None, *, override: Override | None = None
) -> Applied:
    """Import a loop of the workspace's project ("module:name", by default the setting `loop`) and apply it.

    This runs the project's code in this process. Raises InvalidInputError for a reference that is none, or
    that names something else than a loop.
    """
    named = reference or workspace.settings.loop
    if not named:
        raise InvalidInputError(
            "No loop is named.", hint="Name it as module:name, or set loop = 'loop:loop' in trimtab.toml."
        )
    found = import_project_object(workspace.project, named)
    if not isinstance(found, Loop):
        raise InvalidInputError(
            f"'{named}' is {type(found).__name__}, not a loop.", hint="Make it a tt.Loop(...)."
        )
    return Loops(workspace).apply(found, project=workspace.project, override=override)
