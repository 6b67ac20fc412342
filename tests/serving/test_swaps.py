"""A model that changes under load: nobody is refused, and each answer is wholly of the version it names."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serving.conftest import ENDPOINT, Served
from tests.serving.running_gateway import RunningGateway, until
from tests.serving.test_open_inference import tensors
from tests.serving.tiny_models import ROW

from trimtab.models.runtimes.predictor import load_predictor
from trimtab.serving.routes import Arm, Route, single

SWAPS = [2, 1, 3] * 4
ROWS = 500
"""So many that they are scored in a thread, while routes change."""

Asking = Callable[[httpx.Client], tuple[set[str], set[float], int]]


def _plain(client: httpx.Client) -> tuple[set[str], set[float], int]:
    told = _json(client.post(f"/v1/endpoints/{ENDPOINT}/predict", json={"row": ROW}))
    return {told["version"]}, set(told["predictions"]), len(told["predictions"])


def _many(client: httpx.Client) -> tuple[set[str], set[float], int]:
    told = _json(client.post(f"/v1/endpoints/{ENDPOINT}/predict", json={"rows": [ROW] * ROWS}))
    return {told["version"]}, set(told["predictions"]), len(told["predictions"])


def _tensors(client: httpx.Client) -> tuple[set[str], set[float], int]:
    request = tensors(2)
    for tensor in request["inputs"]:
        tensor["data"] = [ROW[tensor["name"]]] * 2
    told = _json(client.post(f"/v2/models/{ENDPOINT}/infer", json=request))
    (output,) = told["outputs"]
    return {told["model_version"]}, set(output["data"]), len(output["data"])


def _invoked(client: httpx.Client) -> tuple[set[str], set[float], int]:
    answer = client.post("/invocations", json={"dataframe_records": [ROW] * 3})
    predictions = _json(answer)["predictions"]
    return {answer.headers["trimtab-model-version"]}, set(predictions), len(predictions)


def _json(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


SIZES: list[tuple[Asking, int]] = [(_plain, 1), (_many, ROWS), (_tensors, 2), (_invoked, 3)]


class Crowd:
    """A client of each kind that asks without pause, and what was wrong with the answers."""

    def __init__(self, gateway: RunningGateway, expected: dict[str, float]) -> None:
        self.wrong: list[str] = []
        self.seen: set[str] = set()
        self.answers = 0
        self._gateway = gateway
        self._expected = expected
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=each) for each in SIZES]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, ask: Asking, rows: int) -> None:
        with self._gateway.client() as client:
            while not self._stop.is_set():
                try:
                    versions, predictions, count = ask(client)
                except (AssertionError, httpx.HTTPError) as error:
                    self.wrong.append(repr(error))
                    continue
                (version,) = versions
                if count != rows or predictions != {self._expected[version]}:
                    self.wrong.append(f"version {version}: {count} of {predictions}")
                self.seen.add(version)
                self.answers += 1


@pytest.fixture
def expected(model_folders: dict[int, Path]) -> dict[str, float]:
    """What each version says to the row, by its number."""
    columns = {name: [value] for name, value in ROW.items()}
    return {
        str(version): float(load_predictor(folder).predict(_with_leak(version, columns))[0])
        for version, folder in model_folders.items()
    }


def _with_leak(version: int, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**columns, "leak": [None]} if version == 3 else columns


@pytest.fixture
def running(served: Served) -> Iterator[RunningGateway]:
    with RunningGateway(served.project) as gateway:
        yield gateway.until_ready()
        assert "Traceback" not in gateway.output()


def test_every_answer_under_swaps_is_wholly_of_the_version_it_names(
    served: Served, running: RunningGateway, expected: dict[str, float]
) -> None:
    with Crowd(running, expected) as crowd, running.client() as client:
        for version in SWAPS:
            generation = served.single(version)
            until(lambda g=generation: _generation(client) == g)  # type: ignore[misc]
            before = crowd.answers
            until(lambda b=before: crowd.answers > b + len(SIZES))  # type: ignore[misc]
    assert crowd.wrong == []
    assert crowd.seen == {"1", "2", "3"}


def _generation(client: httpx.Client) -> int:
    found: int = client.get("/v1/status").json()["routes"][ENDPOINT]
    return found


@pytest.mark.parametrize("damage", ["cut", "changed", "no model"])
def test_a_model_that_cannot_be_loaded_whole_answers_nothing(
    served: Served,
    running: RunningGateway,
    expected: dict[str, float],
    model_folders: dict[int, Path],
    tmp_path: Path,
    damage: str,
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(model_folders[2], folder)
    (file,) = (each for each in folder.iterdir() if each.suffix == ".txt")
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        file.write_bytes(content.replace(b"leaf_value=", b"leaf_value=9", 1))
    else:
        file.unlink()
    digest = served.workspace.blobs.put_tree(folder)
    with Crowd(running, expected) as crowd, running.client() as client:
        served.route(Route(model="rides-model", arms=(Arm(2, digest),)))
        until(lambda: ENDPOINT in client.get("/v1/status").json()["failures"])
        before = crowd.answers
        until(lambda: crowd.answers > before + 20)
        assert crowd.seen == {"1"}
        served.route(single("rides-model", 2, served.digests[2]))
        until(lambda: "2" in crowd.seen)
    assert crowd.wrong == []
