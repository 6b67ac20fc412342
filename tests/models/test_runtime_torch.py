"""Programs of PyTorch: as ONNX models where those answer alike, and else in processes of their own."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import psutil
import pytest
from tests.house.repository import run_python

from trimtab.digest import digest_bytes
from trimtab.errors import InvalidInputError, ModelCorruptError, RefusedError, TrimtabError
from trimtab.models.candidate_loading import load_candidate
from trimtab.models.confined.confinement import Confinement
from trimtab.models.confined.messages import ModelRaisedError
from trimtab.models.confined.predictor import ConfinedProgram, check_servable, load_servable, needs_process
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.runtimes.predictor import Predictor, load_predictor
from trimtab.models.serving_notes import how_served
from trimtab.models.specification import SPECIFICATION_FILE, read_specification
from trimtab.workspace import Workspace

torch: Any = pytest.importorskip(
    "torch", reason="the extra torch is not installed (PyTorch's build for CPUs)"
)
pytest.importorskip("onnxscript", reason="the extra torch is not installed")

RANDOM = np.random.default_rng(7)
ROWS = pl.DataFrame({name: RANDOM.normal(size=300) for name in "abc"}).with_columns(
    season=pl.Series(RANDOM.choice(["winter", "spring", "summer"], 300))
)
DECLARED = inputs(ROWS)
MATRIX = DECLARED.matrix(ROWS)
FREE = ({0: torch.export.Dim("rows")},)
ALLOWED = Confinement(("odd",), timeout_ms=60_000)


class Network(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read
    """With what networks on tables have: embedded categories, normalization and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.season = torch.nn.Embedding(3, 4)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(7, 16),
            torch.nn.BatchNorm1d(16),
            torch.nn.SiLU(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(16, 1),
        )

    def forward(self, rows: Any) -> Any:
        season = self.season(rows[:, 3].long())
        return self.layers(torch.cat([rows[:, :3], season.to(rows.dtype)], dim=1))


