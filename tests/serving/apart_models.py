"""Models that run in a process of their own, and how they come behind an endpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trimtab.models.registry import Registry
from trimtab.serving.endpoints import Endpoints
from trimtab.serving.routes import Arm, Route
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

_SAVING = """
import sys
import mlflow.pyfunc, pandas
from mlflow.models import infer_signature
from mlflow.pyfunc import PythonModel

class Doubling(PythonModel):
    def predict(self, context, model_input, params=None):
        return 2 * model_input["x"] + model_input["word"].str.len()

frame = pandas.DataFrame({"x": [1.0, 2.5], "word": ["one", "three"]})
mlflow.pyfunc.save_model(
    sys.argv[1], python_model=Doubling(), signature=infer_signature(frame, [5.0, 10.0]), input_example=frame,
    pip_requirements=[],
)
"""


def save_doubling(folder: Path) -> None:
    """Save a pyfunc that doubles a number and adds the length of a word, as MLflow does."""
    command = [sys.executable, "-c", _SAVING, str(folder)]
    subprocess.run(command, check=True, cwd=folder.parent, capture_output=True)


def serve(workspace: Workspace, name: str, folder: Path) -> str:
    """Register a model and put it behind an endpoint, both of this name; answers its digest."""
    registry, endpoints = Registry(workspace), Endpoints(workspace)
    digest = workspace.blobs.put_tree(folder)

    def work(tx: Transaction) -> None:
        registry.create_model(tx, name)
        version = registry.register(tx, name, digest)
        endpoints.create(tx, name, name)
        arm = Arm(version=version.version, digest=digest, role="primary", share=100.0)
        endpoints.set_route(tx, name, Route(model=name, arms=(arm,), salt="s"))

    workspace.write(work)
    return digest
