"""scikit-learn models converted to ONNX, held to the estimators that they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from trimtab.errors import InvalidInputError
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.runtimes.predictor import load_predictor

pytest.importorskip("skl2onnx", reason="the extra onnx is not installed")

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

RANDOM = np.random.default_rng(3)
COUNT = 800
NUMBERS = ["a", "b", "c", "d"]
ROWS = pl.DataFrame({name: RANDOM.normal(size=COUNT) for name in NUMBERS}).with_columns(
    season=pl.Series(RANDOM.choice(["winter", "spring", "summer"], COUNT)),
    day=pl.Series(RANDOM.integers(0, 7, COUNT)),
    holiday=pl.Series(RANDOM.random(COUNT) < 0.1),
)
TARGET = np.abs(2 * ROWS["a"].to_numpy() + np.sin(ROWS["b"].to_numpy()) + ROWS["day"].to_numpy() / 3)
CLASS = (np.median(TARGET) < TARGET).astype(int)
NUMERIC = ROWS.select(NUMBERS)
SEEN, UNSEEN = slice(0, 500), slice(500, COUNT)

REGRESSORS: list[Callable[[], Any]] = [
    LinearRegression,
    Ridge,
    lambda: make_pipeline(RobustScaler(), Lasso(0.01)),
    lambda: make_pipeline(PolynomialFeatures(3), StandardScaler(), Ridge()),
    PoissonRegressor,
    lambda: DecisionTreeRegressor(max_depth=6, random_state=0),
    lambda: RandomForestRegressor(20, random_state=0),
    lambda: ExtraTreesRegressor(20, random_state=0),
    lambda: GradientBoostingRegressor(n_estimators=40, random_state=0),
    lambda: GradientBoostingRegressor(n_estimators=10, init="zero", random_state=0),
    lambda: HistGradientBoostingRegressor(max_iter=40, random_state=0),
    lambda: HistGradientBoostingRegressor(max_iter=20, loss="poisson", random_state=0),
    lambda: AdaBoostRegressor(n_estimators=5, random_state=0),
    lambda: BaggingRegressor(n_estimators=5, random_state=0),
    lambda: KNeighborsRegressor(3),
    lambda: make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=30, random_state=0)
    ),
]
CLASSIFIERS: list[Callable[[], Any]] = [
    lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    lambda: DecisionTreeClassifier(max_depth=5, random_state=0),
    lambda: RandomForestClassifier(20, random_state=0),
    lambda: ExtraTreesClassifier(20, random_state=0),
    lambda: GradientBoostingClassifier(n_estimators=30, random_state=0),
    lambda: GradientBoostingClassifier(n_estimators=20, loss="exponential", random_state=0),
    lambda: HistGradientBoostingClassifier(max_iter=30, random_state=0),
]


def served(model: Model, rows: pl.DataFrame, folder: Path) -> np.ndarray[Any, Any]:
    """The answers of the packaged model, and that each row alone is answered alike."""
    model.save(folder)
    request = rows.to_dict(as_series=False)
    with load_predictor(folder) as predictor:
        together = predictor.predict(request)
        for place in range(5):
            alone = predictor.predict({name: values[place : place + 1] for name, values in request.items()})
            np.testing.assert_allclose(alone, together[place], rtol=1e-12)
    return together


def far_out(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that no check at packaging has seen, most of them far from training."""
    random = np.random.default_rng(99)
    return rows.with_columns(
        pl.Series(name, random.normal(size=rows.height) * random.choice([1e-3, 1, 30], rows.height))
        for name in NUMBERS
    )


