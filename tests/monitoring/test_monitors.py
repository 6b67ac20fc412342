"""Monitors are declarations: they refuse nonsense, travel as JSON, and have names of their own."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from trimtab.errors import InvalidInputError
from trimtab.monitoring.monitors import (
    Bias,
    Drift,
    Monitor,
    Performance,
    ServiceLevel,
    kind_of,
    name_of,
    runs_user_code,
)

DECLARED: list[Monitor] = [
    Drift(),
    Drift(effect=0.2, features=("temp", "hum"), days=14, min_rows=50),
    Performance("rmsle", max=0.6),
    Performance("auc", drop=0.03),
    Bias(max_abs=0.1, log=True),
    ServiceLevel(error_rate=0.01, p99_ms=20),
]


@pytest.mark.parametrize("monitor", DECLARED, ids=name_of)
def test_a_monitor_travels_as_json(monitor: Monitor) -> None:
    assert msgspec.json.decode(msgspec.json.encode(monitor), type=Monitor) == monitor


@pytest.mark.parametrize(
    "make",
    [
        lambda: Drift(effect=0.0),
        lambda: Drift(days=0),
        lambda: Drift(min_rows=0),
        lambda: Performance("rmsle"),
        lambda: Performance("rmsle", max=1.0, days=float("nan")),
        lambda: Performance(lambda labels, answers: 0.0, max=1.0),
        lambda: Bias(max_abs=0.0),
        lambda: Bias(max_abs=float("inf")),
        lambda: ServiceLevel(),
    ],
)
def test_nonsense_is_refused_where_it_is_written(make: Callable[[], Monitor]) -> None:
    with pytest.raises(InvalidInputError):
        make()


def worst_miss(labels: np.ndarray, answers: np.ndarray) -> float:
    return float(np.max(np.abs(labels - answers)))


def test_a_users_metric_travels_by_reference_and_is_known_to_be_user_code() -> None:
    monitor = Performance(worst_miss, max=3.0)
    assert monitor.metric == f"{__name__}:worst_miss"
    assert runs_user_code(monitor)
    assert not runs_user_code(Performance("rmsle", max=0.6))
    assert not runs_user_code(Drift())


def test_names_and_kinds_tell_monitors_apart() -> None:
    assert [kind_of(monitor) for monitor in DECLARED[1:]] == [
        "drift",
        "performance",
        "performance",
        "bias",
        "service_level",
    ]
    assert len({name_of(monitor) for monitor in DECLARED[1:]}) == 5
