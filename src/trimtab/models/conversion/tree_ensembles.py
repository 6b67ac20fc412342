"""scikit-learn's tree ensembles as ONNX in double precision.

skl2onnx writes the older tree operators, which hold thresholds and leaves in single precision, so that a row
near a threshold takes another branch. `TreeEnsemble` (ai.onnx.ml 5) holds them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn.base import is_classifier
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from trimtab.errors import InvalidInputError

ML_DOMAIN, ML_VERSION = "ai.onnx.ml", 5
_LESS_OR_EQUAL, _SUM = 0, 1

Link = str
"""What makes an answer of the sum: an ONNX operator's name, or "" for the sum itself."""


class Tree:
    """One tree by node: `feature` is -1 in leaves, whose number is `value`; `missing_left` says which way a
    missing value goes."""

    def __init__(
        self,
        feature: NDArray[np.int64],
        threshold: NDArray[np.float64],
        left: NDArray[np.int64],
        right: NDArray[np.int64],
        missing_left: NDArray[np.bool_],
        value: NDArray[np.float64],
    ) -> None:
        self.feature = feature
        self.threshold = threshold
        self.left = left
        self.right = right
        self.missing_left = missing_left
        self.value = value


class Ensemble:
    """(start + the sum of the trees) / divisor, and then `link`. `single` says that the trees look at columns
    in single precision."""

    def __init__(
        self, trees: list[Tree], *, start: float = 0.0, divisor: float = 1.0, link: Link = "", single: bool
    ) -> None:
        self.trees = trees
        self.start = start
        self.divisor = divisor
        self.link = link
        self.single = single


def ensemble_of(model: Any) -> Ensemble:
    """The trees of a fitted estimator: of a regressor its answer, of a classifier of two classes the
    probability of the second. Raises InvalidInputError."""
    if is_classifier(model) and len(model.classes_) != 2:
        raise InvalidInputError(f"{type(model).__name__} has {len(model.classes_)} classes, and not two.")
    if getattr(model, "n_outputs_", 1) != 1:
        raise InvalidInputError(f"{type(model).__name__} has {model.n_outputs_} targets.")
    if isinstance(model, HistGradientBoostingRegressor | HistGradientBoostingClassifier):
        return _histogram(model)
    if isinstance(model, GradientBoostingRegressor | GradientBoostingClassifier):
        return _boosted(model)
    if hasattr(model, "estimators_"):
        trees = [_tree(each) for each in model.estimators_]
        return Ensemble(trees, divisor=float(len(trees)), single=True)
    return Ensemble([_tree(model)], single=True)


def _tree(model: Any, scale: float = 1.0) -> Tree:
    tree = model.tree_
    nodes = tree.__getstate__()["nodes"]
    values = tree.value[:, 0, :]
    value = values[:, 1] / values.sum(axis=1) if is_classifier(model) else values[:, 0] * scale
    return Tree(
        np.where(nodes["left_child"] < 0, -1, nodes["feature"]).astype(np.int64),
        nodes["threshold"].astype(np.float64),
        nodes["left_child"].astype(np.int64),
        nodes["right_child"].astype(np.int64),
        nodes["missing_go_to_left"].astype(bool),
        np.asarray(value, dtype=np.float64),
    )


def _boosted(model: Any) -> Ensemble:
    trees = [_tree(each, float(model.learning_rate)) for each in model.estimators_[:, 0]]
    start = 0.0
    first = model.init_
    if isinstance(first, DummyRegressor):
        start = float(np.ravel(first.constant_)[0])
    elif isinstance(first, DummyClassifier) or first == "zero":
        # How a prior becomes a raw score differs between losses; the difference to the trees' sum tells it.
        row = np.zeros((1, model.n_features_in_), dtype=np.float32)
        start = float(model._raw_predict_init(row)[0, 0])
    else:
        raise InvalidInputError(f"{type(model).__name__} starts from a {type(first).__name__}.")
    link = ""
    if is_classifier(model):
        link = "Sigmoid"
        if model.loss == "exponential":  # its probability is the logistic function of twice the sum
            return Ensemble(trees, start=start, divisor=0.5, link=link, single=True)
    return Ensemble(trees, start=start, link=link, single=True)


