"""Metrics: each defined once, and used in training, at gates, by monitors, in rollouts and in reports.

`labels` and `predictions` are arrays of shape (rows,). A metric's value is one number; where a metric is a
monotone function of a mean over rows, its `row_loss` gives that row by row (smaller is better), which is what
paired tests work on.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from trimtab.errors import InvalidInputError, NotFoundError, unknown

Values = NDArray[np.float64]
MetricFunction = Callable[[Values, Values], float]
RowLoss = Callable[[Values, Values], Values]

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
"""Predicted probabilities are kept this far from 0 and 1, as in scikit-learn: a log loss stays finite."""


class Metric(msgspec.Struct, frozen=True):
    """A metric: its reference, its direction, and how it is computed."""

    name: str
    higher_is_better: bool
    compute: MetricFunction
    loss: RowLoss | None = None

    def value(self, labels: ArrayLike, predictions: ArrayLike) -> float:
        """The metric over these rows; NaN for no rows. Raises InvalidInputError for unequal lengths or a
        result that is not a number."""
        y, p = _pair(labels, predictions)
        if y.size == 0:
            return float("nan")
        result = self.compute(y, p)
        try:
            return float(result)
        except (TypeError, ValueError):
            raise InvalidInputError(
                f"The metric '{self.name}' returned {result!r}, not a number.", hint="Return one float."
            ) from None

    def row_loss(self, labels: ArrayLike, predictions: ArrayLike) -> Values | None:
        """The loss of each row, smaller is better; None for a metric that is not a mean over rows."""
        return None if self.loss is None else self.loss(*_pair(labels, predictions))


def metric(reference: str | MetricFunction) -> Metric:
    """The metric of a built-in name, of "module:function", or of a function of (labels, predictions).

    A user's function says by its attribute `higher_is_better` which way is better. Without it, one whose name
    ends in "score" is better when higher, as in scikit-learn, and any other when lower. Loading
    "module:function" runs the user's code, so call it only where that may run. Raises NotFoundError.
    """
    if callable(reference):
        name = f"{reference.__module__}:{getattr(reference, '__qualname__', reference)}"
        higher = getattr(reference, "higher_is_better", name.endswith("score"))
        return Metric(name, bool(higher), reference)
    if reference in _BUILT_IN:
        return _BUILT_IN[reference]
    if ":" not in reference:
        raise unknown("metric", reference, _BUILT_IN)
    return metric(_load(reference))


def reference_of(given: str | MetricFunction) -> str:
    """How a metric is written down: a name stays, a function becomes "module:function".

    Raises InvalidInputError for a function that another process could not find by its name.
    """
    if isinstance(given, str):
        if given.strip():
            return given
    elif callable(given):
        module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", "<")
        if module and module != "__main__" and all(part.isidentifier() for part in name.split(".")):
            return f"{module}:{name}"
        raise InvalidInputError(
            f"The metric {given!r} has no name by which another process could find it.",
            hint="Define it with def at the top level of a module of the project.",
        )
    raise InvalidInputError(
        f"{given!r} is no metric.", hint='Give a name such as "rmse", "module:function", or a function.'
    )


def is_built_in(reference: str) -> bool:
    """Whether a reference names a metric that needs no user code."""
    return reference in _BUILT_IN


def names() -> list[str]:
    """The names of the built-in metrics."""
    return sorted(_BUILT_IN)


def _load(reference: str) -> MetricFunction:
    module, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise NotFoundError(
            f"The metric '{reference}' cannot be loaded: {error}.", hint="Write it as 'module:function'."
        ) from error
    return cast(MetricFunction, found)


def _pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[Values, Values]:
    y = np.asarray(labels, dtype=np.float64)
    p = np.asarray(predictions, dtype=np.float64)
    if y.shape != p.shape or y.ndim != 1:
        raise InvalidInputError(f"There are labels of shape {y.shape} and predictions of shape {p.shape}.")
    return y, p


def _log1p(values: Values) -> Values:
    return np.asarray(np.log1p(np.maximum(values, 0.0)))


def _squared(y: Values, p: Values) -> Values:
    return np.square(p - y)


def _absolute(y: Values, p: Values) -> Values:
    return np.abs(p - y)


def _squared_log(y: Values, p: Values) -> Values:
    return np.square(_log1p(p) - _log1p(y))


def _relative(y: Values, p: Values) -> Values:
    return np.abs(p - y) / np.maximum(np.abs(y), np.finfo(np.float64).eps)


def _log_loss(y: Values, p: Values) -> Values:
    p = np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(-(y * np.log(p) + (1 - y) * np.log1p(-p)))


def _mistake(y: Values, p: Values) -> Values:
    return np.asarray((p >= 0.5) != (y >= 0.5), dtype=np.float64)


def _mean(loss: RowLoss) -> MetricFunction:
    return lambda y, p: float(np.mean(loss(y, p)))


def _root_mean(loss: RowLoss) -> MetricFunction:
    return lambda y, p: float(np.sqrt(np.mean(loss(y, p))))


def _bias(y: Values, p: Values) -> float:
    return float(np.mean(p - y))


def _log_bias(y: Values, p: Values) -> float:
    return float(np.mean(_log1p(p) - _log1p(y)))


def _r2(y: Values, p: Values) -> float:
    spread = float(np.sum(np.square(y - y.mean())))
    return float("nan") if spread == 0 else 1 - float(np.sum(np.square(p - y))) / spread


def _accuracy(y: Values, p: Values) -> float:
    return 1 - float(np.mean(_mistake(y, p)))


def _f1(y: Values, p: Values) -> float:
    said, true = p >= 0.5, y >= 0.5
    total = int(said.sum() + true.sum())
    return 0.0 if total == 0 else 2 * int((said & true).sum()) / total


def _auc(y: Values, p: Values) -> float:
    """The Mann-Whitney form of the area under the ROC curve; ties count one half; NaN for one class."""
    positive = y >= 0.5
    count, others = int(positive.sum()), int((~positive).sum())
    if count == 0 or others == 0:
        return float("nan")
    _, inverse, ties = np.unique(p, return_inverse=True, return_counts=True)
    last = np.cumsum(ties)
    ranks = (last - (ties - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


_BUILT_IN = {
    each.name: each
    for each in (
        Metric("mse", False, _mean(_squared), _squared),
        Metric("rmse", False, _root_mean(_squared), _squared),
        Metric("mae", False, _mean(_absolute), _absolute),
        Metric("mape", False, _mean(_relative), _relative),
        Metric("rmsle", False, _root_mean(_squared_log), _squared_log),
        Metric("r2", True, _r2, _squared),
        Metric("bias", False, _bias),
        Metric("log_bias", False, _log_bias),
        Metric("log_loss", False, _mean(_log_loss), _log_loss),
        Metric("accuracy", True, _accuracy, _mistake),
        Metric("f1", True, _f1),
        Metric("auc", True, _auc),
    )
}
