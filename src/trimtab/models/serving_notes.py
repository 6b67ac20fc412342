"""How a version is served, in a few words."""

from __future__ import annotations

import msgspec

from trimtab.errors import NotFoundError
from trimtab.models.specification import MLMODEL_FILE, SPECIFICATION_FILE, STEPS_RUNTIME, Specification
from trimtab.workspace import Workspace

_APART = " in a process of its own, if allowed"
_RUNTIMES = {
    "lightgbm": "LightGBM",
    "onnx": "ONNX Runtime",
    "torch": f"PyTorch{_APART}",
    "xgboost": "XGBoost",
}


def how_served(workspace: Workspace, digest: str) -> str:
    """What of Trimtab's runtimes serves the version of this digest, and what it was converted from."""
    try:
        files = workspace.blobs.manifest(digest).files
        if SPECIFICATION_FILE not in files:
            return "in a process of its own, if allowed" if MLMODEL_FILE in files else "not at all"
        content = workspace.blobs.get(files[SPECIFICATION_FILE].digest)
        specification = msgspec.json.decode(content, type=Specification)
    except (NotFoundError, msgspec.MsgspecError):
        return "not at all"
    runtime = specification.options.get("inner", specification.runtime)
    made = f"by {_RUNTIMES.get(runtime, runtime)}"
    if specification.has_steps:
        around = ((role, specification.options.get(role)) for role in ("before", "after"))
        steps = " and ".join(f"{step} {role} it" for role, step in around if step)
        made = f"{made.removesuffix(_APART)} with {steps}"
        if specification.runtime == STEPS_RUNTIME:
            why = specification.options.get("needs_process", "")
            made = f"in a process of its own, if allowed, {made}; {why}"
    if (reason := specification.options.get("not_converted")) is not None:
        return f"{made}; not converted to ONNX: {reason.rstrip('.')}"
    if (origin := specification.options.get("converted_from")) is None:
        return made
    within = f"{specification.tolerance:g} on {specification.options.get('checked_rows', '?')} rows"
    return f"{made}, converted from {origin}, within {within}"