def _histogram(model: Any) -> Ensemble:
    if getattr(model, "_preprocessor", None) is not None or model.is_categorical_ is not None:
        raise InvalidInputError(f"{type(model).__name__} encodes category columns by itself.")
    links = {"LogLink": "Exp", "IdentityLink": "", "LogitLink": "Sigmoid", "HalfLogitLink": "Sigmoid"}
    link = links.get(type(model._loss.link).__name__)
    if link is None:
        raise InvalidInputError(f"{type(model).__name__} has the loss {type(model._loss).__name__}.")
    start = float(np.ravel(model._baseline_prediction)[0])
    divisor = 0.5 if type(model._loss.link).__name__ == "HalfLogitLink" else 1.0
    trees = []
    for (predictor,) in model._predictors:
        nodes = predictor.nodes
        if nodes["is_categorical"].any():
            raise InvalidInputError(f"{type(model).__name__} splits by categories.")
        trees.append(
            Tree(
                np.where(nodes["is_leaf"], -1, nodes["feature_idx"]).astype(np.int64),
                nodes["num_threshold"].astype(np.float64),
                nodes["left"].astype(np.int64),
                nodes["right"].astype(np.int64),
                nodes["missing_go_to_left"].astype(bool),
                nodes["value"].astype(np.float64),
            )
        )
    return Ensemble(trees, start=start, divisor=divisor, link=link, single=False)