@pytest.mark.parametrize("make", REGRESSORS)
def test_a_regressor_is_served_exactly(make: Callable[[], Any], tmp_path: Path) -> None:
    declared = inputs(NUMERIC)
    estimator = make().fit(declared.matrix(NUMERIC)[SEEN], TARGET[SEEN])
    model = Model.sklearn(estimator, declared, target="y", rows=NUMERIC[UNSEEN])
    for rows in (NUMERIC, far_out(NUMERIC)):
        expected = estimator.predict(declared.matrix(rows))
        np.testing.assert_allclose(
            served(model, rows, tmp_path / str(id(rows))), expected, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("make", CLASSIFIERS)
@pytest.mark.parametrize("answer", ["probability", "label"])
def test_a_classifier_is_served_exactly(make: Callable[[], Any], answer: Any, tmp_path: Path) -> None:
    declared = inputs(NUMERIC)
    estimator = make().fit(declared.matrix(NUMERIC)[SEEN], CLASS[SEEN])
    model = Model.sklearn(estimator, declared, target="y", rows=NUMERIC[UNSEEN], answer=answer)
    for rows in (NUMERIC, far_out(NUMERIC)):
        matrix = declared.matrix(rows)
        expected = (
            estimator.predict_proba(matrix)[:, 1] if answer == "probability" else estimator.predict(matrix)
        )
        np.testing.assert_allclose(
            served(model, rows, tmp_path / str(id(rows))), expected, rtol=1e-9, atol=1e-9
        )


def test_trees_branch_as_scikit_learn_does_at_the_very_thresholds() -> None:
    """scikit-learn rounds a tree's inputs to single precision: rows around each threshold show it."""
    declared = inputs(NUMERIC)
    tree = DecisionTreeRegressor(random_state=0).fit(declared.matrix(NUMERIC), TARGET)
    model = Model.sklearn(tree, declared, target="y")
    thresholds = tree.tree_.threshold[tree.tree_.feature >= 0]
    near = np.concatenate([np.nextafter(thresholds, -np.inf), thresholds, np.nextafter(thresholds, np.inf)])
    rows = pl.DataFrame(dict.fromkeys(NUMBERS, near))
    np.testing.assert_array_equal(model.predict(rows), tree.predict(declared.matrix(rows)))


def pipeline(unknown: str, last: Any) -> Any:
    return make_pipeline(
        make_column_transformer(
            (StandardScaler(), NUMBERS),
            (OneHotEncoder(handle_unknown=unknown), ["season", "day"]),
            remainder="passthrough",
        ),
        last,
    )


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("last", [LogisticRegression(), RandomForestClassifier(10, random_state=0)])
def test_a_pipeline_over_named_columns_is_served_exactly(library: str, last: Any, tmp_path: Path) -> None:
    declared = inputs(ROWS, categories=["day"])
    frame = pd.DataFrame(ROWS.to_dict(as_series=False)) if library == "pandas" else ROWS
    estimator = pipeline("ignore", last).fit(frame[SEEN], CLASS[SEEN])
    model = Model.sklearn(estimator, declared, target="y", rows=ROWS[UNSEEN])
    made = served(model, ROWS, tmp_path / "model")
    np.testing.assert_allclose(made, estimator.predict_proba(frame)[:, 1], rtol=1e-12, atol=1e-12)
    strange = ROWS.with_columns(season=pl.lit("monsoon"), day=pl.lit(12))
    odd = pd.DataFrame(strange.to_dict(as_series=False)) if library == "pandas" else strange
    np.testing.assert_allclose(model.predict(strange), estimator.predict_proba(odd)[:, 1], rtol=1e-12)


def test_a_category_that_the_estimator_refuses_is_refused_at_request_time() -> None:
    estimator = pipeline("error", LogisticRegression()).fit(ROWS, CLASS)
    model = Model.sklearn(estimator, inputs(ROWS, categories=["day"]), target="y")
    assert {column.name for column in model.signature.columns if column.closed} == {"season", "day"}
    with pytest.raises(InvalidInputError, match=r"'season' has 'monsoon' in row 0.*does not know"):
        model.predict(ROWS.with_columns(season=pl.lit("monsoon")))


def test_missing_values_go_to_the_pipelines_imputer() -> None:
    holed = NUMERIC.with_columns(a=pl.when(pl.int_range(COUNT) % 9 == 0).then(None).otherwise("a"))
    declared = inputs(holed)
    matrix = declared.matrix(holed)
    estimator = make_pipeline(SimpleImputer(), StandardScaler(), Ridge()).fit(matrix, TARGET)
    model = Model.sklearn(estimator, declared, target="y", rows=holed)
    np.testing.assert_allclose(model.predict(holed), estimator.predict(matrix), rtol=1e-12)
    for trees in (HistGradientBoostingRegressor(max_iter=20), RandomForestRegressor(10, random_state=0)):
        trees.fit(matrix, TARGET)
        model = Model.sklearn(trees, declared, target="y", rows=holed)
        np.testing.assert_allclose(model.predict(holed), trees.predict(matrix), rtol=1e-12)


def test_inputs_that_may_be_missing_need_an_estimator_that_takes_it() -> None:
    declared = inputs(NUMERIC, nullable=["a"])
    estimator = Ridge().fit(declared.matrix(NUMERIC), TARGET)
    with pytest.raises(InvalidInputError, match="'a' may be missing, and the Ridge refuses"):
        Model.sklearn(estimator, declared, target="y")


def test_a_model_that_does_not_convert_exactly_is_refused_with_the_difference() -> None:
    declared = inputs(NUMERIC)
    estimator = SVR().fit(declared.matrix(NUMERIC), TARGET)
    with pytest.raises(InvalidInputError, match=r"not converted to ONNX.*1e-09 is allowed|alone") as caught:
        Model.sklearn(estimator, declared, target="y")
    assert "confined_models" in caught.value.hint
    allowed = Model.sklearn(estimator, declared, target="y", tolerance=1e-4)
    assert allowed.specification.options["precision"] == "single"
    np.testing.assert_allclose(
        allowed.predict(NUMERIC), estimator.predict(declared.matrix(NUMERIC)), rtol=1e-4, atol=1e-4
    )


def test_a_conversion_that_is_wrong_is_found_out() -> None:
    """skl2onnx 1.20 converts this one without complaint, to something else."""
    declared = inputs(NUMERIC)
    estimator = LinearDiscriminantAnalysis().fit(declared.matrix(NUMERIC), CLASS)
    with pytest.raises(InvalidInputError, match=r"a relative difference of 0\.\d+, and 1e-09 is allowed"):
        Model.sklearn(estimator, declared, target="y", rows=NUMERIC)


def test_the_specification_says_what_was_converted_and_how_exactly(tmp_path: Path) -> None:
    declared = inputs(NUMERIC)
    estimator = Ridge().fit(declared.matrix(NUMERIC), TARGET)
    model = Model.sklearn(estimator, declared, target="y", rows=NUMERIC)
    said = model.specification
    assert (said.runtime, said.tolerance) == ("onnx", 1e-9)
    assert said.options["converted_from"].startswith("Ridge (scikit-learn ")
    assert int(said.options["checked_rows"]) > COUNT
    assert float(said.options["largest_difference"]) <= 1e-9
    assert Model.sklearn(estimator, declared, target="y", rows=NUMERIC).content == model.content


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (Ridge(), "is not fitted"),
        (object(), "has no predict"),
        (Ridge().fit(np.zeros((3, 2)), [1, 2, 3]), "was fitted on 2 columns"),
        (Ridge().fit(np.zeros((3, 4)), np.zeros((3, 2))), "numbers for 5 rows"),
        (LogisticRegression().fit(np.eye(4), [0, 1, 2, 2]), "3 classes"),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_is_converted(estimator: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Model.sklearn(estimator, inputs(NUMERIC), target="y")


def test_the_class_of_several_is_a_number_that_can_be_served() -> None:
    declared = inputs(NUMERIC)
    several = (TARGET // 1).astype(int).clip(0, 3)
    estimator = LogisticRegression().fit(declared.matrix(NUMERIC), several)
    model = Model.sklearn(estimator, declared, target="y", answer="label")
    np.testing.assert_array_equal(model.predict(NUMERIC), estimator.predict(declared.matrix(NUMERIC)))
