"""Trimtab keeps models on course in production.

Declare a loop (data, training pipeline, gates, rollout, monitors, triggers) and Trimtab runs it. What this
module names is the public API; each name is loaded when it is first used, so `import trimtab` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab import errors as errors
    from trimtab.data.contracts import Contract as Contract
    from trimtab.data.contracts import check as check
    from trimtab.data.contracts import field as field
    from trimtab.data.window import Window as Window
    from trimtab.data.window import everything as everything
    from trimtab.data.window import last as last
    from trimtab.data.window import share as share
    from trimtab.loop.budget import Budget as Budget
    from trimtab.loop.declaration import Loop as Loop
    from trimtab.loop.rollout import BlueGreen as BlueGreen
    from trimtab.loop.rollout import Canary as Canary
    from trimtab.loop.rollout import Shadow as Shadow
    from trimtab.loop.triggers import Every as Every
    from trimtab.loop.triggers import OnAge as OnAge
    from trimtab.loop.triggers import OnBias as OnBias
    from trimtab.loop.triggers import OnDrift as OnDrift
    from trimtab.loop.triggers import OnNewData as OnNewData
    from trimtab.loop.triggers import OnPerformance as OnPerformance
    from trimtab.models import gates as gates
    from trimtab.models.inputs import inputs as inputs
    from trimtab.models.model import Model as Model
    from trimtab.monitoring.monitors import Bias as Bias
    from trimtab.monitoring.monitors import Drift as Drift
    from trimtab.monitoring.monitors import Performance as Performance
    from trimtab.monitoring.monitors import ServiceLevel as ServiceLevel
    from trimtab.pipelines.graph import pipeline as pipeline
    from trimtab.pipelines.source import dataset as dataset
    from trimtab.pipelines.step import Resources as Resources
    from trimtab.pipelines.step import step as step
    from trimtab.tracking.log import log as log
    from trimtab.workspace import Workspace as Workspace

__version__ = "0.1.0"

__all__ = [
    "Bias",
    "BlueGreen",
    "Budget",
    "Canary",
    "Contract",
    "Drift",
    "Every",
    "Loop",
    "Model",
    "OnAge",
    "OnBias",
    "OnDrift",
    "OnNewData",
    "OnPerformance",
    "Performance",
    "Resources",
    "ServiceLevel",
    "Shadow",
    "Window",
    "Workspace",
    "check",
    "dataset",
    "errors",
    "everything",
    "field",
    "gates",
    "inputs",
    "last",
    "log",
    "pipeline",
    "share",
    "step",
]

_HOMES = {
    "Bias": "trimtab.monitoring.monitors",
    "BlueGreen": "trimtab.loop.rollout",
    "Budget": "trimtab.loop.budget",
    "Canary": "trimtab.loop.rollout",
    "Contract": "trimtab.data.contracts",
    "Drift": "trimtab.monitoring.monitors",
    "Every": "trimtab.loop.triggers",
    "Loop": "trimtab.loop.declaration",
    "Model": "trimtab.models.model",
    "OnAge": "trimtab.loop.triggers",
    "OnBias": "trimtab.loop.triggers",
    "OnDrift": "trimtab.loop.triggers",
    "OnNewData": "trimtab.loop.triggers",
    "OnPerformance": "trimtab.loop.triggers",
    "Performance": "trimtab.monitoring.monitors",
    "Resources": "trimtab.pipelines.step",
    "ServiceLevel": "trimtab.monitoring.monitors",
    "Shadow": "trimtab.loop.rollout",
    "Window": "trimtab.data.window",
    "Workspace": "trimtab.workspace",
    "check": "trimtab.data.contracts",
    "dataset": "trimtab.pipelines.source",
    "everything": "trimtab.data.window",
    "field": "trimtab.data.contracts",
    "inputs": "trimtab.models.inputs",
    "last": "trimtab.data.window",
    "log": "trimtab.tracking.log",
    "pipeline": "trimtab.pipelines.graph",
    "share": "trimtab.data.window",
    "step": "trimtab.pipelines.step",
}
"""Where each public name is defined."""

_MODULES = {"errors": "trimtab.errors", "gates": "trimtab.models.gates"}
"""Public names that are modules."""


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trimtab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
