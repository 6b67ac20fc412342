from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from trimtab.errors import InvalidInputError, MissingExtraError, ModelCorruptError
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.runtimes.predictor import load_predictor

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")

WEIGHTS = np.array([2.0, -1.0, 0.5])
ROWS = pl.DataFrame(
    {"a": [0.1, 0.2, 0.3, 0.9], "b": [1.0, 2.0, 3.0, 4.0], "c": ["x", "y", "x", "z"], "y": [1, 2, 3, 4]}
)


def linear(columns: int = 2, results: int = 1, kind: int = onnx.TensorProto.FLOAT) -> Any:
    """y = x W for a matrix x of shape [n, 3]."""
    weights = np.tile(WEIGHTS.reshape(3, 1), (1, results)) * np.arange(1, results + 1)
    weights = weights.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", kind, [None, columns])],
        [onnx.helper.make_tensor_value_info("y", kind, [None, results])],
        [onnx.numpy_helper.from_array(weights[:columns], "w")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)


DECLARED = inputs(ROWS, ["a", "b", "c"])


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE])
def test_an_onnx_model_is_packaged_and_served(tmp_path: Path, kind: int) -> None:
    model = Model.onnx(linear(3, kind=kind), DECLARED, target="y", output="exp")
    model.save(tmp_path / "model")
    expected = np.exp(DECLARED.matrix(ROWS) @ WEIGHTS)
    with load_predictor(tmp_path / "model") as predictor:
        request = ROWS.select("a", "b", "c").to_dict(as_series=False)
        np.testing.assert_allclose(predictor.predict(request), expected, rtol=1e-6)
        one = {name: values[:1] for name, values in request.items()}
        np.testing.assert_allclose(predictor.predict(one), expected[:1], rtol=1e-6)
        none = {name: values[:0] for name, values in request.items()}
        assert predictor.predict(none).shape == (0,)


def test_of_two_columns_the_second_is_served() -> None:
    answers = Model.onnx(linear(3, results=2), DECLARED, target="y").predict(ROWS)
    np.testing.assert_allclose(answers, 2 * DECLARED.matrix(ROWS) @ WEIGHTS, rtol=1e-6)


def test_mlflow_opens_an_onnx_model(tmp_path: Path) -> None:
    import mlflow.pyfunc
    import pandas

    model = Model.onnx(linear(3), DECLARED, target="y")
    model.save(tmp_path / "model")
    frame = pandas.DataFrame(ROWS.select("a", "b", "c").to_dict(as_series=False))
    np.testing.assert_array_equal(
        mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(frame), model.predict(ROWS)
    )


def test_a_model_that_does_not_fit_its_inputs_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="its inputs declare 3 columns"):
        Model.onnx(linear(2), DECLARED, target="y")
    with pytest.raises(InvalidInputError, match="5 numbers for each row"):
        Model.onnx(linear(3, results=5), DECLARED, target="y")
    with pytest.raises(InvalidInputError, match="gives y and no 'probabilities'"):
        Model.onnx(linear(3), DECLARED, target="y", result="probabilities")


def test_a_model_whose_answer_is_no_number_is_refused_at_packaging() -> None:
    holed = inputs(ROWS.with_columns(a=pl.Series([None, 0.2, 0.3, None])), ["a", "b", "c"])
    with pytest.raises(InvalidInputError, match="nan"):
        Model.onnx(linear(3), holed, target="y")


def test_bytes_that_are_no_onnx_model_are_refused() -> None:
    with pytest.raises(ModelCorruptError, match="ONNX Runtime cannot read"):
        Model.onnx(b"\x08\x01nonsense", DECLARED, target="y")


def test_a_model_that_reads_its_weights_from_another_file_is_refused(tmp_path: Path) -> None:
    model = linear(3)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    with pytest.raises(ModelCorruptError, match="weights in another file"):
        Model.onnx(model, DECLARED, target="y")


def test_without_the_extra_the_exact_install_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'trimtab\[onnx\]'"):
        Model.onnx(linear(3).SerializeToString(), DECLARED, target="y")
