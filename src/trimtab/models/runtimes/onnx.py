"""ONNX models through ONNX Runtime (the extra `onnx`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, ModelCorruptError, missing_extra

_TYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(double)": np.float64}


_EXTERNAL = b"\n\x08location"
"""How a tensor says in which file its data is: the key of an entry of its field `external_data`."""


class Onnx:
    """One inference session. Its `run` may be called from several threads at once."""

    def __init__(self, content: bytes, *, width: int, threads: int, result: str) -> None:
        self._session = _session(content, threads)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _TYPES:
            raise InvalidInputError(
                f"The ONNX model takes {', '.join(f'{i.name}: {i.type}' for i in inputs)}, and one matrix of "
                "float or double is supported.",
                hint="Export it with one input of shape [None, columns].",
            )
        columns = inputs[0].shape[1] if len(inputs[0].shape) == 2 else None
        if len(inputs[0].shape) != 2 or (isinstance(columns, int) and columns != width):
            raise InvalidInputError(
                f"The ONNX model takes the shape {inputs[0].shape} and its inputs declare {width} columns."
            )
        outputs = [output.name for output in self._session.get_outputs()]
        if result and result not in outputs:
            raise InvalidInputError(f"The ONNX model gives {', '.join(outputs)} and no '{result}'.")
        self._input = inputs[0].name
        self._type = _TYPES[inputs[0].type]
        self._result = [result or outputs[0]]

    def row(self, values: Sequence[float]) -> float:
        """The raw answer to one row of numbers."""
        return float(self._run(np.array([values], dtype=self._type))[0])

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The raw answers, one for each row."""
        if not rows.shape[0]:
            return np.empty(0, dtype=np.float64)
        return self._run(np.ascontiguousarray(rows, dtype=self._type))

    def _run(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        made = np.asarray(self._session.run(self._result, {self._input: rows})[0])
        if made.dtype.kind not in "fiub" or made.shape[0] != rows.shape[0]:
            raise InvalidInputError(
                f"The ONNX model's result '{self._result[0]}' is of type {made.dtype} and shape "
                f"{made.shape}, and one number for each row is needed.",
                hint='Name another with result="...", and export classifiers with zipmap=False.',
            )
        if made.ndim == 2 and made.shape[1] == 2:
            made = made[:, 1]
        made = made.reshape(made.shape[0], -1)
        if made.shape[1] != 1:
            raise InvalidInputError(
                f"The ONNX model gives {made.shape[1]} numbers for each row, and one is supported."
            )
        return made[:, 0].astype(np.float64)


def load(content: bytes, *, width: int, threads: int, options: Mapping[str, str]) -> Onnx:
    """Load an ONNX model's bytes (the entry point of this runtime).

    The option `result` names the output to serve, the first if not given; of an output with two columns, as
    binary classifiers give, the second is served.
    """
    return Onnx(content, width=width, threads=threads, result=options.get("result", ""))


def _session(content: bytes, threads: int) -> Any:  # onnxruntime has no types
    try:
        import onnxruntime  # optional, and 100 ms to import: needed only where an ONNX model is served
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    if _EXTERNAL in content:
        raise ModelCorruptError(
            "The ONNX model keeps weights in another file, which is not supported.",
            hint="Save it with save_as_external_data=False.",
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # its errors are raised as well
    try:
        return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no narrower class
        raise ModelCorruptError(f"ONNX Runtime cannot read the model file: {error}.") from error
