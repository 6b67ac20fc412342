"""Judging versions that came from MLflow's clients: whatever flavor, in a process of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import lightgbm
import mlflow
import mlflow.lightgbm
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import polars as pl
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.models import infer_signature
from mlflow.pyfunc.model import PythonModel
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from trimtab.data.datasets import Datasets
from trimtab.data.window import last
from trimtab.errors import (
    ConflictError,
    InvalidInputError,
    MissingExtraError,
    ModelCorruptError,
    NotFoundError,
    RefusedError,
    StepFailedError,
    TrimtabError,
)
from trimtab.models import addresses, gates
from trimtab.models.candidate_loading import load_candidate
from trimtab.models.candidates import Input, refusals
from trimtab.models.gates import AnyGate, policy_of
from trimtab.models.mlflow_candidate import numbers
from trimtab.models.mlflow_plugin import workspaces
from trimtab.models.model import Model
from trimtab.models.policy import Policy, PolicyRows
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport
from trimtab.models.validation import rows_of, validate
from trimtab.workspace import Workspace

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = PolicyRows("holdout", "y")


def trips(count: int, seed: int) -> pl.DataFrame:
    """What y is made of: 3x, 1 in the city a, and a little noise."""
    random = np.random.default_rng(seed)
    x, city = random.normal(size=count), random.choice(["a", "b"], count)
    return pl.DataFrame(
        {
            "x": x,
            "city": city,
            "n": random.integers(0, 9, count),
            "y": 3 * x + (city == "a") + random.normal(size=count) * 0.1,
        }
    )


TRAINING, HELD_OUT = trips(400, 1), trips(200, 2)


class Raising(PythonModel):
    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        raise ZeroDivisionError("of all things")


class Leaving(PythonModel):
    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        os._exit(7)


class Noting(PythonModel):
    """Writes down in which process it is loaded."""

    def __init__(self, place: str) -> None:
        self.place = place

    def load_context(self, context: Any) -> None:
        with Path(self.place).open("a") as file:
            file.write(f"{os.getpid()}\n")

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        print("not the answer")
        return model_input[["x"]] * 3


@pytest.fixture
def ws(workspace: Workspace) -> Iterator[Workspace]:
    """A workspace with held-out rows, which `mlflow.*` logs to."""
    datasets = Datasets(workspace)
    datasets.create("holdout")
    datasets.append("holdout", HELD_OUT, key="all")
    address = addresses.address_of(workspace.project)
    mlflow.set_tracking_uri(address)
    mlflow.set_registry_uri(address)
    yield workspace
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # what undoes it
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]  # what undoes it
    workspaces.close_workspaces()


def registered(save: Callable[[str], None], tmp_path: Path, name: str = "prices") -> int:
    """Save a model, log its files, register them; answers the version."""
    folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
    save(str(folder))
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.log_artifacts(run, str(folder), "model")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return int(client.create_model_version(name, f"runs:/{run}/model", run).version)


def judged(
    workspace: Workspace, version: int, *asked: AnyGate, rows: PolicyRows = ROWS, name: str = "prices"
) -> GateReport:
    return validate(workspace, name, version, Policy(policy_of(asked).gates, rows), rows, as_of=AS_OF)


def a_function(folder: str) -> None:
    signature = infer_signature(TRAINING.select("x").to_pandas())
    mlflow.pyfunc.save_model(folder, python_model=_three_times, signature=signature, pip_requirements=[])


def _three_times(model_input: pd.DataFrame) -> Any:
    return model_input["x"] * 3


def test_a_model_of_scikit_learn_is_held_to_its_gates_and_may_then_be_champion(
    ws: Workspace, tmp_path: Path
) -> None:
    features = TRAINING.select("x", "city", "n").to_pandas()
    encoder = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    trained = make_pipeline(encoder, LinearRegression()).fit(features, TRAINING["y"].to_numpy())
    version = registered(
        lambda folder: mlflow.sklearn.save_model(
            trained, folder, serialization_format="cloudpickle", input_example=features.head(2),
            signature=infer_signature(features), pip_requirements=[],
        ),
        tmp_path,
    )  # fmt: skip
    made = trained.predict(HELD_OUT.select("x", "city", "n").to_pandas())
    rmse = float(np.sqrt(np.mean((made - HELD_OUT["y"].to_numpy()) ** 2)))
    asked = (gates.Metric("rmse", max=0.2), gates.Signature(), gates.Latency(10_000))
    registry, policy = Registry(ws), Policy(policy_of(asked).gates, ROWS)
    ws.write(lambda tx: registry.govern(tx, "prices", policy, by="a policy"))
    with pytest.raises(mlflow.MlflowException, match=f"trimtab model validate prices {version}"):
        MlflowClient().set_registered_model_alias("prices", "champion", str(version))
    report = judged(ws, version, *asked)
    assert report.passed
    assert report.results[0].numbers["value"] == pytest.approx(rmse)
    assert (report.dataset, report.dataset_version, report.version) == ("holdout", 1, version)
    assert registry.gate_reports("prices", version=version) == [report]
    MlflowClient().set_registered_model_alias("prices", "champion", str(version))
    worse = judged(ws, version, gates.Metric("rmse", max=rmse / 2))
    assert not worse.passed


def test_the_champion_that_it_must_beat_may_be_of_another_kind(ws: Workspace, tmp_path: Path) -> None:
    first = registered(a_function, tmp_path)
    ws.write(lambda tx: Registry(ws).set_alias(tx, "prices", "champion", first))
    matrix = TRAINING.select("x", "n").to_pandas()
    booster = lightgbm.train(
        {"verbose": -1, "num_threads": 1}, lightgbm.Dataset(matrix, TRAINING["y"].to_numpy()), 60
    )
    second = registered(
        lambda folder: mlflow.lightgbm.save_model(
            booster, folder, signature=infer_signature(matrix), pip_requirements=[]
        ),
        tmp_path,
    )
    report = judged(ws, second, gates.BeatsChampion("rmse"), gates.Signature(), gates.AnswerRatio(0.5, 2.0))
    beats, signature, ratio = report.results
    assert beats.numbers["champion"] == pytest.approx(
        float(np.sqrt(np.mean((3 * HELD_OUT["x"] - HELD_OUT["y"]).to_numpy() ** 2)))
    )
    assert not signature.passed
    assert "requires the column 'n'" in signature.reason
    assert ratio.numbers["rows"] == HELD_OUT.height
    assert report.champion == Registry(ws).get_version("prices", first).digest


def test_an_onnx_model_is_judged(ws: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    import mlflow.onnx
    import onnx

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["given", "w"], ["made"])],
        "linear",
        [onnx.helper.make_tensor_value_info("given", onnx.TensorProto.FLOAT, [None, 2])],
        [onnx.helper.make_tensor_value_info("made", onnx.TensorProto.FLOAT, [None, 1])],
        [onnx.numpy_helper.from_array(np.array([[3.0], [0.0]], dtype=np.float32), "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    signature = infer_signature(TRAINING.select("x", "n").to_numpy().astype(np.float32))
    version = registered(
        lambda folder: mlflow.onnx.save_model(model, folder, signature=signature, pip_requirements=[]),
        tmp_path,
    )
    datasets = Datasets(ws)
    datasets.create("numbers")
    datasets.append("numbers", HELD_OUT.select("x", "n", "y"), key="all")
    report = judged(ws, version, gates.Metric("rmse", max=1), rows=PolicyRows("numbers", "y"))
    assert report.passed, report
    mixed = judged(ws, version, gates.Metric("rmse", max=1))  # with a column of texts: no such matrix
    assert "a matrix without names" in mixed.results[0].reason


def test_a_model_runs_its_code_in_another_process(ws: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "loaded"
    version = registered(
        lambda folder: mlflow.pyfunc.save_model(folder, python_model=Noting(str(place)), pip_requirements=[]),
        tmp_path,
    )
    place.unlink(missing_ok=True)
    assert judged(ws, version, gates.Metric("rmse", max=10)).passed
    (process,) = place.read_text().split()
    assert int(process) != os.getpid()


def test_a_model_that_raises_does_not_pass_and_the_report_says_what(ws: Workspace, tmp_path: Path) -> None:
    version = registered(
        lambda folder: mlflow.pyfunc.save_model(folder, python_model=Raising(), pip_requirements=[]),
        tmp_path,
    )
    report = judged(ws, version, gates.Metric("rmse", max=10))
    assert not report.passed
    assert "ZeroDivisionError: of all things" in report.results[0].reason


def test_a_model_that_ends_its_process_leaves_no_report(ws: Workspace, tmp_path: Path) -> None:
    version = registered(
        lambda folder: mlflow.pyfunc.save_model(folder, python_model=Leaving(), pip_requirements=[]),
        tmp_path,
    )
    with pytest.raises(
        StepFailedError, match=f"version {version} of 'prices' was judged ended with status 7"
    ):
        judged(ws, version, gates.Metric("rmse", max=10))
    assert Registry(ws).gate_reports("prices") == []


def test_a_missing_package_is_told_and_is_no_report(ws: Workspace, tmp_path: Path) -> None:
    def save(folder: str) -> None:
        a_function(folder)
        place = Path(folder) / "MLmodel"
        document = yaml.safe_load(place.read_text())
        document["flavors"]["python_function"]["loader_module"] = "some_framework"
        place.write_text(yaml.safe_dump(document))

    version = registered(save, tmp_path)
    with pytest.raises(MissingExtraError, match=r"'some_framework'.*requirements\.txt"):
        judged(ws, version, gates.Metric("rmse", max=10))
    assert Registry(ws).gate_reports("prices") == []


def test_a_model_that_trimtab_packaged_is_judged_alike(
    ws: Workspace, model: Model, rows: pl.DataFrame, tmp_path: Path
) -> None:
    version = registered(lambda folder: model.save(folder), tmp_path)
    datasets = Datasets(ws)
    datasets.create("rentals", time="at")
    datasets.append("rentals", rows, key="all")
    assert judged(
        ws, version, gates.Metric("rmsle", max=10), gates.Signature(), rows=PolicyRows("rentals", "cnt")
    ).passed


@pytest.mark.parametrize(
    ("rows", "error", "told"),
    [
        (PolicyRows("nothing", "y"), NotFoundError, "no dataset 'nothing'"),
        (PolicyRows("holdout", "z"), InvalidInputError, "no column 'z', the target"),
        (PolicyRows("other", "y"), InvalidInputError, r"lacks what version 1 of 'prices' takes: 'x'"),
        (PolicyRows("holdout", "y", last(days=3)), InvalidInputError, "no column of event time"),
    ],
)
def test_rows_that_do_not_fit_are_told_before_anything_runs(
    ws: Workspace, tmp_path: Path, rows: PolicyRows, error: type[TrimtabError], told: str
) -> None:
    datasets = Datasets(ws)
    datasets.create("other")
    datasets.append("other", HELD_OUT.select("n", "y"), key="all")
    version = registered(a_function, tmp_path)
    with pytest.raises(error, match=told):
        judged(ws, version, gates.Metric("rmse", max=10), rows=rows)
    assert Registry(ws).gate_reports("prices") == []


def test_a_version_without_a_models_files_is_told(ws: Workspace, tmp_path: Path) -> None:
    client = MlflowClient()
    client.create_registered_model("elsewhere")
    client.create_model_version("elsewhere", "s3://bucket/model")
    with pytest.raises(ConflictError, match=r"only the address is kept"):
        judged(ws, 1, gates.Signature(), name="elsewhere")

    def save(folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "weights.bin").write_bytes(b"1")

    with pytest.raises(ConflictError, match="no 'MLmodel'"):
        judged(ws, registered(save, tmp_path), gates.Signature())
    with pytest.raises(NotFoundError):
        judged(ws, 9, gates.Signature())


def test_other_rows_than_the_policys_are_refused() -> None:
    assert rows_of("m", ROWS, None, None) == ROWS
    assert rows_of("m", ROWS, "holdout", "y") == ROWS
    assert rows_of("m", None, "a", "b") == PolicyRows("a", "b")
    for given in (("other", None), (None, "z")):
        with pytest.raises(RefusedError, match="trimtab model govern m"):
            rows_of("m", ROWS, *given)
    with pytest.raises(InvalidInputError, match="--data DATASET"):
        rows_of("m", None, None, "y")


def test_the_rows_belong_to_the_policy() -> None:
    asked = policy_of([gates.Latency(20)])
    here, there = Policy(asked.gates, ROWS), Policy(asked.gates, PolicyRows("other", "y"))
    assert len({asked.digest, here.digest, there.digest}) == 3


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([1, 2], [1.0, 2.0]),
        (np.array([[0.3, 0.7], [0.6, 0.4]]), [0.7, 0.4]),
        (np.array([[1.0], [2.0]]), [1.0, 2.0]),
        (pd.DataFrame({"y": [1, 2]}), [1.0, 2.0]),
        (pd.Series([True, False]), [1.0, 0.0]),
        ({"made": np.array([[1.0], [2.0]])}, [1.0, 2.0]),
    ],
)
def test_answers_are_one_number_for_each_row(made: Any, expected: list[float]) -> None:
    assert numbers(made, 2).tolist() == expected


@pytest.mark.parametrize("made", [[1], [[1, 2, 3], [1, 2, 3]], ["a", "b"], {}, 5, None])
def test_other_answers_are_told(made: Any) -> None:
    with pytest.raises(InvalidInputError, match="It answers"):
        numbers(made, 2)


def test_a_classifier_answers_with_the_probability_of_its_second_class(tmp_path: Path) -> None:
    features = TRAINING.select("x", "n").to_pandas()
    trained = LogisticRegression().fit(features, TRAINING["y"].to_numpy() > 0)
    mlflow.sklearn.save_model(
        trained, str(tmp_path / "m"), serialization_format="cloudpickle", pip_requirements=[],
        signature=infer_signature(features), pyfunc_predict_fn="predict_proba",
    )  # fmt: skip
    asked = load_candidate(tmp_path / "m")
    made = asked.answers(HELD_OUT)
    np.testing.assert_allclose(made, trained.predict_proba(HELD_OUT.select("x", "n").to_pandas())[:, 1])
    assert asked.inputs == {"x": Input("number"), "n": Input("number")}
    assert [float(np.asarray(each())[0, 1]) for each in asked.singles(HELD_OUT.head(3))] == made[:3].tolist()
    with pytest.raises(InvalidInputError, match="'n' is missing"):
        asked.answers(HELD_OUT.drop("n"))


def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelCorruptError, match="MLmodel"):
        load_candidate(tmp_path)
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    with pytest.raises(ModelCorruptError, match="not python_function"):
        load_candidate(tmp_path)
    (tmp_path / "MLmodel").write_text(": :\n- [")
    with pytest.raises(ModelCorruptError, match="Loading it raised"):
        load_candidate(tmp_path)


def test_what_a_request_may_be_refused_for_is_told_by_any_two_kinds() -> None:
    one = {"a": Input("number"), "b": Input("text", required=False)}
    assert list(refusals(one, one)) == []
    assert list(refusals(one, {"b": Input("text")})) == [
        "it requires the column 'a', which requests do not have"
    ]
    assert list(refusals(one, {"a": Input("text")})) == ["the column 'a' is a number and not a text"]
    assert list(refusals(one, {"a": Input("number", required=False)})) == [
        "the column 'a' may no longer be missing"
    ]
    assert "does not say which columns" in next(refusals(None, one))