class Odd(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read
    """With a function that ONNX has not, and one that fails for some rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.out = torch.nn.Linear(4, 1)

    def forward(self, rows: Any) -> Any:
        return self.out(torch.special.bessel_j0(rows))[:, 0]


class Picky(Odd):
    def forward(self, rows: Any) -> Any:
        first = torch.nn.functional.embedding((rows[:, 0] > 100).long(), self.out.weight[:, :1])
        return super().forward(rows) + first[:, 0]


def plain(*layers: Any) -> Any:
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 1))


def exported(module: Any, *, dtype: Any = torch.float32, shapes: Any = FREE) -> Any:
    return torch.export.export(module, (torch.zeros(5, 4, dtype=dtype),), dynamic_shapes=shapes)


def saved(program: Any) -> bytes:
    place = io.BytesIO()
    torch.export.save(program, place)
    return place.getvalue()


def said(module: Any, type_: Any = torch.float32) -> Any:
    with torch.no_grad():
        return module(torch.tensor(MATRIX, dtype=type_)).reshape(-1).double().numpy()


@pytest.fixture(scope="module")
def odd_model() -> Model:
    return Model.torch(Odd(), DECLARED, target="y", rows=ROWS)


@pytest.fixture(scope="module")
def odd(odd_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd") / "model"
    odd_model.save(folder)
    return folder


@pytest.fixture(scope="module")
def apart(odd: Path) -> Iterator[ConfinedProgram]:
    with load_servable(odd, model="odd", confinement=ALLOWED) as predictor:
        assert isinstance(predictor, ConfinedProgram)
        yield predictor


@pytest.mark.parametrize(("type_", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_a_network_is_served_by_onnx_runtime_as_exactly_as_its_precision(
    type_: Any, tolerance: float
) -> None:
    network = Network().to(type_)
    model = Model.torch(network, DECLARED, target="y", rows=ROWS)
    options = model.specification.options
    assert model.specification.runtime == "onnx"
    assert model.specification.tolerance == tolerance
    assert options["converted_from"].startswith("ExportedProgram (torch ")
    assert int(options["checked_rows"]) > ROWS.height
    assert float(options["largest_difference"]) <= tolerance
    np.testing.assert_allclose(
        model.predict(ROWS), said(network.eval(), type_), rtol=tolerance, atol=tolerance
    )


def test_serving_a_converted_one_loads_no_pytorch(tmp_path: Path) -> None:
    Model.torch(Network(), DECLARED, target="y").save(tmp_path / "model")
    code = f"""
import sys
from trimtab.models.confined.predictor import load_servable
load_servable({str(tmp_path / "model")!r}, model="any")
print(sorted({{"torch", "onnx", "onnxscript", "sympy"}} & set(sys.modules)))
"""
    assert run_python(code).stdout.strip() == "[]"


def test_a_program_its_bytes_its_file_and_its_module_make_equal_models(tmp_path: Path) -> None:
    module = plain(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
    program = exported(module)
    (tmp_path / "program.pt2").write_bytes(saved(program))
    sources = [module, program, saved(program), tmp_path / "program.pt2", str(tmp_path / "program.pt2")]
    models = [Model.torch(source, DECLARED, target="y", rows=ROWS) for source in sources]
    assert len({model.specification.file_digest for model in models}) == 1
    np.testing.assert_allclose(models[0].predict(ROWS), said(module), rtol=1e-5, atol=1e-5)


def test_a_module_in_training_is_exported_for_evaluation_and_left_as_it_was() -> None:
    network = Network()
    network.layers[1].eval()  # one part of it is not trained
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    model = Model.torch(network, DECLARED, target="y")
    assert network.training
    assert network.layers[3].training
    assert not network.layers[1].training
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
    np.testing.assert_allclose(model.predict(ROWS), said(network.eval()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [None, ({0: torch.export.Dim("rows", max=64)},), ({0: torch.export.Dim("rows", min=4)},)],
    ids=["fixed", "bounded above", "bounded below"],
)
def test_a_program_for_certain_numbers_of_rows_is_refused_and_told_how_to_export(shapes: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"The program takes .*rows") as caught:
        Model.torch(exported(plain(), shapes=shapes), DECLARED, target="y")
    assert "dynamic_shapes=({0: torch.export.Dim('rows')},)" in caught.value.hint


def test_a_dimension_that_pytorch_found_to_be_free_is_free() -> None:
    program = exported(plain(), shapes=({0: torch.export.Dim.AUTO},))
    assert Model.torch(program, DECLARED, target="y").predict(ROWS.head(1)).shape == (1,)


class Two(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read
    def forward(self, first: Any, second: Any) -> Any:
        return first[:, 0] + second[:, 0]


class Pair(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read
    def forward(self, rows: Any) -> Any:
        return rows[:, 0], rows[:, 1]


class Mean(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read
    def forward(self, rows: Any) -> Any:
        return rows[:, 0] - rows[:, 0].mean()


ROW_AND_ROW = (torch.zeros(5, 4), torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: torch.nn.Linear(4, 2), r"float32 of shape \(\d+, 2\), and one number for each"),
        (Pair, "gives a tuple"),
        (Mean, "one row at a time"),
        (lambda: torch.nn.Linear(3, 1), "cannot be exported"),
        (lambda: torch.export.export(Two(), ROW_AND_ROW, dynamic_shapes=FREE * 2), "and one matrix"),
        (lambda: exported(Pair(), dtype=torch.int64), "takes int64 of shape"),
        (lambda: exported(torch.nn.Dropout(0.5)), "asked again|of shape"),
        (lambda: exported(plain(torch.nn.Dropout(0.5)).train()), "asked again"),
        (lambda: exported(plain(torch.nn.BatchNorm1d(4)).train()), "one row at a time"),
        (lambda: b"no such file", "cannot read the program"),
        (lambda: 7, "int is no program"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_with_the_reason(given: Any, message: str) -> None:
    with pytest.raises(TrimtabError, match=message) as caught:
        Model.torch(given(), DECLARED, target="y")
    assert caught.value.hint


def test_a_program_for_other_columns_is_refused() -> None:
    program = torch.export.export(torch.nn.Linear(3, 1), (torch.zeros(5, 3),), dynamic_shapes=FREE)
    with pytest.raises(InvalidInputError, match="takes 3 columns and its inputs declare 4"):
        Model.torch(program, DECLARED, target="y")


def test_a_category_that_the_embedding_has_not_is_refused_before_the_model() -> None:
    model = Model.torch(Network(), DECLARED, target="y")
    assert [column.closed for column in model.signature.columns] == [False, False, False, True]
    with pytest.raises(InvalidInputError, match="season"):
        model.predict(ROWS.head(3).with_columns(season=pl.lit("autumn")))


def test_a_value_that_may_be_missing_and_makes_it_fail_is_told_when_it_is_packaged() -> None:
    with pytest.raises(InvalidInputError, match="The column 'season' may be missing"):
        Model.torch(Network(), inputs(ROWS, nullable=["season"]), target="y")


def test_what_onnx_has_not_is_kept_and_says_why(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = Model.torch(Odd(), DECLARED, target="y", rows=ROWS)
    assert model.specification.runtime == "torch"
    assert "bessel_j0" in model.specification.options["not_converted"]
    assert "bessel_j0" in caplog.text
    assert "confined_models" in caplog.text
    model.save(tmp_path / "model")
    assert "torch==" in (tmp_path / "model" / "requirements.txt").read_text()
    assert "+cpu" not in (tmp_path / "model" / "requirements.txt").read_text()
    told = how_served(workspace, workspace.blobs.put_tree(tmp_path / "model"))
    assert told.startswith("by PyTorch in a process of its own, if allowed; not converted to ONNX: ")


def test_a_conversion_that_differs_is_not_served() -> None:
    model = Model.torch(plain(torch.nn.GELU()), DECLARED, target="y", rows=ROWS, tolerance=1e-8)
    assert model.specification.runtime == "torch"
    assert "a relative difference of" in model.specification.options["not_converted"]


def test_it_says_nothing_of_its_makers_code_and_rows(odd_model: Model) -> None:
    rows = (torch.full((5, 4), 123.456),)
    program = torch.export.export(Odd(), rows, dynamic_shapes=FREE)
    assert Path(__file__).name.encode() in saved(program)
    assert np.float32(123.456).tobytes() in saved(program)
    kept = Model.torch(program, DECLARED, target="y", rows=ROWS)
    assert kept.specification.file_digest == odd_model.specification.file_digest
    converted = Model.torch(plain(), DECLARED, target="y")
    for content in (kept.content, converted.content):
        assert Path(__file__).name.encode() not in content
        assert np.float32(123.456).tobytes() not in content
    assert program.example_inputs == ((rows[0],), {})
    assert any("stack_trace" in node.meta for node in program.graph.nodes)


def test_a_kept_one_is_refused_unless_it_is_named(odd: Path) -> None:
    for confinement in (Confinement(), Confinement(("other",))):
        with pytest.raises(RefusedError, match="may run code") as caught:
            load_servable(odd, model="odd", confinement=confinement)
        assert "confined_models" in caught.value.hint
        with pytest.raises(RefusedError):
            check_servable(odd, model="odd", confinement=confinement)
    with pytest.raises(RefusedError):
        load_predictor(odd)
    assert needs_process(odd)
    check_servable(odd, model="odd", confinement=ALLOWED)


def test_it_is_answered_from_its_process_as_pytorch_answers(apart: ConfinedProgram) -> None:
    request = ROWS.to_dict(as_series=False)
    expected = said(Odd())
    np.testing.assert_allclose(apart.predict(request), expected, rtol=1e-6, atol=1e-6)
    for place in range(3):
        one = {name: values[place : place + 1] for name, values in request.items()}
        assert apart.predict(one)[0] == pytest.approx(expected[place], abs=1e-6)
    assert apart.predict({name: [] for name in request}).shape == (0,)
    assert apart.blocking
    assert apart.example.keys() == request.keys()
    with pytest.raises(InvalidInputError, match="The column 'a'"):
        apart.predict({**request, "a": ["x"] * 300})


def test_the_process_has_no_more_threads_than_it_was_given(odd: Path) -> None:
    counts = []
    for threads in (1, 3):
        with load_servable(odd, model="odd", confinement=ALLOWED, threads=threads) as predictor:
            assert isinstance(predictor, ConfinedProgram)
            predictor.scores(np.tile(MATRIX, (2_000, 1)))
            counts.append(psutil.Process(predictor.pid).num_threads())
    assert counts[0] == 2, "one that works and one that looks after the lifeline"
    assert 2 < counts[1] <= 4


def test_a_program_that_raises_fails_the_call_and_lives_on(tmp_path: Path) -> None:
    Model.torch(Picky(), DECLARED, target="y").save(tmp_path / "model")
    with load_servable(tmp_path / "model", model="odd", confinement=ALLOWED) as predictor:
        assert isinstance(predictor, ConfinedProgram)
        pid = predictor.pid
        with pytest.raises(ModelRaisedError, match="index out of range"):
            predictor.scores(np.full((2, 4), 200.0))
        assert predictor.scores(MATRIX).shape == (300,)
        assert predictor.pid == pid


class Evil:
    """What a pickle may do."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"import os; open({str(self.file)!r}, 'w').write(str(os.getpid()))",)


def hostile(folder: Path, to: Path, mark: Path) -> Path:
    """The model, with a pickle among its weights: its digest is right, as whoever made it would make it."""
    shutil.copytree(folder, to)
    specification = read_specification(to)
    made = io.BytesIO()
    with zipfile.ZipFile(to / specification.file) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("weights_config.json"):
                weights = json.loads(data)
                for weight in weights["config"].values():
                    weight["use_pickle"] = True
                data = json.dumps(weights).encode()
            elif "/weights/weight_" in name:
                data = pickle.dumps(Evil(mark))
            new.writestr(name, data)
    (to / specification.file).write_bytes(made.getvalue())
    changed = msgspec.structs.replace(specification, file_digest=digest_bytes(made.getvalue()))
    (to / SPECIFICATION_FILE).write_bytes(changed.to_json())
    return to


def test_a_pickle_in_an_archive_runs_in_no_process_but_its_own(odd: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    folder = hostile(odd, tmp_path / "model", mark)
    with pytest.raises(RefusedError):
        load_predictor(folder)
    with pytest.raises(RefusedError):
        load_servable(folder, model="odd")
    check_servable(folder, model="odd", confinement=ALLOWED)
    model = Model.load(folder)
    model.save(tmp_path / "copy")
    assert pickle.loads(pickle.dumps(model)).specification == model.specification
    assert not mark.exists(), "reading a model's folder ran its code"
    with pytest.raises(ModelCorruptError, match="cannot read the program"):
        load_servable(folder, model="odd", confinement=ALLOWED)
    assert int(mark.read_text()) != os.getpid(), "the gateway ran a model's code"


def test_a_damaged_archive_is_no_model(odd: Path, tmp_path: Path) -> None:
    shutil.copytree(odd, tmp_path / "model")
    file = tmp_path / "model" / "model.pt2"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelCorruptError, match="was changed after packaging"):
        load_servable(tmp_path / "model", model="odd", confinement=ALLOWED)


def test_steps_gates_and_mlflow_open_a_kept_one(odd: Path, odd_model: Model) -> None:
    expected = odd_model.predict(ROWS)
    again = Model.load(odd)
    assert again.specification == odd_model.specification
    np.testing.assert_array_equal(again.predict(ROWS), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(odd_model)).predict(ROWS), expected)
    candidate = load_candidate(odd)
    np.testing.assert_array_equal(candidate.answers(ROWS), expected)
    candidate.close()
    pytest.importorskip("pandas", reason="the extra pyfunc is not installed")
    from trimtab.models.pyfunc import _load_pyfunc

    np.testing.assert_array_equal(_load_pyfunc(str(odd)).predict(ROWS.to_pandas()), expected)


def test_a_kept_one_has_an_output_and_bounds_too(odd: Path, tmp_path: Path) -> None:
    model = Model.torch(Odd(), DECLARED, target="y", output="sigmoid", clip=(0.4, None))
    model.save(tmp_path / "model")
    with load_servable(tmp_path / "model", model="odd", confinement=ALLOWED) as predictor:
        assert isinstance(predictor, Predictor)
        expected = np.maximum(1 / (1 + np.exp(-said(Odd()))), 0.4)
        np.testing.assert_allclose(predictor.predict(ROWS.to_dict(as_series=False)), expected, rtol=1e-6)
