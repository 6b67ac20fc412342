"""Random sequences of client calls find no difference between Trimtab and MLflow's own server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from mlflow import MlflowClient
from tests.server.mlflow.peers.models_machine import ModelsMachine
from tests.server.mlflow.peers.processes import stock_server, trimtab_server
from tests.server.mlflow.peers.registry_machine import RegistryMachine
from tests.server.mlflow.peers.tracking_machine import TrackingMachine

MACHINES = (TrackingMachine, ModelsMachine, RegistryMachine)

_numbers = itertools.count()


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MlflowClient, MlflowClient]]:
    """Of servers that nobody else uses: the numbers of experiments are compared too."""
    folder = tmp_path_factory.mktemp("random")
    with (
        trimtab_server(folder / "trimtab" / "project") as ours,
        stock_server(folder / "mlflow" / "stock") as theirs,
    ):
        yield MlflowClient(ours, ours), MlflowClient(theirs, theirs)


def run(
    machine: Callable[..., RuleBasedStateMachine], clients: tuple[MlflowClient, MlflowClient], **more: object
) -> None:
    run_state_machine_as_test(
        lambda: machine(*clients, next(_numbers)),  # type: ignore[arg-type]  # it calls what it is given
        settings=settings(
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **more,  # type: ignore[arg-type]
        ),
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_a_few_sequences_find_no_difference(
    clients: tuple[MlflowClient, MlflowClient], machine: Callable[..., RuleBasedStateMachine]
) -> None:
    run(
        machine,
        clients,
        max_examples=8,
        stateful_step_count=50,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", MACHINES)
def test_thousands_of_steps_find_no_difference(
    clients: tuple[MlflowClient, MlflowClient], machine: Callable[..., RuleBasedStateMachine]
) -> None:
    run(machine, clients, max_examples=150, stateful_step_count=60)
