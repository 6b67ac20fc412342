"""The built-in metrics, against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as oracle

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.statistics.metrics import metric

numbers = st.floats(0.1, 1e6)
probabilities = st.floats(0, 1)


def pairs(values: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    return st.integers(2, 40).flatmap(lambda rows: arrays.arrays(np.float64, (2, rows), elements=values))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", oracle.mean_squared_error),
        ("rmse", oracle.root_mean_squared_error),
        ("mae", oracle.mean_absolute_error),
        ("mape", oracle.mean_absolute_percentage_error),
        ("rmsle", oracle.root_mean_squared_log_error),
    ],
)
@given(pair=pairs(numbers))
def test_errors_agree_with_scikit_learn(name: str, expected: Callable[..., float], pair: np.ndarray) -> None:
    labels, predictions = pair
    assert metric(name).value(labels, predictions) == pytest.approx(expected(labels, predictions), rel=1e-9)


@given(pair=pairs(numbers))
def test_r2_agrees_with_scikit_learn(pair: np.ndarray) -> None:
    labels, predictions = pair
    if np.ptp(labels) > 1e-3:
        expected = oracle.r2_score(labels, predictions)
        assert metric("r2").value(labels, predictions) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auc", oracle.roc_auc_score),
        ("log_loss", lambda y, p: oracle.log_loss(y, p, labels=[0, 1])),
        ("accuracy", lambda y, p: oracle.accuracy_score(y, p >= 0.5)),
        ("f1", lambda y, p: oracle.f1_score(y, p >= 0.5, zero_division=0)),
    ],
)
@given(scores=pairs(probabilities))
def test_classification_agrees_with_scikit_learn(
    name: str, expected: Callable[..., float], scores: np.ndarray
) -> None:
    labels = np.round(scores[0])
    labels[:2] = (0.0, 1.0)
    assert metric(name).value(labels, scores[1]) == pytest.approx(
        expected(labels, scores[1]), rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("name", ["mse", "mae", "mape", "log_loss"])
@given(scores=pairs(st.floats(0.01, 0.99)))
def test_a_mean_metric_is_the_mean_of_its_row_losses(name: str, scores: np.ndarray) -> None:
    losses = metric(name).row_loss(*scores)
    assert losses is not None
    assert losses.mean() == pytest.approx(metric(name).value(*scores))


def test_a_function_is_a_metric_by_its_reference() -> None:
    found = metric("numpy.testing:assert_allclose")
    assert found.name == "numpy.testing:assert_allclose" or found.name.endswith(":assert_allclose")
    assert metric(worst_miss).value([1.0, 2.0], [1.0, 5.0]) == 3.0
    assert metric(worst_miss).row_loss([1.0], [2.0]) is None


def worst_miss(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.max(np.abs(labels - predictions)))


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'rmsle'"):
        metric("rmsl")
    with pytest.raises(NotFoundError, match="cannot be loaded"):
        metric("no.such.module:function")


def test_unequal_lengths_are_refused_and_no_rows_have_no_value() -> None:
    with pytest.raises(InvalidInputError, match="shape"):
        metric("rmse").value([1.0], [1.0, 2.0])
    assert np.isnan(metric("rmse").value([], []))


def test_a_metric_that_returns_no_number_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not a number"):
        metric(lambda labels, predictions: "good").value([1.0], [1.0])  # type: ignore[arg-type,return-value]


def test_a_function_of_scikit_learn_keeps_its_direction() -> None:
    assert metric("sklearn.metrics:roc_auc_score").higher_is_better
    assert not metric("sklearn.metrics:max_error").higher_is_better
    assert metric(oracle.average_precision_score).value([0, 1], [0.1, 0.9]) == 1.0
    assert metric(oracle.average_precision_score).higher_is_better
