"""SimpleImputer as ONNX in double precision, which the operator that skl2onnx writes does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.impute import SimpleImputer

from trimtab.errors import InvalidInputError


def _convert(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    rows = operator.inputs[0].full_name
    missing, fill = scope.get_unique_variable_name("missing"), scope.get_unique_variable_name("fill")
    values = np.asarray(model.statistics_, dtype=np.float64)
    container.add_initializer(fill, TensorProto.DOUBLE, [1, len(values)], values.tolist())
    container.add_node("IsNaN", [rows], [missing], name=scope.get_unique_operator_name("IsNaN"))
    container.add_node(
        "Where",
        [missing, fill, rows],
        [operator.outputs[0].full_name],
        name=scope.get_unique_operator_name("Where"),
    )


def _shapes(operator: Any) -> None:
    model = operator.raw_operator
    given = operator.inputs[0].type
    plain = model.missing_values is np.nan or model.missing_values != model.missing_values
    if (
        not isinstance(given, DoubleTensorType)
        or len(operator.inputs) != 1
        or not plain
        or model.add_indicator
    ):
        raise InvalidInputError("SimpleImputer is converted for numbers only, without an indicator.")
    if np.isnan(np.asarray(model.statistics_, dtype=np.float64)).any():
        raise InvalidInputError("SimpleImputer has a column without any value, and drops it.")
    operator.outputs[0].type = DoubleTensorType([given.shape[0], len(model.statistics_)])


CONVERTERS = {SimpleImputer: _convert}
SHAPES = {SimpleImputer: _shapes}
