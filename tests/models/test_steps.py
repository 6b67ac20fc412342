"""Models packed with the steps before and behind them: what they answer, and which steps are refused."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import polars as pl
import pytest
from tests.models import rental_steps
from tests.models.rental_steps import double, none_on_holidays, prepare
from tests.models.rentals import rentals

from trimtab.digest import digest_bytes
from trimtab.errors import ConflictError, InvalidInputError, ModelCorruptError, RefusedError
from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.messages import ModelRaisedError
from trimtab.models.confined.predictor import check_servable, load_servable
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.packed import load_packaged
from trimtab.models.specification import SPECIFICATION_FILE, Specification
from trimtab.models.steps.applied import Applied, StepFailedOnRowsError
from trimtab.models.steps.document import Steps, read_steps

MEAN = 59.0
UNTYPED: Any = prepare
STEP = functools.partial(prepare, mean=MEAN)
ALLOWED = Confinement(("rentals",), timeout_ms=60_000)


def raw_rows(count: int = 500) -> pl.DataFrame:
    rows = rentals(count)
    places = np.random.default_rng(2).choice(["harbour", "station", "market", "elsewhere"], count)
    return rows.drop("hour").with_columns(
        pl.Series("place", places),
        pl.col("weather").cast(pl.Enum(["clear", "mist", "rain"])),
        pl.when(pl.int_range(pl.len()) % 9 > 0).then(pl.col("temperature")).alias("temperature"),
    )


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return raw_rows()


@pytest.fixture(scope="module")
def inner(raw: pl.DataFrame) -> Model:
    rows = STEP(raw)
    taken = inputs(rows, ["warmth", "hour", "offset", "place", "busy"])
    data = lightgbm.Dataset(taken.matrix(rows), raw["cnt"].to_numpy().astype(float))
    booster = lightgbm.train({"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}, data, 20)
    return Model.lightgbm(booster, taken, target="cnt")


@pytest.fixture(scope="module")
def served(inner: Model, raw: pl.DataFrame) -> Model:
    return inner.with_steps(raw, before=STEP, after=none_on_holidays)


@pytest.fixture(scope="module")
def package(served: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "rentals"
    served.save(folder)
    return folder


def steps_of(model: Model) -> Steps:
    return read_steps(model.content)


def test_it_answers_raw_rows_with_what_training_computes(
    served: Model, inner: Model, raw: pl.DataFrame
) -> None:
    new = raw_rows(700).tail(200)
    by_hand = none_on_holidays(inner.predict(STEP(new)), new)
    assert np.array_equal(served.predict(new), by_hand)
    assert served.signature.names == ["at", "weather", "temperature", "holiday", "place"]
    assert served.target == "cnt"


def test_its_package_gives_the_same_answers_by_every_door(
    served: Model, package: Path, raw: pl.DataFrame
) -> None:
    expected = served.predict(raw)
    assert np.array_equal(Model.load(package).predict(raw), expected)
    assert np.array_equal(copy.deepcopy(served).predict(raw), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(served)).predict(raw), expected)
    with load_packaged(package) as predictor:
        assert predictor.blocking


def test_mlflow_opens_the_package(served: Model, package: Path, raw: pl.DataFrame) -> None:
    pandas = pytest.importorskip("pandas")
    import mlflow.pyfunc

    rows = raw.head(20)
    texts = rows.with_columns(
        pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%S%:z"), pl.col("weather").cast(pl.String)
    ).drop("cnt")
    made = mlflow.pyfunc.load_model(str(package)).predict(pandas.DataFrame(texts.to_dict(as_series=False)))
    assert np.array_equal(made, served.predict(rows))


def test_equal_steps_make_equal_packages(inner: Model, served: Model, raw: pl.DataFrame) -> None:
    again = inner.with_steps(raw, before=STEP, after=none_on_holidays)
    assert again.specification == served.specification
    other = inner.with_steps(raw, before=functools.partial(prepare, mean=0.0), after=none_on_holidays)
    assert steps_of(other).digest != steps_of(served).digest


def test_what_the_steps_reach_is_packed_and_nothing_else(package: Path) -> None:
    steps = (package / "code/tests/models/rental_steps.py").read_text()
    places = (package / "code/tests/models/rental_places.py").read_text()
    assert "OFFSETS = {'clear': 0.5, 'mist': 0.5, 'rain': -1.0}" in steps
    assert "SEEN.append(re.compile('rain'))" in steps
    assert "PLACES = {'harbour': 1, 'station': 2, 'market': 3}" in places
    for absent in ("def training", "print(", "def centred", "TABLE", "import random"):
        assert absent not in steps
    assert "unused" not in places.lower()
    assert "polars" in steps_of(Model.load(package)).packages


def test_only_the_second_parameter_of_the_step_behind_gets_the_rows(inner: Model, raw: pl.DataFrame) -> None:
    doubled = inner.with_steps(raw, before=STEP, after=double)
    assert np.array_equal(doubled.predict(raw), 2 * inner.predict(STEP(raw)))


def by_sklearn(rows: pl.DataFrame, labels: np.ndarray[Any, Any]) -> Model:
    linear = pytest.importorskip("sklearn.linear_model", reason="the extra onnx is not installed")
    estimator = linear.LinearRegression().fit(rows, labels)
    return Model.sklearn(estimator, inputs(rows), target="cnt")


def by_xgboost(rows: pl.DataFrame, labels: np.ndarray[Any, Any]) -> Model:
    xgboost = pytest.importorskip("xgboost", reason="the extra xgboost is not installed")
    taken = inputs(rows)
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(taken.matrix(rows), labels), 5)
    return Model.xgboost(booster, taken, target="cnt")


@pytest.mark.parametrize("trained", [by_sklearn, by_xgboost])
def test_a_model_of_any_kind_may_have_steps(
    raw: pl.DataFrame, trained: Callable[..., Model], tmp_path: Path
) -> None:
    rows = STEP(raw).select("warmth", "hour", "offset", "place")
    model = trained(rows, raw["cnt"].to_numpy().astype(float))
    model.with_steps(raw, before=STEP, after=double).save(tmp_path / "model")
    assert np.allclose(Model.load(tmp_path / "model").predict(raw), 2 * model.predict(rows), rtol=1e-6)


def test_a_panic_of_polars_is_a_step_that_failed(inner: Model, raw: pl.DataFrame) -> None:
    def panicking(frame: pl.DataFrame) -> pl.DataFrame:
        raise pl.exceptions.PanicException("unreachable")

    applied = Applied(inner._predictor, panicking, None, with_rows=False)
    with pytest.raises(StepFailedOnRowsError, match=r"'panicking' .* raised PanicException"):
        applied.answers(raw)


def test_a_step_behind_alone_takes_the_rows_that_the_model_takes(inner: Model, raw: pl.DataFrame) -> None:
    rows = STEP(raw)
    doubled = inner.with_steps(rows, after=double)
    assert doubled.signature.names == inner.signature.names
    assert np.array_equal(doubled.predict(rows), 2 * inner.predict(rows))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (rental_steps.centred, r"looks at more than the row .* 'warmth' is"),
        (rental_steps.following, "looks at more than the row"),
        (rental_steps.by_chance, "looks at more than the row"),
        (
            rental_steps.by_surroundings,
            "something else in a fresh process: 'warmth' of row 0 is 0 there, and 7",
        ),
        (rental_steps.filtered, "made .* rows of 500"),
        (rental_steps.joined, "'TABLE' in tests.models.rental_steps is a DataFrame"),
        (rental_steps.dynamic, "calls exec"),
        (rental_steps.to_pandas, "answered with a builtins.dict"),
        (rental_steps.outer(), "defined inside of something else"),
        (rental_steps.outer, "needs nothing"),
        (lambda frame: frame, "defined inside of something else"),
        (pl.DataFrame.head, "defined inside of something else"),
        (np.mean, "is no function"),
        (functools.partial(UNTYPED, mean=object()), "argument 'mean' of 'prepare' is a object"),
        (functools.partial(UNTYPED, mean="warm"), r"raised \w+"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_step_that_serving_could_not_repeat_is_refused_with_the_reason(
    inner: Model,
    raw: pl.DataFrame,
    step: Callable[..., Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RENTAL_WARMTH", "7")
    with pytest.raises(InvalidInputError, match=reason):
        inner.with_steps(raw, before=step)


def test_a_column_that_may_be_missing_is_tried(inner: Model, raw: pl.DataFrame) -> None:
    with pytest.raises(InvalidInputError, match="The column 'at' may be missing, and then"):
        inner.with_steps(raw, before=STEP, nullable=["at"])
    inner.with_steps(raw, before=STEP, nullable=["place"])


def test_the_target_and_other_models_steps_are_refused(
    inner: Model, served: Model, raw: pl.DataFrame
) -> None:
    with pytest.raises(InvalidInputError, match="target 'cnt'"):
        inner.with_steps(raw, before=STEP, columns=["at", "cnt"])
    with pytest.raises(ConflictError, match="steps already"):
        served.with_steps(raw, after=double)
    with pytest.raises(InvalidInputError, match="no step"):
        inner.with_steps(raw)


def test_no_step_runs_where_the_model_is_not_allowed_it(package: Path) -> None:
    for refuse in (load_servable, check_servable):
        with pytest.raises(RefusedError, match="steps") as caught:
            refuse(package, model="other", confinement=ALLOWED)
        assert "confined_models" in caught.value.hint
    check_servable(package, model="rentals", confinement=ALLOWED)


@pytest.mark.parametrize("path", ["code/tests/models/rental_places.py", "inner/model.txt", "steps.json"])
def test_a_changed_file_is_refused_before_it_runs(package: Path, tmp_path: Path, path: str) -> None:
    changed = tmp_path / "changed"
    subprocess.run(["cp", "-r", str(package), str(changed)], check=True)
    with (changed / path).open("a") as file:
        file.write("\n")
    with pytest.raises(ModelCorruptError, match="was changed after packaging"):
        load_servable(changed, model="rentals", confinement=ALLOWED)
    with pytest.raises(ModelCorruptError, match="was changed after packaging"):
        Model.load(changed)


def test_a_path_out_of_the_package_is_refused(package: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    subprocess.run(["cp", "-r", str(package), str(changed)], check=True)
    steps = read_steps((changed / "steps.json").read_bytes())
    content = msgspec.structs.replace(steps, files={**steps.files, "../../etc/passwd": "b3:0"}).to_json()
    (changed / "steps.json").write_bytes(content)
    specification = msgspec.json.decode((changed / SPECIFICATION_FILE).read_bytes(), type=Specification)
    written = msgspec.structs.replace(specification, file_digest=digest_bytes(content))
    (changed / SPECIFICATION_FILE).write_bytes(written.to_json())
    with pytest.raises(ModelCorruptError, match="outside"):
        Model.load(changed)


def test_a_row_that_a_step_fails_on_is_told_apart_from_one_that_it_refuses(package: Path) -> None:
    row: dict[str, list[Any]] = {
        "at": ["2011-01-05T07:00:00+00:00"],
        "weather": ["mist"],
        "temperature": [8.0],
        "holiday": [False],
        "place": ["market"],
    }
    with load_servable(package, model="rentals", confinement=ALLOWED) as predictor:
        assert np.isfinite(predictor.predict(row)).all()
        with pytest.raises(ModelRaisedError, match=r"step 'prepare' .* raised ValueError: colder than cold"):
            predictor.predict({**row, "temperature": [-300.0]})
        for column, value, reason in [
            ("temperature", 2000.0, "No place is that hot"),
            ("at", "2011-01-05T07:00:00", "no time of type"),
            ("at", "yesterday", "no time of type"),
            ("weather", "hail", "which its type Enum does not hold"),
            ("place", 3, "not a text"),
            ("holiday", None, "missing"),
        ]:
            with pytest.raises(InvalidInputError, match=reason):
                predictor.predict({**row, column: [value]})
        assert np.isfinite(predictor.predict({**row, "temperature": [None]})).all()


TRAINING = """
import functools
import lightgbm
import numpy as np
import polars as pl
import trimtab as tt
from rates import rate

