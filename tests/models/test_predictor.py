from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
from tests.models.rentals import COLUMNS, rentals, trained

from trimtab.errors import InvalidInputError, ModelCorruptError, RefusedError, UnavailableError
from trimtab.models.model import Model
from trimtab.models.runtimes.predictor import Predictor, load_predictor


def columns(rows: pl.DataFrame) -> dict[str, Any]:
    return rows.select(COLUMNS).to_dict(as_series=False)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def test_a_predictor_answers_as_the_model_did(model: Model, folder: Path, rows: pl.DataFrame) -> None:
    with load_predictor(folder) as predictor:
        np.testing.assert_array_equal(predictor.predict(columns(rows)), model.predict(rows))


def test_a_single_row_is_answered_as_among_others(folder: Path, rows: pl.DataFrame) -> None:
    with load_predictor(folder) as predictor:
        together = predictor.predict(columns(rows.head(100)))
        for place in range(100):
            alone = predictor.predict(columns(rows[place]))
            assert alone.shape == (1,)
            np.testing.assert_array_equal(alone, together[place : place + 1])


def test_no_rows_have_no_answers(folder: Path, rows: pl.DataFrame) -> None:
    with load_predictor(folder) as predictor:
        assert predictor.predict(columns(rows.clear())).shape == (0,)


def test_the_signature_is_the_declared_one(folder: Path, model: Model) -> None:
    with load_predictor(folder) as predictor:
        assert predictor.signature == model.signature
        assert predictor.target == "cnt"


def test_a_bad_request_is_refused_and_the_next_one_answered(folder: Path, rows: pl.DataFrame) -> None:
    with load_predictor(folder) as predictor:
        request = columns(rows.head(1))
        with pytest.raises(InvalidInputError, match="'temperature' has 'warm' in row 0"):
            predictor.predict({**request, "temperature": ["warm"]})
        with pytest.raises(InvalidInputError, match="no input column 'colour'"):
            predictor.predict({**request, "colour": ["red"]})
        np.testing.assert_array_equal(
            predictor.predict({**request, "colour": ["red"]}, ignore_unknown=True), predictor.predict(request)
        )


def test_an_unseen_category_is_answered_like_a_missing_one(rows: pl.DataFrame) -> None:
    holed = rows.with_columns(weather=pl.when(pl.col("hour") == 3).then(None).otherwise("weather"))
    model = trained(holed)
    unseen = holed.head(10).with_columns(weather=pl.lit("hail"))
    missing = holed.head(10).with_columns(weather=pl.lit(None, pl.String))
    np.testing.assert_array_equal(model.predict(unseen), model.predict(missing))


def test_many_threads_share_one_predictor(folder: Path, rows: pl.DataFrame) -> None:
    with load_predictor(folder) as predictor:
        expected = predictor.predict(columns(rows))
        single = [columns(rows[place]) for place in range(200)]
        wrong: list[object] = []

        def ask(seed: int) -> None:
            order = np.random.default_rng(seed).permutation(200)
            for place in order:
                answer = predictor.predict(single[place])[0]
                if answer != expected[place]:
                    wrong.append((place, answer))
            if not np.array_equal(predictor.predict(columns(rows)), expected):
                wrong.append("matrix")

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_closing_a_predictor_frees_its_memory(tmp_path: Path) -> None:
    trained(rentals(), trees=400).save(tmp_path / "large")
    process = psutil.Process()

    def load_and_close(times: int) -> int:
        for _ in range(times):
            load_predictor(tmp_path / "large").close()
        gc.collect()
        return int(process.memory_info().rss)

    before = load_and_close(10)
    grown = load_and_close(60) - before
    size = (tmp_path / "large" / "model.txt").stat().st_size
    assert grown < 20 * size, f"{grown} bytes more after 60 loads of a model of {size}"


def test_a_predictor_may_be_closed_twice_and_forgotten_unclosed(folder: Path) -> None:
    predictor = load_predictor(folder)
    predictor.close()
    predictor.close()
    del predictor
    load_predictor(folder)
    gc.collect()


def test_a_closed_predictor_says_so(folder: Path, rows: pl.DataFrame) -> None:
    predictor = load_predictor(folder)
    predictor.close()
    for asked in (rows.head(1), rows):
        with pytest.raises(UnavailableError, match="was closed"):
            predictor.predict(columns(asked))


