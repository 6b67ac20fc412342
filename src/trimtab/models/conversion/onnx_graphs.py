"""Putting ONNX graphs together: from one matrix of numbers to the columns that an estimator takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trimtab.models.signature import Column, Signature

ROWS = "trimtab_rows"
"""The name of the one input: a matrix of doubles, as a signature encodes rows."""

_PREFIX = "trimtab_"
UNKNOWN_TEXT = "\x00unknown"
"""Stands for a text that is not among a column's categories, and for a missing one."""


def unknown_number(column: Column) -> int:
    """Stands for a whole number that is not among a column's categories, and for a missing one."""
    return min(-1, min(int(category) for category in column.categories) - 1)


class Prelude:
    """Nodes that make an estimator's inputs of the matrix."""

    def __init__(self, signature: Signature, *, single: bool) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._single = single
        self._signature = signature

    def whole(self, name: str) -> None:
        """All columns as one matrix called `name`."""
        kind = TensorProto.FLOAT if self._single else TensorProto.DOUBLE
        self._node("Cast", [ROWS], name, to=kind)

    def columns(self, names: Sequence[str]) -> None:
        """Each column by itself, of shape (rows, 1), called by these names."""
        for place, (column, name) in enumerate(zip(self._signature.columns, names, strict=True)):
            which = self._constant(f"{_PREFIX}place_{place}", np.array([place]))
            if not column.categories:
                number = f"{_PREFIX}number_{place}" if self._single else name
                self._node("Gather", [ROWS, which], number, axis=1)
                if self._single:
                    self._node("Cast", [number], name, to=TensorProto.FLOAT)
                continue
            code = f"{_PREFIX}code_{place}"
            self._node("Gather", [ROWS, which], code, axis=1)
            self._node("IsNaN", [code], f"{code}_missing")
            last = self._constant(f"{code}_last", np.array([float(len(column.categories))]))
            self._node("Where", [f"{code}_missing", last, code], f"{code}_known")
            self._node("Cast", [f"{code}_known"], f"{code}_index", to=TensorProto.INT64)
            table = self._constant(f"{code}_table", _table(column))
            self._node("Gather", [table, f"{code}_index"], name, axis=0)

    def _node(self, kind: str, given: list[str], made: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, given, [made], **attributes))

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(values, name))
        return name


def _table(column: Column) -> NDArray[Any]:
    if isinstance(column.categories[0], str):
        return np.array([*column.categories, UNKNOWN_TEXT], dtype=object)
    return np.array([*column.categories, unknown_number(column)], dtype=np.int64)


def assembled(prelude: Prelude, model: ModelProto, result: str, width: int, *, ml_version: int) -> bytes:
    """The bytes of a model from the matrix to the output `result` of `model`, and nothing beside."""
    graph = model.graph
    nodes = _needed([*prelude.nodes, *graph.node], result)
    read = {name for node in nodes for name in node.input}
    output = next(each for each in graph.output if each.name == result)
    made = helper.make_graph(
        nodes,
        "trimtab",
        [helper.make_tensor_value_info(ROWS, TensorProto.DOUBLE, [None, width])],
        [output],
        [each for each in (*prelude.initializers, *graph.initializer) if each.name in read],
    )
    versions = {each.domain: each.version for each in model.opset_import}
    versions[""] = max(versions.get("", 0), 18)
    if any(node.domain == "ai.onnx.ml" for node in nodes):
        new = any(node.op_type == "TreeEnsemble" for node in nodes)
        versions["ai.onnx.ml"] = ml_version if new else max(versions.get("ai.onnx.ml", 1), 1)
    else:
        versions.pop("ai.onnx.ml", None)
    opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())]
    whole = helper.make_model(made, opset_imports=opsets, ir_version=min(model.ir_version or 9, 10))
    onnx.checker.check_model(whole)
    return bytes(whole.SerializeToString(deterministic=True))


def _needed(nodes: list[NodeProto], result: str) -> list[NodeProto]:
    """The nodes, in their order, that `result` depends on."""
    maker = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    wanted, waiting = set[int](), [result]
    while waiting:
        place = maker.get(waiting.pop())
        if place is not None and place not in wanted:
            wanted.add(place)
            waiting.extend(nodes[place].input)
            for attribute in nodes[place].attribute:  # a loop's body reads names from outside of it
                waiting.extend(name for node in attribute.g.node for name in node.input)
    return [node for place, node in enumerate(nodes) if place in wanted]
