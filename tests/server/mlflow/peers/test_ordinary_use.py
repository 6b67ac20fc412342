"""A script of ordinary MLflow use gives the same answers against Trimtab as against MLflow's own server."""

from __future__ import annotations

import sys

import pytest
from tests.server.mlflow.peers.told import Told, both, differences


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Told, Told]:
    return both(sys.executable, tmp_path_factory.mktemp("told"))


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
