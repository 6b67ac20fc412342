from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.house.repository import run_python

from trimtab.errors import InvalidInputError, ModelCorruptError
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.runtimes.predictor import load_predictor

xgboost = pytest.importorskip("xgboost", reason="the extra xgboost is not installed")

RANDOM = np.random.default_rng(7)
ROWS = pl.DataFrame({name: RANDOM.normal(size=600) for name in "abcd"}).with_columns(
    a=pl.when(pl.int_range(600) % 17 == 0).then(None).otherwise("a"),
    season=pl.Series(RANDOM.choice(["winter", "spring", "summer"], 600)),
)
DECLARED = inputs(ROWS)
MATRIX = DECLARED.matrix(ROWS)
TARGET = ROWS["b"].to_numpy() * 2 + np.sin(ROWS["c"].to_numpy()) + MATRIX[:, 4]


def regressor(**options: Any) -> Any:
    return xgboost.XGBRegressor(n_estimators=30, max_depth=4, n_jobs=1, **options)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return regressor().fit(MATRIX, TARGET)


def test_it_answers_what_xgboost_answers_to_the_last_bit(fitted: Any, tmp_path: Path) -> None:
    Model.xgboost(fitted, DECLARED, target="y").save(tmp_path / "model")
    expected = fitted.predict(MATRIX).astype(np.float64)
    request = ROWS.to_dict(as_series=False)
    with load_predictor(tmp_path / "model") as predictor:
        np.testing.assert_array_equal(predictor.predict(request), expected)
        for place in range(20):
            one = {name: values[place : place + 1] for name, values in request.items()}
            assert predictor.predict(one)[0] == expected[place]


@pytest.mark.parametrize("kind", ["ubj", "json"])
def test_the_bytes_of_a_native_file_are_a_model(fitted: Any, kind: str) -> None:
    content = bytes(fitted.get_booster().save_raw(kind))
    model = Model.xgboost(content, DECLARED, target="y")
    assert model.specification.file == f"model.{kind}"
    np.testing.assert_array_equal(model.predict(ROWS), fitted.predict(MATRIX).astype(np.float64))


def test_categories_split_as_in_training() -> None:
    data = xgboost.DMatrix(
        MATRIX,
        TARGET,
        feature_names=DECLARED.names,
        feature_types=["c" if name in DECLARED.categorical else "q" for name in DECLARED.names],
        enable_categorical=True,
    )
    booster = xgboost.train({"max_depth": 4, "nthread": 1, "max_cat_to_onehot": 1}, data, 20)
    model = Model.xgboost(booster, DECLARED, target="y")
    np.testing.assert_array_equal(model.predict(ROWS), booster.predict(data).astype(np.float64))


def test_a_binary_classifier_gives_the_probability_of_its_second_class() -> None:
    classifier = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(MATRIX, TARGET > 0)
    model = Model.xgboost(classifier, DECLARED, target="y")
    np.testing.assert_array_equal(
        model.predict(ROWS), classifier.predict_proba(MATRIX)[:, 1].astype(np.float64)
    )


def test_a_model_that_stopped_early_is_served_with_its_best_iteration() -> None:
    stopped = regressor(early_stopping_rounds=2, learning_rate=0.9).fit(
        MATRIX[:300], TARGET[:300], eval_set=[(MATRIX[300:], RANDOM.permutation(TARGET[300:]))], verbose=False
    )
    assert stopped.best_iteration + 1 < 30
    model = Model.xgboost(stopped, DECLARED, target="y")
    assert model.specification.options == {"trees": str(stopped.best_iteration + 1)}
    np.testing.assert_array_equal(model.predict(ROWS), stopped.predict(MATRIX).astype(np.float64))


def test_what_does_not_fit_is_refused(fitted: Any) -> None:
    with pytest.raises(InvalidInputError, match="takes 5 columns and its inputs declare 4"):
        Model.xgboost(fitted, inputs(ROWS.drop("season")), target="y")
    many = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(MATRIX, np.arange(600) % 3)
    with pytest.raises(InvalidInputError, match="3 numbers for each row"):
        Model.xgboost(many, DECLARED, target="y")
    with pytest.raises(InvalidInputError, match="is no XGBoost model"):
        Model.xgboost(object(), DECLARED, target="y")
    renamed = xgboost.train({}, xgboost.DMatrix(MATRIX, TARGET, feature_names=list("edcba")), 1)
    with pytest.raises(InvalidInputError, match="was trained on the columns"):
        Model.xgboost(renamed, DECLARED, target="y")


def test_a_file_that_was_cut_short_is_refused(fitted: Any) -> None:
    content = bytes(fitted.get_booster().save_raw("ubj"))
    for length in (1, 20, len(content) // 2, len(content) - 9):
        with pytest.raises(ModelCorruptError, match="XGBoost cannot read"):
            Model.xgboost(content[:length], DECLARED, target="y")


def test_threads_get_their_own_answers(fitted: Any) -> None:
    model = Model.xgboost(fitted, DECLARED, target="y")
    request = ROWS.to_dict(as_series=False)
    expected = fitted.predict(MATRIX).astype(np.float64)
    wrong: list[int] = []

    def ask(start: int) -> None:
        for place in range(start, 600, 4):
            row = {name: values[place : place + 1] for name, values in request.items()}
            if model._predictor.predict(row)[0] != expected[place]:
                wrong.append(place)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_serving_loads_no_python_package_of_xgboost(fitted: Any, tmp_path: Path) -> None:
    Model.xgboost(fitted, DECLARED, target="y").save(tmp_path / "model")
    code = f"""
import sys
from trimtab.models.runtimes.predictor import load_predictor
load_predictor({str(tmp_path / "model")!r})
print(sorted({{"xgboost", "sklearn", "pandas", "scipy", "mlflow"}} & set(sys.modules)))
"""
    assert run_python(code).stdout.strip() == "[]"
