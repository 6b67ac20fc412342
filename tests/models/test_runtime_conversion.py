"""Models as MLflow's clients log them, converted so that no gateway needs their code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from trimtab.data.datasets import Datasets
from trimtab.errors import ConflictError, InvalidInputError
from trimtab.models.converting import convert_version
from trimtab.models.registry import Registry
from trimtab.models.runtimes.predictor import load_predictor
from trimtab.models.serving_notes import how_served
from trimtab.workspace import Workspace

pytest.importorskip("skl2onnx", reason="the extra onnx is not installed")
pytest.importorskip("xgboost", reason="the extra xgboost is not installed")
pytest.importorskip("pandas", reason="the extra pyfunc is not installed")

import lightgbm
import mlflow
import mlflow.lightgbm
import mlflow.sklearn
import mlflow.xgboost
import xgboost
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVR

RANDOM = np.random.default_rng(11)
COUNT = 400
ROWS = pl.DataFrame(
    {
        "x": RANDOM.normal(size=COUNT),
        "hour": RANDOM.integers(0, 24, COUNT),
        "season": RANDOM.choice(["winter", "spring", "summer"], COUNT),
    }
)
FRAME = ROWS.to_pandas().astype({"season": object})
NUMBERS = FRAME[["x", "hour"]].astype(float)
TARGET = 3 * FRAME["x"] + FRAME["hour"] + 10 * (FRAME["season"] == "winter")


def registered(workspace: Workspace, folder: Path) -> int:
    registry = Registry(workspace)
    digest = workspace.blobs.put_tree(folder)
    workspace.write(lambda tx: registry.create_model(tx, "rides", exist_ok=True))
    return workspace.write(lambda tx: registry.register(tx, "rides", digest)).version


def saved(flavor: Any, model: Any, folder: Path, frame: Any, **options: Any) -> Path:
    signature = infer_signature(frame, TARGET[: len(frame)].to_numpy())
    flavor.save_model(
        model, str(folder), signature=signature, input_example=frame.head(4), pip_requirements=[], **options
    )
    return folder


def test_a_logged_pipeline_becomes_onnx_in_another_process(workspace: Workspace, tmp_path: Path) -> None:
    pipeline = make_pipeline(
        make_column_transformer(
            (StandardScaler(), ["x"]), (OneHotEncoder(handle_unknown="ignore"), ["season", "hour"])
        ),
        Ridge(),
    ).fit(FRAME, TARGET)
    version = registered(
        workspace,
        saved(mlflow.sklearn, pipeline, tmp_path / "m", FRAME, serialization_format="cloudpickle"),
    )
    Datasets(workspace).create("rides")
    Datasets(workspace).append("rides", ROWS, key="all")
    made, told = convert_version(workspace, "rides", version, dataset="rides")
    assert (made.version, told.flavor, told.runtime) == (version + 1, "sklearn", "onnx")
    assert told.rows >= COUNT
    assert told.difference <= 1e-9
    assert made.description.startswith(f"version {version} converted from sklearn to onnx, within ")
    assert made.source == f"models:/rides/{version}"
    workspace.blobs.fetch_tree(made.digest, tmp_path / "made")
    with load_predictor(tmp_path / "made") as predictor:
        np.testing.assert_allclose(
            predictor.predict(ROWS.to_dict(as_series=False)), pipeline.predict(FRAME), rtol=1e-9, atol=1e-9
        )
    assert how_served(workspace, made.digest).startswith("by ONNX Runtime, converted from Pipeline (scikit")
    original = Registry(workspace).get_version("rides", version)
    assert how_served(workspace, original.digest) == "in a process of its own, if allowed"
    with pytest.raises(ConflictError, match="served as it is"):
        convert_version(workspace, "rides", made.version)


@pytest.mark.parametrize("flavor", ["xgboost", "lightgbm"])
def test_a_logged_booster_keeps_its_own_file(workspace: Workspace, tmp_path: Path, flavor: str) -> None:
    model: Any
    if flavor == "xgboost":
        model = xgboost.XGBRegressor(n_estimators=10, n_jobs=1).fit(NUMBERS, TARGET)
        folder = saved(mlflow.xgboost, model, tmp_path / "m", NUMBERS, model_format="ubj")
    else:
        data = lightgbm.Dataset(NUMBERS, TARGET)
        model = lightgbm.train({"num_threads": 1, "verbose": -1}, data, num_boost_round=10)
        folder = saved(mlflow.lightgbm, model, tmp_path / "m", NUMBERS)
    made, told = convert_version(workspace, "rides", registered(workspace, folder))
    assert (told.flavor, told.runtime) == (flavor, flavor)
    workspace.blobs.fetch_tree(made.digest, tmp_path / "made")
    with load_predictor(tmp_path / "made") as predictor:
        request = ROWS.select("x", pl.col("hour").cast(float)).to_dict(as_series=False)
        np.testing.assert_allclose(predictor.predict(request), model.predict(NUMBERS), rtol=1e-6)


def test_a_classifier_answers_as_it_was_logged_or_as_it_is_told(workspace: Workspace, tmp_path: Path) -> None:
    forest = RandomForestClassifier(10, random_state=0).fit(NUMBERS, TARGET > 10)
    labels = RandomForestClassifier(10, random_state=0).fit(NUMBERS, (TARGET > 10).astype(int))
    cases = [
        (forest, {"pyfunc_predict_fn": "predict_proba"}, None, forest.predict_proba(NUMBERS)[:, 1]),
        (labels, {}, None, labels.predict(NUMBERS)),
        (labels, {}, "probability", labels.predict_proba(NUMBERS)[:, 1]),
    ]
    for number, (model, options, answer, expected) in enumerate(cases):
        folder = tmp_path / f"m{number}"
        saved(mlflow.sklearn, model, folder, NUMBERS, serialization_format="cloudpickle", **options)
        version = registered(workspace, folder)
        made, _ = convert_version(workspace, "rides", version, answer=answer)  # type: ignore[arg-type]  # a literal
        workspace.blobs.fetch_tree(made.digest, tmp_path / f"made{number}")
        with load_predictor(tmp_path / f"made{number}") as predictor:
            request = ROWS.select("x", pl.col("hour").cast(float)).to_dict(as_series=False)
            np.testing.assert_allclose(predictor.predict(request), expected, rtol=1e-9, atol=1e-9)


def test_what_cannot_be_converted_is_told_and_nothing_is_registered(
    workspace: Workspace, tmp_path: Path
) -> None:
    inexact = saved(
        mlflow.sklearn,
        SVR().fit(NUMBERS, TARGET),
        tmp_path / "m",
        NUMBERS,
        serialization_format="cloudpickle",
    )
    version = registered(workspace, inexact)
    with pytest.raises(InvalidInputError, match="not converted to ONNX"):
        convert_version(workspace, "rides", version)
    mlflow.sklearn.save_model(
        LogisticRegression().fit(NUMBERS, TARGET > 10),
        str(tmp_path / "bare"),
        serialization_format="cloudpickle",
        pip_requirements=[],
    )
    with pytest.raises(InvalidInputError, match="no signature"):
        convert_version(workspace, "rides", registered(workspace, tmp_path / "bare"))
    assert len(Registry(workspace).versions("rides")) == 2