def test_closing_waits_for_nobody_and_disturbs_no_call_in_progress(
    folder: Path, model: Model, rows: pl.DataFrame
) -> None:
    expected = model.predict(rows)
    wrong: list[object] = []
    for _ in range(20):
        predictor = load_predictor(folder)
        started = threading.Barrier(5)

        def ask(predictor: Predictor = predictor, started: threading.Barrier = started) -> None:
            started.wait()
            try:
                if not all(np.array_equal(predictor.predict(columns(rows)), expected) for _ in range(50)):
                    wrong.append("another answer")
            except UnavailableError:
                pass

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        predictor.close()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_serving_loads_no_heavy_package(folder: Path) -> None:
    code = (
        "import sys\n"
        "from trimtab.models.runtimes.predictor import load_predictor\n"
        f"load_predictor({str(folder)!r})\n"
        "heavy = {'mlflow', 'pandas', 'lightgbm', 'sklearn', 'scipy', 'polars', 'pandera', 'onnxruntime',"
        " 'pickle5', 'cloudpickle', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_changed_model_file_is_refused(copied: Path) -> None:
    file = copied / "model.txt"
    file.write_text(file.read_text().replace("leaf_value=", "leaf_value=9", 1))
    with pytest.raises(ModelCorruptError, match="was changed after packaging"):
        load_predictor(copied)


def test_a_model_that_answers_its_example_otherwise_is_refused(copied: Path) -> None:
    edit(copied / "trimtab.json", lambda document: document["expected"].__setitem__(1, 7.0))
    with pytest.raises(
        ModelCorruptError, match=r"answers row 1 of its example with .* where 7.0 is recorded"
    ):
        load_predictor(copied)


def test_a_model_with_fewer_inputs_than_declared_is_refused(copied: Path) -> None:
    edit(copied / "trimtab.json", lambda document: document["signature"]["columns"].pop())
    with pytest.raises(ModelCorruptError, match="takes 4 columns and its inputs declare 3"):
        load_predictor(copied)


def test_an_example_that_lacks_a_column_is_refused(copied: Path) -> None:
    edit(copied / "input_example.json", lambda document: document["columns"].__setitem__(0, "wether"))
    with pytest.raises(ModelCorruptError, match="does not answer its own input example"):
        load_predictor(copied)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", ".", "nothing.txt"])
def test_a_path_that_leads_out_of_the_folder_is_refused(copied: Path, name: str) -> None:
    (copied.parent / "outside.txt").write_bytes((copied / "model.txt").read_bytes())
    edit(copied / "trimtab.json", lambda document: document.__setitem__("file", name))
    with pytest.raises(ModelCorruptError, match=r"lies outside it|has no file"):
        load_predictor(copied)


def test_a_link_that_leads_out_of_the_folder_is_refused(copied: Path) -> None:
    outside = copied.parent / "outside.txt"
    outside.write_bytes((copied / "model.txt").read_bytes())
    (copied / "model.txt").unlink()
    (copied / "model.txt").symlink_to(outside)
    with pytest.raises(ModelCorruptError, match="lies outside it"):
        load_predictor(copied)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "runtime": "lightgbm", "file": 3}']
)
def test_a_specification_that_cannot_be_understood_is_refused(copied: Path, content: str) -> None:
    (copied / "trimtab.json").write_text(content)
    with pytest.raises(ModelCorruptError, match="cannot be understood"):
        load_predictor(copied)


def test_a_folder_of_a_newer_format_is_refused(copied: Path) -> None:
    edit(copied / "trimtab.json", lambda document: document.__setitem__("format", 99))
    with pytest.raises(ModelCorruptError, match=r"format 99.*Upgrade Trimtab"):
        load_predictor(copied)


def test_an_unknown_runtime_is_refused_with_those_that_are_installed(copied: Path) -> None:
    edit(copied / "trimtab.json", lambda document: document.__setitem__("runtime", "lightgmb"))
    with pytest.raises(ModelCorruptError, match=r"No runtime 'lightgmb'.*'lightgbm'"):
        load_predictor(copied)


@pytest.mark.parametrize(
    "content",
    [b"", b"tree\nversion=v4\n", b"tree\n" + b"nonsense\n" * 9 + b"end of trees\n", b"\x80\x04K\x01."],
)
def test_bytes_that_are_no_booster_are_refused(model: Model, content: bytes) -> None:
    from trimtab.models.runtimes.predictor import runtime_of

    with pytest.raises(ModelCorruptError):
        runtime_of(model.specification, content)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelCorruptError, match="is not a model folder"):
        load_predictor(tmp_path)
    with pytest.raises(ModelCorruptError, match="is not a model folder"):
        load_predictor(tmp_path / "absent")


def test_a_pickled_model_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "python_model.pkl").write_bytes(pickle.dumps(Trap()))
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    cloudpickle_version: 3.1.2\n"
        "    loader_module: mlflow.pyfunc.model\n    python_model: python_model.pkl\n"
    )
    with pytest.raises(RefusedError, match=r"unpickling code .*trimtab.Model"):
        load_predictor(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_runtime_can_come_from_another_package(
    tmp_path: Path, model: Model, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constant.py").write_text(
        "import numpy\n"
        "class Constant:\n"
        "    def __init__(self, value): self.value = value\n"
        "    def row(self, values): return self.value\n"
        "    def matrix(self, rows): return numpy.full(len(rows), self.value)\n"
        "def load(content, *, width, threads, options): return Constant(float(content))\n"
    )
    metadata = tmp_path / "constant-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: constant\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[trimtab.runtimes]\nconstant = constant:load\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import msgspec

    from trimtab.models.runtimes.predictor import runtime_of

    specification = msgspec.structs.replace(model.specification, runtime="constant")
    predictor = Predictor(specification, runtime_of(specification, b"0"))
    assert predictor.predict(columns(rows.head(3))).tolist() == [0.0, 0.0, 0.0]
