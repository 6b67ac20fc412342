"""KServe's clients and MLServer's codecs, unchanged, each in a virtual environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving.conftest import Served
from tests.serving.number_models import WIDTH, serve_numbers
from tests.serving.running_gateway import RunningGateway
from tests.serving.test_grpc import address, start

PEERS = Path(__file__).parent / "peers"
WANTED = {
    "kserve": ["kserve>=0.15,<1"],
    "mlserver": ["mlserver>=1.7,<2", "uvloop<0.22", "pandas<3"],
}

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def python_with(peer: str) -> str:
    """The Python of an environment that holds a peer, made once in the user's cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "trimtab" / "peers" / f"client-{peer}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *WANTED[peer]], check=True)
    return str(python)


def told(peer: str, script: str, *arguments: str) -> Any:
    """What a script prints last, run by the peer's Python."""
    command = [python_with(peer), str(PEERS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def gateway(shared: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    serve_numbers(shared.workspace, tmp_path_factory.mktemp("numbers") / "model")
    with start(shared) as running:
        yield running.until_ready()


def predictions(gateway: RunningGateway, endpoint: str, **columns: list[Any]) -> list[float]:
    with gateway.client() as client:
        answer = client.post(f"/v1/endpoints/{endpoint}/predict", json={"columns": columns}).json()
    found: list[float] = answer["predictions"]
    return found


RIDES: dict[str, list[Any]] = {"x": [1.0, 9.0], "season": ["winter", "summer"], "holiday": [False, True]}


def test_kserves_clients_get_the_same_answers_over_rest_and_grpc(gateway: RunningGateway) -> None:
    found = told("kserve", "kserve_client.py", gateway.url, address(gateway))
    assert found == [predictions(gateway, "rides", **RIDES)] * 11


def test_mlservers_codecs_write_requests_and_read_answers(gateway: RunningGateway) -> None:
    rides, numbers = told("mlserver", "mlserver_codecs.py", gateway.url)
    assert rides == [predictions(gateway, "rides", **RIDES)] * 4
    step = 2.0 / (3 * WIDTH - 1)
    columns = {
        f"c{place}": [-1.0 + step * (row * WIDTH + place) for row in range(3)] for place in range(WIDTH)
    }
    assert numbers == [predictions(gateway, "numbers", **columns)] * 2
