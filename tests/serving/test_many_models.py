"""Fifty small models on one gateway, each with limits of its own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest
from tests.serving.running_gateway import RunningGateway, until

from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.specification import EXAMPLE_FILE, MLMODEL_FILE, SPECIFICATION_FILE, InputExample
from trimtab.monitoring.outcomes import Outcomes
from trimtab.serving.endpoints import Endpoints
from trimtab.serving.options import Options
from trimtab.serving.routes import single
from trimtab.serving.shipping import ship_all
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

MODELS = 50
CROWDED, UNLOGGED, DISCREET, HASTY = 0, 1, 2, 3
LIMITS = {
    CROWDED: Options(max_in_flight=2, max_wait_ms=200),
    UNLOGGED: Options(log_share=0),
    DISCREET: Options(redact=("a",)),
    HASTY: Options(timeout_ms=1, max_wait_ms=300),
}
MEBIBYTES_EACH = 1
"""What a small model may cost a worker."""


def write_folder(folder: Path, number: int) -> None:
    """Package model `number`: it answers 1000 times that, and a + b."""
    helper, double = onnx.helper, onnx.TensorProto.DOUBLE
    nodes = [
        helper.make_node("ReduceSum", ["rows", "axes"], ["sums"], keepdims=0),
        helper.make_node("Add", ["sums", "own"], ["answer"]),
    ]
    constants = [
        helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1]),
        helper.make_tensor("own", double, [1], [1000.0 * number]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("rows", double, [None, 2])],
        [helper.make_tensor_value_info("answer", double, [None])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    frame = pl.DataFrame({"a": [0.0, 1.0, 2.0], "b": [0.5, 0.5, 0.0]})
    model = Model.onnx(made, inputs(frame), target="y")
    folder.mkdir(parents=True)
    example = InputExample(["a", "b"], [list(row) for row in zip(*model.example.values(), strict=True)])
    (folder / MLMODEL_FILE).write_text("flavors: {}\n")
    (folder / SPECIFICATION_FILE).write_bytes(model.specification.to_json())
    (folder / model.specification.file).write_bytes(model.content)
    (folder / EXAMPLE_FILE).write_bytes(msgspec.json.encode(example))


def name_of(number: int) -> str:
    return f"m{number:02}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    home = tmp_path_factory.mktemp("many")
    for number in range(MODELS):
        write_folder(home / name_of(number), number)
    with Workspace.create(home / "project", actor="tester") as made:
        digests = [made.blobs.put_tree(home / name_of(number)) for number in range(MODELS)]
        endpoints = Endpoints(made)

        def put(tx: Transaction) -> None:
            for number, digest in enumerate(digests):
                name = name_of(number)
                endpoints.create(tx, name, name)
                endpoints.set_route(tx, name, single(name, 1, digest))
                if number in LIMITS:
                    endpoints.set_options(tx, name, LIMITS[number])

        made.write(put)
        yield made


@pytest.fixture(scope="module")
def gateway(workspace: Workspace) -> Iterator[RunningGateway]:
    with RunningGateway(workspace.project) as running:
        yield running.until_ready()


def asked_plainly(client: httpx.Client, number: int) -> httpx.Response:
    return client.post(f"/v1/endpoints/{name_of(number)}/predict", json={"row": {"a": 1, "b": 2}})


def asked_in_tensors(client: httpx.Client, number: int) -> httpx.Response:
    tensor = {"name": "rows", "shape": [300, 2], "datatype": "FP64", "data": [1.0, 2.0] * 300}
    return client.post(f"/v2/models/{name_of(number)}/infer", json={"inputs": [tensor]})


def asked_in_rows(client: httpx.Client, number: int) -> httpx.Response:
    return client.post(f"/v1/models/{name_of(number)}:predict", json={"instances": [[1, 2]] * 3})


ASKING: list[Callable[[httpx.Client, int], httpx.Response]] = [asked_plainly, asked_in_tensors, asked_in_rows]


def answers_of(response: httpx.Response) -> set[float]:
    told: dict[str, Any] = response.json()
    return set(told.get("predictions") or told["outputs"][0]["data"])


def all_ask(clients: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=client) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_each_of_fifty_models_answers_for_itself_while_one_is_overrun(gateway: RunningGateway) -> None:
    calm = [number for number in range(MODELS) if number not in {CROWDED, HASTY}]
    wrong: list[str] = []
    crowd: Counter[int] = Counter()
    done = threading.Event()

    def patient(share: int) -> None:
        with gateway.client() as client:
            for turn in range(3):
                for number in calm[share::3]:
                    answer = ASKING[(turn + number) % 3](client, number)
                    if answer.status_code != 200 or answers_of(answer) != {1000.0 * number + 3}:
                        wrong.append(f"{number}: {answer.status_code} {answer.text:.100}")

    def pushing() -> None:
        with gateway.client() as client:
            while not done.is_set():
                crowd[asked_plainly(client, CROWDED).status_code] += 1

    pushers = [threading.Thread(target=pushing) for _ in range(8)]
    for each in pushers:
        each.start()
    until(lambda: crowd[429] > 0)
    all_ask([lambda share=share: patient(share) for share in range(3)])  # type: ignore[misc]
    done.set()
    for each in pushers:
        each.join()
    assert wrong == []
    assert crowd.keys() == {200, 429}


def test_limits_are_each_endpoints_own(gateway: RunningGateway, workspace: Workspace) -> None:
    with gateway.client() as client:
        until(lambda: asked_plainly(client, CROWDED).status_code == 200)  # what overran it is over
        late = asked_plainly(client, HASTY)
        assert late.status_code == 504, late.text
        for number in (UNLOGGED, DISCREET, MODELS - 1):
            assert answers_of(asked_plainly(client, number)) == {1000.0 * number + 3}
        status = client.get("/v1/status").json()
        assert (len(status["routes"]), status["failures"]) == (MODELS, {})
        rows = status["log"]["predictions"]
        outcomes = Outcomes(workspace)
        until(lambda: sum(outcomes.counts(name_of(number))[0] for number in range(MODELS)) == rows)
    assert outcomes.counts(name_of(UNLOGGED))[0] == 0
    assert outcomes.counts(name_of(MODELS - 1))[0] > 0
    ship_all(workspace)
    discreet = workspace.tables.read(f"predictions/{name_of(DISCREET)}")
    assert discreet["a"].null_count() == discreet.height > 0
    assert discreet["b"].null_count() == 0


def test_a_small_model_costs_a_worker_little_memory(gateway: RunningGateway, tmp_path: Path) -> None:
    write_folder(tmp_path / "one", 1)
    with Workspace.create(tmp_path / "project") as workspace:
        digest = workspace.blobs.put_tree(tmp_path / "one")
        endpoints = Endpoints(workspace)
        workspace.write(lambda tx: endpoints.create(tx, "one", "one"))
        workspace.write(lambda tx: endpoints.set_route(tx, "one", single("one", 1, digest)))
    with RunningGateway(tmp_path / "project") as alone:
        single_model = private(alone.until_ready())
    each = (private(gateway) - single_model) / (MODELS - 1) / 2**20
    print(f"{each:.2f} MiB for each model, beside {single_model / 2**20:.0f} for a worker with one")
    assert each < MEBIBYTES_EACH


def private(gateway: RunningGateway) -> int:
    """What its worker has to itself, in bytes."""
    (worker,) = gateway.children("worker")
    return int(worker.memory_full_info().uss)