class _Attributes:
    """Trees as TreeEnsemble has them: inner nodes and leaves are numbered separately."""

    def __init__(self, trees: list[Tree]) -> None:
        self.roots: list[int] = []
        self.features: list[int] = []
        self.splits: list[float] = []
        self.missing: list[int] = []
        self.branches: dict[str, list[int]] = {"true": [], "false": []}
        self.is_leaf: dict[str, list[int]] = {"true": [], "false": []}
        self.weights: list[float] = []
        for tree in trees:
            self._add(tree)

    def _add(self, tree: Tree) -> None:
        self.roots.append(len(self.features))
        if tree.feature[0] < 0:  # a tree of one leaf; a root has to ask something
            self._node(0, 0.0, missing=True)
            for side in ("true", "false"):
                self._leaf(side, float(tree.value[0]))
            return
        inner = np.flatnonzero(tree.feature >= 0)
        place = {int(node): len(self.features) + number for number, node in enumerate(inner)}
        for node in inner:
            self._node(int(tree.feature[node]), float(tree.threshold[node]), bool(tree.missing_left[node]))
            for side, below in (("true", int(tree.left[node])), ("false", int(tree.right[node]))):
                if tree.feature[below] < 0:
                    self._leaf(side, float(tree.value[below]))
                else:
                    self.branches[side].append(place[below])
                    self.is_leaf[side].append(0)

    def _node(self, feature: int, split: float, missing: bool) -> None:
        self.features.append(feature)
        self.splits.append(split)
        self.missing.append(int(missing))

    def _leaf(self, side: str, weight: float) -> None:
        self.branches[side].append(len(self.weights))
        self.is_leaf[side].append(1)
        self.weights.append(weight)

    def node_attributes(self) -> Iterator[tuple[str, Any]]:
        count = len(self.features)
        yield "n_targets", 1
        yield "aggregate_function", _SUM
        yield "post_transform", 0
        yield "tree_roots", self.roots
        yield "nodes_featureids", self.features
        yield "nodes_modes", numpy_helper.from_array(np.full(count, _LESS_OR_EQUAL, np.uint8), "modes")
        yield "nodes_splits", numpy_helper.from_array(np.array(self.splits), "splits")
        yield "nodes_truenodeids", self.branches["true"]
        yield "nodes_falsenodeids", self.branches["false"]
        yield "nodes_trueleafs", self.is_leaf["true"]
        yield "nodes_falseleafs", self.is_leaf["false"]
        yield "nodes_missing_value_tracks_true", self.missing
        yield "leaf_targetids", [0] * len(self.weights)
        yield "leaf_weights", numpy_helper.from_array(np.array(self.weights), "weights")


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """What skl2onnx calls for an estimator of trees."""
    model = operator.raw_operator
    ensemble = ensemble_of(model)
    fresh = scope.get_unique_variable_name

    def then(kind: str, *given: str, **attributes: Any) -> str:
        made: str = fresh(kind.lower())
        container.add_node(kind, list(given), [made], name=scope.get_unique_operator_name(kind), **attributes)
        return made

    def constant(value: float) -> str:
        name: str = fresh("constant")
        container.add_initializer(name, TensorProto.DOUBLE, [1], [value])
        return name

    rows = operator.inputs[0].full_name
    if ensemble.single:  # scikit-learn rounds what these trees look at
        rows = then("Cast", rows, to=TensorProto.FLOAT)
    rows = then("Cast", rows, to=TensorProto.DOUBLE)
    summed = fresh("sum")
    container.add_node(
        "TreeEnsemble",
        [rows],
        [summed],
        op_domain=ML_DOMAIN,
        op_version=1,  # what skl2onnx knows of; the whole model is given ML_VERSION at the end
        name=scope.get_unique_operator_name("TreeEnsemble"),
        **dict(_Attributes(ensemble.trees).node_attributes()),
    )
    if ensemble.start:
        summed = then("Add", summed, constant(ensemble.start))
    if ensemble.divisor != 1.0:
        summed = then("Div", summed, constant(ensemble.divisor))
    if ensemble.link:
        summed = then(ensemble.link, summed)
    if not is_classifier(model):
        container.add_node("Identity", [summed], [operator.outputs[0].full_name])
        return
    label, probabilities = (output.full_name for output in operator.outputs)
    other = then("Sub", constant(1.0), summed)
    container.add_node("Concat", [other, summed], [probabilities], axis=1)
    best = then("ArgMax", probabilities, axis=1, keepdims=0)
    classes = fresh("classes")
    if np.asarray(model.classes_).dtype.kind not in "iub":
        raise InvalidInputError(f"{type(model).__name__} has classes that are not whole numbers.")
    container.add_initializer(classes, TensorProto.INT64, [2], [int(each) for each in model.classes_])
    container.add_node("Gather", [classes, best], [label], axis=0)


def _shapes(operator: Any) -> None:
    """Tells skl2onnx what comes out."""
    rows = operator.inputs[0].type.shape[0]
    if not isinstance(operator.inputs[0].type, DoubleTensorType | FloatTensorType | Int64TensorType):
        raise InvalidInputError(f"{type(operator.raw_operator).__name__} is given what is no number.")
    if is_classifier(operator.raw_operator):
        operator.outputs[0].type = Int64TensorType([rows])
        operator.outputs[1].type = DoubleTensorType([rows, 2])
    else:
        operator.outputs[0].type = DoubleTensorType([rows, 1])


_KINDS = (
    *(DecisionTreeRegressor, DecisionTreeClassifier, ExtraTreeRegressor, ExtraTreeClassifier),
    *(RandomForestRegressor, RandomForestClassifier, ExtraTreesRegressor, ExtraTreesClassifier),
    *(GradientBoostingRegressor, GradientBoostingClassifier),
    *(HistGradientBoostingRegressor, HistGradientBoostingClassifier),
)
CONVERTERS: dict[type, Callable[[Any, Any, Any], None]] = dict.fromkeys(_KINDS, _convert)
SHAPES: dict[type, Callable[[Any], None]] = dict.fromkeys(_KINDS, _shapes)
