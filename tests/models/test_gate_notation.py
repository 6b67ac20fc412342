from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab.data.window import Window
from trimtab.errors import InvalidInputError
from trimtab.models import gates
from trimtab.models.gate_notation import gate_file, gate_of


@pytest.mark.parametrize(
    ("line", "gate"),
    [
        ("metric rmse max=10", gates.Metric("rmse", max=10)),
        ("metric auc min=0.7 max=1", gates.Metric("auc", min=0.7, max=1)),
        ("metric metric=rmse max=1e-3", gates.Metric("rmse", max=0.001)),
        ("beats_champion rmse", gates.BeatsChampion("rmse")),
        ("beats-champion rmse margin=-0.1 level=0.9", gates.BeatsChampion("rmse", margin=-0.1, level=0.9)),
        ("latency p99_ms=20", gates.Latency(20)),
        ("latency p99-ms=2.5", gates.Latency(2.5)),
        ("signature", gates.Signature()),
        (
            "slice_minimum rmse 'column=home city' max=5 min_rows=10",
            gates.SliceMinimum("rmse", "home city", max=5, min_rows=10),
        ),
        ("bias max_abs=0.1 log=false", gates.Bias(0.1, log=False)),
        ("answer_ratio low=0.8 high=1.25", gates.AnswerRatio(0.8, 1.25)),
    ],
)
def test_a_line_declares_a_gate(line: str, gate: gates.AnyGate) -> None:
    assert gate_of(line) == gate


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "blank"),
        ("metrik rmse max=1", "Did you mean 'metric'"),
        ("metric rmse", "no bound"),
        ("metric rmse max=low", "fields are: metric, min, max"),
        ("metric rmse maximum=3", "maximum"),
        ("metric rmse max=3 max=4", "twice"),
        ("metric rmse 3", "'3', and no name"),
        ("latency 20", "'20', and no name"),
        ("latency p99_ms=-1", "above 0"),
        ("metric 'rmse max=1", "cannot be read"),
        ("signature x=1", "fields are: none"),
    ],
)
def test_a_line_that_declares_none_is_told(line: str, told: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        gate_of(line)
    assert told in str(refused.value)


def test_a_file_declares_gates_and_rows(tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_text(
        'dataset = "holdout"\ntarget = "y"\nwindow = {days = 30}\n\n'
        'gates = [\n  "latency p99_ms=20",\n  {gate = "metric", metric = "rmse", max = 10},\n]\n'
    )
    read = gate_file(tmp_path / "gates.toml")
    assert read.gates == (gates.Latency(20), gates.Metric("rmse", max=10))
    assert (read.dataset, read.target, read.window) == ("holdout", "y", Window(days=30))
    (tmp_path / "gates.json").write_text(json.dumps([{"gate": "signature"}, "metric rmse max=10"]))
    assert gate_file(tmp_path / "gates.json").gates == (gates.Signature(), gates.Metric("rmse", max=10))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gates.yaml", "", "neither in .toml nor in .json"),
        ("gates.toml", "gates = [", "cannot be read"),
        ("gates.json", "{", "cannot be read"),
        ("gates.json", "5", "cannot be understood"),
        ("gates.json", '{"gates": 5}', "cannot be understood"),
        ("gates.json", '{"gatse": []}', "gatse"),
        ("gates.json", '[{"gate": "metric", "metric": "rmse"}]', "no bound"),
        ("gates.json", '[{"metric": "rmse"}]', "cannot be understood"),
        ("gates.json", '["latency"]', "fields are: p99_ms"),
        ("gates.toml", "gates = [5]", "cannot be understood"),
    ],
)
def test_a_file_that_declares_none_is_told(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInputError) as refused:
        gate_file(tmp_path / name)
    assert told in str(refused.value)
