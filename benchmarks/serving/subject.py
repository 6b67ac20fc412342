"""What is served, a scaler with a logistic regression and 200 trees, both on 30 features; the requests."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.serving.endpoints import Endpoints
from trimtab.serving.routes import single
from trimtab.workspace import Workspace

FEATURES = 30
ROWS = 5_000
BATCH = 1_000
TREES = 200
ENDPOINT = "bench"
NAMES = [f"f{place}" for place in range(FEATURES)]


class Subject(msgspec.Struct, frozen=True):
    """The folder of all that is served, and a matrix of shape (BATCH, FEATURES) to ask for. `expected`: what
    each model says to its first row and to its last."""

    folder: Path
    matrix: NDArray[np.float64]
    expected: dict[str, tuple[float, float]]

    @property
    def data(self) -> Path:
        """The training data, for peers that fit the same model with what they have."""
        return self.folder / "data.npz"

    def model_file(self, model: str) -> Path:
        """The native file of a model: "onnx" or "trees"."""
        return self.folder / f"{model}.{'onnx' if model == 'onnx' else 'txt'}"

    def project(self, model: str) -> Path:
        """Trimtab's project with this model behind its endpoint."""
        return self.folder / f"project-{model}"


def make(folder: Path) -> Subject:
    """Train both, and write all that the servers need."""
    rng = np.random.default_rng(0)
    # Six decimals, about what measured values have when they are written as text.
    matrix = rng.normal(size=(ROWS, FEATURES)).round(6)
    target = (matrix @ rng.normal(size=FEATURES) + rng.normal(size=ROWS) > 0).astype(float)
    np.savez(folder / "data.npz", matrix=matrix, target=target)
    frame = pl.DataFrame(matrix, schema=NAMES)
    taken = inputs(frame)
    graph = _graph(matrix, target)
    trees = lightgbm.train(
        {"objective": "binary", "num_leaves": 31, "num_threads": 1, "verbose": -1},
        lightgbm.Dataset(matrix, target, feature_name=NAMES),
        TREES,
    ).model_to_string()
    asked = matrix[:BATCH]
    made: dict[str, Model] = {
        "onnx": Model.onnx(graph, taken, target="y"),
        "trees": Model.lightgbm(trees, taken, target="y"),
    }
    expected: dict[str, tuple[float, float]] = {}
    subject = Subject(folder, asked, expected)
    subject.model_file("onnx").write_bytes(graph)
    subject.model_file("trees").write_text(trees)
    for name, model in made.items():
        said = model.predict(frame.head(BATCH))
        expected[name] = (float(said[0]), float(said[-1]))
        _deploy(subject.project(name), model)
    return subject


def _graph(matrix: NDArray[np.float64], target: NDArray[np.float64]) -> bytes:
    """The scaler and the regression, fitted by scikit-learn, as one ONNX graph in single precision."""
    from onnx import TensorProto, helper, numpy_helper

    scaler = StandardScaler().fit(matrix)
    regression = LogisticRegression().fit(scaler.transform(matrix), target)
    constants = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "weights": regression.coef_.T,
        "bias": regression.intercept_,
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "weights", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "scaled_regression",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def _deploy(project: Path, model: Model) -> None:
    """A project that serves a model under the endpoint's name."""
    with Workspace.create(project) as workspace, tempfile.TemporaryDirectory() as name:
        model.save(Path(name) / "model")
        digest = workspace.blobs.put_tree(Path(name) / "model")
        endpoints = Endpoints(workspace)
        workspace.write(lambda tx: endpoints.create(tx, ENDPOINT, ENDPOINT))
        workspace.write(lambda tx: endpoints.set_route(tx, ENDPOINT, single(ENDPOINT, 1, digest)))


class Question(msgspec.Struct, frozen=True):
    """A request that is sent again and again. `rows`: how many it asks about."""

    path: str
    body: bytes
    rows: int
    headers: dict[str, str] = msgspec.field(default_factory=lambda: {"Content-Type": "application/json"})


def plain(matrix: NDArray[np.float64]) -> Question:
    """Trimtab's plain JSON, by column name."""
    if len(matrix) == 1:
        given: dict[str, Any] = {"row": dict(zip(NAMES, matrix[0].tolist(), strict=True))}
    else:
        given = {"columns": {name: matrix[:, place].tolist() for place, name in enumerate(NAMES)}}
    return Question(f"/v1/endpoints/{ENDPOINT}/predict", json.dumps(given).encode(), len(matrix))


def open_inference(matrix: NDArray[np.float64], *, output: str | None = None) -> Question:
    """The Open Inference Protocol in JSON: one tensor of all columns."""
    given: dict[str, Any] = {"inputs": [{**_tensor(matrix), "data": matrix.ravel().tolist()}]}
    if output is not None:
        given["outputs"] = [{"name": output}]
    return Question(f"/v2/models/{ENDPOINT}/infer", json.dumps(given).encode(), len(matrix))


def binary(matrix: NDArray[np.float64]) -> Question:
    """The same with the tensors as bytes behind the JSON, there and back."""
    raw = matrix.astype("<f8").tobytes()
    tensor = {**_tensor(matrix), "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return Question(
        f"/v2/models/{ENDPOINT}/infer",
        head + raw,
        len(matrix),
        {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))},
    )


def instances(matrix: NDArray[np.float64], path: str = "/invocations") -> Question:
    """What `mlflow models serve` takes with the least work for it: a matrix."""
    return Question(path, json.dumps({"inputs": matrix.tolist()}).encode(), len(matrix))


def _tensor(matrix: NDArray[np.float64]) -> dict[str, Any]:
    return {"name": "x", "shape": list(matrix.shape), "datatype": "FP64"}


def last_answer(question: Question, body: bytes) -> float:
    """The last number that a server answered with, in any of the protocols."""
    if "Inference-Header-Content-Length" in question.headers:
        return float(np.frombuffer(body[-8:], "<f8")[0])
    said = json.loads(body)
    said = said["outputs"][0]["data"] if "outputs" in said else said["predictions"]
    while isinstance(said, list):
        said = said[-1]
    return float(said)
