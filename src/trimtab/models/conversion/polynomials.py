"""PolynomialFeatures as ONNX in double precision, which skl2onnx mixes with single."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.preprocessing import PolynomialFeatures

from trimtab.errors import InvalidInputError


def _factors(model: Any) -> list[list[int]]:
    """For each place in the longest product, which column each output takes; after the last one come ones."""
    powers = np.asarray(model.powers_)
    width = powers.shape[1]
    products = [[int(column) for column in np.repeat(np.arange(width), row)] for row in powers]
    longest = max(1, *map(len, products))
    return [
        [product[place] if place < len(product) else width for product in products]
        for place in range(longest)
    ]


def _convert(scope: Any, operator: Any, container: Any) -> None:
    fresh = scope.get_unique_variable_name

    def then(kind: str, given: list[str], made: str = "", **attributes: Any) -> str:
        made = made or fresh(kind.lower())
        container.add_node(kind, given, [made], name=scope.get_unique_operator_name(kind), **attributes)
        return made

    def places(values: list[int]) -> str:
        name: str = fresh("places")
        container.add_initializer(name, TensorProto.INT64, [len(values)], values)
        return name

    rows = operator.inputs[0].full_name
    missing = then("IsNaN", [then("Gather", [rows, places([0])], axis=1)])
    ones = then("Cast", [then("Or", [missing, then("Not", [missing])])], to=TensorProto.DOUBLE)
    wide = then("Concat", [rows, ones], axis=1)
    product = ""
    for columns in _factors(operator.raw_operator):
        factor = then("Gather", [wide, places(columns)], axis=1)
        product = then("Mul", [product, factor]) if product else factor
    then("Identity", [product], operator.outputs[0].full_name)


def _shapes(operator: Any) -> None:
    given = operator.inputs[0].type
    if not isinstance(given, DoubleTensorType) or len(operator.inputs) != 1:
        raise InvalidInputError("PolynomialFeatures is converted for numbers only.")
    operator.outputs[0].type = DoubleTensorType([given.shape[0], len(operator.raw_operator.powers_)])


CONVERTERS = {PolynomialFeatures: _convert}
SHAPES = {PolynomialFeatures: _shapes}
