from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from tests.models.rentals import COLUMNS, trained

from trimtab.models.model import Model
from trimtab.models.signature import Signature

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="module")
def holed() -> pl.DataFrame:
    """Rows with every kind of column, each with holes."""
    return pl.DataFrame(
        {
            "weather": ["rain", "clear", None, "rain"] * 30,
            "hour": [1, 2, 3, None] * 30,
            "temperature": [1.0, None, 3.0, 4.5] * 30,
            "holiday": [True, False, True, None] * 30,
            "cnt": [3, 1, 4, 1] * 30,
        }
    )


def test_mlflow_opens_a_model_and_gets_its_answers(model: Model, folder: Path, rows: pl.DataFrame) -> None:
    import mlflow.pyfunc
    import pandas

    frame = pandas.DataFrame(rows.select(COLUMNS).to_dict(as_series=False))
    loaded = mlflow.pyfunc.load_model(str(folder))
    np.testing.assert_array_equal(loaded.predict(frame), model.predict(rows))


def test_mlflow_passes_missing_values_on(holed: pl.DataFrame, tmp_path: Path) -> None:
    import mlflow.pyfunc
    import pandas

    model = trained(holed)
    model.save(tmp_path / "model")
    frame = pandas.DataFrame(holed.select(COLUMNS).to_dict(as_series=False))
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(frame), model.predict(holed))
    np.testing.assert_array_equal(
        loaded.predict(frame.drop(columns=["holiday"])), model.predict(holed.drop("holiday"))
    )


def test_mlflow_enforces_the_signature(folder: Path, rows: pl.DataFrame) -> None:
    import mlflow.pyfunc
    import pandas
    from mlflow.exceptions import MlflowException

    frame = pandas.DataFrame(rows.select(COLUMNS).head(2).to_dict(as_series=False))
    with pytest.raises(MlflowException, match="temperature"):
        mlflow.pyfunc.load_model(str(folder)).predict(frame.drop(columns=["temperature"]))


def test_mlflow_reads_signature_example_and_flavours(model: Model, folder: Path) -> None:
    from mlflow.models import Model as MLmodel

    document = MLmodel.load(str(folder))
    assert document.signature.inputs.input_names() == COLUMNS
    assert document.signature.to_dict() == yaml.safe_load((folder / "MLmodel").read_text())["signature"]
    example: Any = document.load_input_example(str(folder))
    assert {name: example[name].tolist() for name in COLUMNS} == model.example
    assert document.flavors["trimtab"]["runtime"] == "lightgbm"
    assert document.flavors["python_function"]["loader_module"] == "trimtab.models.pyfunc"


def test_the_environment_is_recorded_with_exact_versions(folder: Path) -> None:
    required = (folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in required)
    assert {line.split("==")[0] for line in required} == {"lightgbm", "mlflow-skinny", "numpy", "trimtab"}
    environment = yaml.safe_load((folder / "python_env.yaml").read_text())
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_folder_tells_nothing_of_the_machine_or_the_moment(folder: Path) -> None:
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"utc_time_created" not in written
    assert str(folder.parent).encode() not in written


def test_declaring_and_asking_a_model_loads_no_mlflow(folder: Path) -> None:
    code = (
        "import sys, trimtab.models.model as m\n"
        f"m.Model.load({str(folder)!r})\n"
        "assert not {'mlflow', 'pandas', 'lightgbm', 'sklearn'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_signature_survives_packaging(model: Model, folder: Path) -> None:
    signature: Signature = Model.load(folder).signature
    assert signature == model.signature
