"""Models that only their own code can load, in processes of their own: real ones, killed and hung."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.house.repository import run_python

from trimtab.errors import (
    InvalidInputError,
    ModelCorruptError,
    RefusedError,
    TrimtabError,
    UnavailableError,
)
from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.messages import ModelRaisedError
from trimtab.models.confined.predictor import ConfinedPredictor, load_servable
from trimtab.models.runtimes.predictor import load_predictor

pytest.importorskip("pandas", reason="the extra pyfunc is not installed")

ALLOWED = Confinement(("moody",), timeout_ms=60_000)

MOODY = """
import os
import signal
import time

from mlflow.pyfunc import PythonModel


class Moody(PythonModel):
    def predict(self, context, model_input, params=None):
        x = model_input["x"].to_numpy()
        assert str(model_input["count"].dtype) == "int64", model_input.dtypes
        assert str(model_input["holiday"].dtype) == "bool", model_input.dtypes
        print("this goes to nobody")
        if (x == -1).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (x == -2).any():
            time.sleep(3600)
        if (x == -3).any():
            raise RuntimeError("a bad day")
        if (x == -4).any():
            bytearray(64 * 2**30)
        if (x == -5).any():
            return [os.environ.get("TRIMTAB_TOKEN", "") + os.environ.get("HOME", "")] * len(x)
        extra = 1000 * (model_input["season"] == "winter") + 0.5 * model_input["holiday"]
        return x + model_input["count"] + extra
"""

ROW: dict[str, list[Any]] = {"x": [2.0], "season": ["winter"], "count": [3], "holiday": [True]}


def row(x: float, season: str = "summer") -> dict[str, list[Any]]:
    return {"x": [x], "season": [season], "count": [0], "holiday": [False]}


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as MLflow writes it, saved in a process of its own, whose module is gone when it is loaded."""
    home = tmp_path_factory.mktemp("moody")
    (home / "moody.py").write_text(MOODY)
    run_python(
        f"""
import os, sys
os.chdir({str(home)!r})
sys.path.insert(0, {str(home)!r})
import cloudpickle, mlflow.pyfunc, pandas, moody
from mlflow.models import infer_signature
cloudpickle.register_pickle_by_value(moody)
columns = {{"x": [1.0, 2.5], "season": ["winter", "summer"], "count": [1, 2], "holiday": [True, False]}}
frame = pandas.DataFrame(columns)
mlflow.pyfunc.save_model(
    "model", python_model=moody.Moody(), signature=infer_signature(frame, [1.0, 2.0]), input_example=frame,
    pip_requirements=[],
)
"""
    )
    return home / "model"


@pytest.fixture(scope="module")
def shared(moody: Path) -> Iterator[ConfinedPredictor]:
    with load_servable(moody, model="moody", confinement=ALLOWED) as predictor:
        assert isinstance(predictor, ConfinedPredictor)
        yield predictor


