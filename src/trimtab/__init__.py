"""Trimtab keeps models on course in production.

Declare a loop (data, training pipeline, gates, rollout, monitors, triggers) and Trimtab runs it. What this
module names is the public API; each name is loaded when it is first used, so `import trimtab` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab import errors as errors
    from trimtab.data.window import Window as Window
    from trimtab.data.window import last as last
    from trimtab.models.model import Model as Model
    from trimtab.pipelines.graph import pipeline as pipeline
    from trimtab.pipelines.source import dataset as dataset
    from trimtab.pipelines.step import Resources as Resources
    from trimtab.pipelines.step import step as step
    from trimtab.workspace import Workspace as Workspace

__version__ = "0.1.0"

__all__ = [
    "Model",
    "Resources",
    "Window",
    "Workspace",
    "dataset",
    "errors",
    "last",
    "pipeline",
    "step",
]

_HOMES = {
    "dataset": "trimtab.pipelines.source",
    "pipeline": "trimtab.pipelines.graph",
    "step": "trimtab.pipelines.step",
    "Resources": "trimtab.pipelines.step",
    "Model": "trimtab.models.model",
    "Window": "trimtab.data.window",
    "Workspace": "trimtab.workspace",
    "last": "trimtab.data.window",
}
"""Where each public name is defined."""

_MODULES = {"errors": "trimtab.errors"}
"""Public names that are modules."""


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trimtab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
