from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import pytest

from trimtab.errors import InvalidInputError
from trimtab.models import gates

ALL: list[gates.AnyGate] = [
    gates.Metric("auc", min=0.7),
    gates.BeatsChampion("rmsle", 0.01, level=0.9),
    gates.Latency(20),
    gates.Signature(),
    gates.SliceMinimum("rmse", "weather", max=3.0),
    gates.Bias(0.3),
    gates.AnswerRatio(0.2, 5.0),
]


def mean_error(labels: object, predictions: object) -> float:
    return 0.0


def test_gates_survive_their_json_form() -> None:
    assert gates.gates_from(msgspec.json.decode(msgspec.json.encode(ALL))) == tuple(ALL)


def test_gates_survive_a_policy_under_names_of_their_own() -> None:
    policy = gates.policy_of(ALL)
    assert gates.gates_of(policy) == tuple(ALL)
    assert policy.names[:2] == ("metric auc", "beats champion rmsle")


def test_two_gates_of_one_name_are_no_policy() -> None:
    with pytest.raises(InvalidInputError, match="names of their own"):
        gates.policy_of([gates.Metric("auc", min=0.7), gates.Metric("auc", max=0.9)])


def test_a_metric_may_be_a_function_and_is_kept_by_its_name() -> None:
    gate = gates.Metric(mean_error, max=1.0)
    assert gate.metric == f"{__name__}:mean_error"
    assert gates.gates_from(msgspec.to_builtins([gate])) == (gate,)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: gates.Metric("auc"),
        lambda: gates.Metric("auc", min=math.nan),
        lambda: gates.Metric("auc", min=2, max=1),
        lambda: gates.Metric(""),
        lambda: gates.Metric(lambda y, p: 0.0, max=1.0),
        lambda: gates.Metric(3, max=1.0),
        lambda: gates.BeatsChampion("auc", level=1.0),
        lambda: gates.BeatsChampion("auc", margin=math.inf),
        lambda: gates.BeatsChampion("bias"),
        lambda: gates.Latency(0),
        lambda: gates.Latency(math.nan),
        lambda: gates.SliceMinimum("auc", "weather", min=0.5, min_rows=0),
        lambda: gates.Bias(-1),
        lambda: gates.AnswerRatio(2.0, 0.5),
        lambda: gates.AnswerRatio(0.5, math.nan),
    ],
)
def test_a_gate_that_makes_no_sense_cannot_be_declared(declare: Callable[[], object]) -> None:
    with pytest.raises(InvalidInputError):
        declare()


@pytest.mark.parametrize(
    "written",
    [
        {"gate": "metric"},
        [{"gate": "nonsense"}],
        [{"gate": "metric", "metric": "auc", "min": 0.5, "maximum": 1}],
        [{"gate": "metric", "metric": "auc", "min": "high"}],
        [{"gate": "latency", "p99_ms": -1}],
    ],
)
def test_gates_that_cannot_be_understood_are_refused(written: object) -> None:
    with pytest.raises(InvalidInputError):
        gates.gates_from(written)