def alive(predictor: ConfinedPredictor) -> psutil.Process:
    """Its process, once it answers again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            predictor.predict(ROW)
        except UnavailableError:
            assert time.monotonic() < deadline, "it did not come back"
            time.sleep(0.05)
        else:
            assert predictor.pid is not None
            return psutil.Process(predictor.pid)


def test_no_pickle_is_loaded_unless_the_model_is_named(moody: Path) -> None:
    for confinement in (Confinement(), Confinement(("other", "mood"))):
        with pytest.raises(RefusedError, match="unpickling") as caught:
            load_servable(moody, model="moody", confinement=confinement)
        assert "confined_models" in caught.value.hint
    with pytest.raises(RefusedError):
        load_predictor(moody)


def test_it_answers_rows_of_numbers_texts_and_booleans(shared: ConfinedPredictor) -> None:
    assert shared.predict(ROW).tolist() == [1005.5]
    many = {name: values * 700 for name, values in ROW.items()}
    assert shared.predict(many).tolist() == [1005.5] * 700
    assert shared.predict({name: [] for name in ROW}).shape == (0,)
    assert shared.blocking
    assert shared.specification.runtime == "confined"
    assert [(c.name, c.kind) for c in shared.signature.columns] == [
        ("x", "number"),
        ("season", "text"),
        ("count", "number"),
        ("holiday", "boolean"),
    ]
    assert shared.example["season"] == ["winter", "summer"]
    np.testing.assert_allclose(shared.predict(shared.example), shared.specification.expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": ["two"]}, "'x' has 'two' in row 0, which is not a finite number"),
        ({"x": [None]}, "'x' is missing in row 0"),
        ({"count": [2.5]}, "'count' has 2.5 in row 0, which is not a whole number"),
        ({"season": [7]}, "'season' has 7 in row 0, which is not a text"),
        ({"season": [None]}, "'season' is missing in row 0"),
        ({"holiday": [1]}, "'holiday' has 1 in row 0"),
        ({"seasn": ["winter"]}, "no input column 'seasn'"),
        ({"x": [1.0, 2.0]}, "values where others have"),
    ],
)
def test_what_the_signature_does_not_allow_never_reaches_the_process(
    shared: ConfinedPredictor, change: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        shared.predict({**ROW, **change})


def test_what_the_model_raises_fails_that_call_only(shared: ConfinedPredictor) -> None:
    before = alive(shared).pid
    with pytest.raises(ModelRaisedError, match="RuntimeError: a bad day"):
        shared.predict(row(-3))
    assert alive(shared).pid == before


def test_what_lacks_memory_fails_that_call_only(shared: ConfinedPredictor) -> None:
    before = alive(shared).pid
    with pytest.raises(ModelRaisedError, match="MemoryError"):
        shared.predict(row(-4))
    assert alive(shared).pid == before


def test_it_is_given_no_secret_and_a_folder_of_its_own(moody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_TOKEN", "tell-nobody")
    with load_servable(moody, model="moody", confinement=ALLOWED) as predictor:
        assert isinstance(predictor, ConfinedPredictor)
        with pytest.raises(ModelRaisedError) as caught:
            predictor.predict(row(-5))
        assert "tell-nobody" not in str(caught.value)
        assert "trimtab-model-" in str(caught.value)
        assert predictor.pid is not None
        home = Path(psutil.Process(predictor.pid).cwd())
        assert home.name.startswith("trimtab-model-")
    assert not home.exists()
    with pytest.raises(UnavailableError):
        predictor.predict(ROW)


def test_callers_that_wait_together_share_a_call_and_get_their_own_rows(shared: ConfinedPredictor) -> None:
    said: dict[int, float | str] = {}

    def ask(number: int) -> None:
        try:
            said[number] = float(shared.predict(row(-3.0 if number % 16 == 7 else 10.0 + number))[0])
        except TrimtabError as error:
            said[number] = error.code

    alive(shared)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {number: "model_failed" if number % 16 == 7 else 10.0 + number for number in range(64)}


def test_killed_under_requests_it_fails_some_in_time_and_comes_back(shared: ConfinedPredictor) -> None:
    process = alive(shared)
    stop = threading.Event()
    answered: list[float] = []
    failed: list[TrimtabError] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                answered.append(float(shared.predict(row(5.0))[0]))
            except TrimtabError as error:
                failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 60
    while process.is_running() and time.monotonic() < until:
        time.sleep(0.05)
    before = len(answered)
    while len(answered) < before + 20 and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answered) == {5.0}
    assert len(answered) >= before + 20
    assert all(isinstance(error, UnavailableError) for error in failed)
    assert shared.pid != process.pid


def test_a_row_that_kills_it_does_so_once(shared: ConfinedPredictor) -> None:
    before = alive(shared).pid
    with pytest.raises(UnavailableError, match="was killed by SIGKILL while it worked on this"):
        shared.predict(row(-1))
    assert alive(shared).pid != before


def test_one_that_hangs_is_ended_at_its_limit(moody: Path) -> None:
    quick = Confinement(("m*",), timeout_ms=1_500)
    with load_servable(moody, model="moody", confinement=quick) as predictor:
        assert isinstance(predictor, ConfinedPredictor)
        process = alive(predictor)
        with pytest.raises(UnavailableError, match=r"did not answer within 1\.5 s"):
            predictor.predict(row(-2))
        assert not process.is_running()
        assert alive(predictor).pid != process.pid


def test_it_ends_with_whoever_serves_it_even_while_it_hangs(moody: Path) -> None:
    code = f"""
