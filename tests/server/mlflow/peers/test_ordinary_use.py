"""A script of ordinary MLflow use gives the same answers against Trimtab as against MLflow's own server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.server.mlflow.peers.told import Told, differences, ordinary_use


@pytest.fixture(scope="module")
def told(ours: str, theirs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, Told]]:
    folder: Path = tmp_path_factory.mktemp("told")
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ordinary_use, sys.executable, ours, folder / "ours")
        second = threads.submit(ordinary_use, sys.executable, theirs, folder / "theirs")
        yield first.result(), second.result()


def test_every_step_gets_the_same_answer(told: tuple[Told, Told]) -> None:
    assert differences(*told) == []
    assert len(told[0].answers) > 150


def test_the_client_asks_both_servers_for_the_same(told: tuple[Told, Told]) -> None:
    ours, theirs = (each.asked() for each in told)
    assert ours - theirs == {}
    assert theirs - ours == {}


def test_a_client_that_logs_meets_no_unknown_endpoint(told: tuple[Told, Told]) -> None:
    assert told[0].unknown_endpoints() == []
    assert told[0].failures() == []