rows = pl.DataFrame({"x": np.arange(200.0), "day": [date(2020, 1, 1 + n % 28) for n in range(200)]})
MEAN = rows["x"].mean()

def prepare(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(((pl.col("x") - MEAN) * rate()).alias("z"), pl.col("day").dt.day().alias("d"))

made = prepare(rows)
taken = tt.inputs(made)
booster = lightgbm.train({"verbose": -1}, lightgbm.Dataset(taken.matrix(made), rows["x"].to_numpy()), 5)
model = tt.Model.lightgbm(booster, taken, target="y").with_steps(rows, before=prepare)
model.save("model")
np.save("expected.npy", model.predict(rows))
print("trained")
"""


def test_a_script_is_packed_without_its_training_and_runs_where_its_modules_are_others(
    tmp_path: Path,
) -> None:
    (tmp_path / "training.py").write_text("from datetime import date" + TRAINING)
    (tmp_path / "rates.py").write_text("RATE = 3.0\ndef rate():\n    return RATE\n")
    command = [sys.executable, "training.py"]
    ran = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout == "trained\n"
    assert "MEAN = 99.5" in (tmp_path / "model/code/training.py").read_text()
    (tmp_path / "training.py").write_text("def prepare(frame): raise SystemError('the wrong one')")
    (tmp_path / "rates.py").write_text("def rate(): return -1.0")
    asking = (
        "import numpy as np, polars as pl, trimtab as tt, training, rates; from datetime import date;"
        "days = [date(2020, 1, 1 + n % 28) for n in range(200)];"
        "rows = pl.DataFrame({'x': np.arange(200.0), 'day': days});"
        "made = tt.Model.load('model').predict(rows);"
        "assert np.array_equal(made, np.load('expected.npy'))"
    )
    subprocess.run([sys.executable, "-c", asking], cwd=tmp_path, check=True, env=None)