import os, threading, time
from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.predictor import load_servable
predictor = load_servable({str(moody)!r}, model="moody", confinement=Confinement(("*",)))
threading.Thread(target=predictor.predict, args=({row(-2)!r},), daemon=True).start()
time.sleep(0.3)
print(predictor.pid, flush=True)
os.kill(os.getpid(), 9)
"""

    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert ended.returncode == -signal.SIGKILL
    pid = int(ended.stdout)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it outlived the one that served it"
        time.sleep(0.02)


def test_one_that_cannot_be_loaded_says_why(moody: Path, tmp_path: Path) -> None:

    broken = tmp_path / "broken"
    shutil.copytree(moody, broken)
    (broken / "python_model.pkl").write_bytes(b"no pickle")
    with pytest.raises(ModelCorruptError, match="Loading it raised"):
        load_servable(broken, model="moody", confinement=ALLOWED)


def test_the_one_who_serves_loads_nothing_of_the_models(moody: Path) -> None:
    code = f"""
import os, sys
from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.predictor import load_servable
with load_servable({str(moody)!r}, model="moody", confinement=Confinement(("moody",))) as predictor:
    assert predictor.predict({ROW!r}).tolist() == [1005.5]
print(sorted({{"mlflow", "pandas", "sklearn", "cloudpickle", "scipy"}} & set(sys.modules)))
"""
    assert run_python(code).stdout.strip().splitlines()[-1] == "[]"


SHAPES = """
import sys
import numpy, pandas, mlflow.pyfunc
from mlflow.models import infer_signature
from mlflow.pyfunc import PythonModel

class Sums(PythonModel):
    def predict(self, context, model_input, params=None):
        return numpy.asarray(model_input).sum(axis=1)

class Hours(PythonModel):
    def predict(self, context, model_input, params=None):
        return {"hour": model_input["at"].dt.hour + model_input["x"].fillna(100.0)}

matrix = numpy.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
times = pandas.to_datetime(["2026-01-31T05:00", "2026-01-31T06:00"])
frame = pandas.DataFrame({"at": times, "x": [1.0, None]})
both = (("sums", Sums(), matrix, [6.0, 15.0]), ("hours", Hours(), frame, [1.0, 2.0]))
for name, model, example, made in both:
    mlflow.pyfunc.save_model(
        sys.argv[1] + "/" + name, python_model=model, signature=infer_signature(example, numpy.array(made)),
        input_example=example, pip_requirements=[],
    )
"""


def test_matrices_without_names_and_times_are_columns_too(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SHAPES, tmp_path], check=True, cwd=tmp_path, capture_output=True)
    allowed = Confinement(("*",), timeout_ms=60_000)
    with load_servable(tmp_path / "sums", model="sums", confinement=allowed) as sums:
        assert sums.signature.names == ["0", "1", "2"]
        assert sums.predict({"0": [1.0, 0.0], "1": [2.0, 0.0], "2": [4.0, 0.5]}).tolist() == [7.0, 0.5]
    with load_servable(tmp_path / "hours", model="hours", confinement=allowed) as hours:
        assert hours.predict({"at": ["2026-05-01T07:30:00"], "x": [0.25]}).tolist() == [7.25]
        assert hours.predict({"at": ["2026-05-01T07:30:00"] * 2, "x": [1.0, 2.0]}).tolist() == [8.0, 9.0]
        with pytest.raises(InvalidInputError, match="'at' has a text that is no time"):
            hours.predict({"at": ["soon"], "x": [0.25]})
