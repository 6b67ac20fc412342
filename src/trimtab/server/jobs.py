"""The worker role, with the handlers of all packages."""

from __future__ import annotations

from pathlib import Path

from trimtab.loop.orders import HANDLERS, LIMITS
from trimtab.pipelines.worker import PIPELINE_HANDLERS, PRELOAD, Worker
from trimtab.workspace import Workspace

MODELS = (
    "trimtab.models.mlmodel",
    "trimtab.models.model",
    "trimtab.models.gate_evaluation",
    "trimtab.loop.jobs",
)
"""What jobs about models need, imported before a worker forks: 2.3 s spared in each of them."""


def run_worker(project: Path) -> None:
    """Work on the jobs of a project's workspace until SIGTERM."""
    with Workspace.open(project, actor="worker") as workspace:
        handlers = {**PIPELINE_HANDLERS, **HANDLERS}
        Worker(workspace, handlers, preload=(*PRELOAD, *MODELS), limits=LIMITS).run()
