"""What mlflow.pytorch logged: served in a process of its own as it is, and converted like other flavors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from trimtab.errors import InvalidInputError
from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.predictor import load_servable
from trimtab.models.converting import convert_version
from trimtab.models.registry import Registry
from trimtab.models.runtimes.predictor import load_predictor
from trimtab.workspace import Workspace

pytest.importorskip("torch", reason="the extra torch is not installed (PyTorch's build for CPUs)")
pytest.importorskip("onnxscript", reason="the extra torch is not installed")
pytest.importorskip("pandas", reason="the extra pyfunc is not installed")

import mlflow.pytorch
import torch
from mlflow.models import infer_signature

MATRIX = np.random.default_rng(5).normal(size=(50, 3)).astype(np.float32)
REQUEST = pl.DataFrame(MATRIX.astype(np.float64), schema=["a", "b", "c"])


def network(*layers: Any) -> Any:
    torch.manual_seed(2)
    return torch.nn.Sequential(*layers, torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))


def said(module: Any) -> Any:
    with torch.no_grad():
        return module(torch.tensor(MATRIX))[:, 0].double().numpy()


def saved(module: Any, form: str, folder: Path) -> Path:
    rows: Any = REQUEST.to_pandas().astype("float32") if form == "pickle" else MATRIX
    mlflow.pytorch.save_model(
        module,
        str(folder),
        signature=infer_signature(rows, said(module).astype(np.float32)),
        input_example=rows[:4],
        pip_requirements=[],
        serialization_format=form,
    )
    return folder


def registered(workspace: Workspace, folder: Path) -> int:
    registry = Registry(workspace)
    digest = workspace.blobs.put_tree(folder)
    workspace.write(lambda tx: registry.create_model(tx, "waves", exist_ok=True))
    return workspace.write(lambda tx: registry.register(tx, "waves", digest)).version


@pytest.mark.parametrize("form", ["pickle", "pt2"])
def test_what_was_logged_is_served_apart_and_converted(
    workspace: Workspace, tmp_path: Path, form: str
) -> None:
    module = network()
    folder = saved(module, form, tmp_path / "model")
    names = ["a", "b", "c"] if form == "pickle" else ["0", "1", "2"]
    request = dict(zip(names, MATRIX.T.astype(np.float64), strict=True))
    with load_servable(
        folder, model="waves", confinement=Confinement(("waves",), timeout_ms=60_000)
    ) as apart:
        np.testing.assert_allclose(apart.predict(request), said(module), rtol=1e-6, atol=1e-6)
    made, told = convert_version(workspace, "waves", registered(workspace, folder))
    assert (told.flavor, told.runtime) == ("pytorch", "onnx")
    workspace.blobs.fetch_tree(made.digest, tmp_path / "made")
    with load_predictor(tmp_path / "made") as predictor:
        np.testing.assert_allclose(predictor.predict(request), said(module), rtol=1e-5, atol=1e-5)


class Waves(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read
    def forward(self, rows: Any) -> Any:
        return torch.special.bessel_j0(rows)


def test_what_onnx_has_not_is_not_converted(workspace: Workspace, tmp_path: Path) -> None:
    version = registered(workspace, saved(network(Waves()), "pt2", tmp_path / "model"))
    with pytest.raises(InvalidInputError, match="bessel_j0") as caught:
        convert_version(workspace, "waves", version)
    assert "confined_models" in caught.value.hint
