"""The Open Inference Protocol over REST, driven by NVIDIA's own client, unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tests.serving.conftest import Served
from tests.serving.running_gateway import RunningGateway
from tests.serving.tiny_models import version_of
from tritonclient.utils import InferenceServerException

MODEL = "rides"
FIRST = {"x": 1.0, "season": b"winter", "holiday": False}


def columns(rows: int) -> dict[str, NDArray[Any]]:
    return {
        "x": np.linspace(0.0, 10.0, rows),
        "season": np.array([b"winter", b"summer"] * rows, dtype=np.object_)[:rows],
        "holiday": np.arange(rows) % 2 == 0,
    }


def inputs(values: dict[str, NDArray[Any]], *, binary: bool | dict[str, bool]) -> list[triton.InferInput]:
    made = []
    for name, column in values.items():
        datatype = {"x": "FP64", "season": "BYTES", "holiday": "BOOL"}[name]
        tensor = triton.InferInput(name, list(column.shape), datatype)
        tensor.set_data_from_numpy(column, binary_data=binary if isinstance(binary, bool) else binary[name])
        made.append(tensor)
    return made


@pytest.fixture
def caller(gateway: RunningGateway) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
        yield client


def test_it_finds_the_server_alive_and_the_model_ready(caller: triton.InferenceServerClient) -> None:
    assert caller.is_server_live()
    assert caller.is_server_ready()
    assert caller.is_model_ready(MODEL)
    assert caller.is_model_ready(MODEL, "1")
    assert not caller.is_model_ready("nothing")
    assert not caller.is_model_ready(MODEL, "7")


def test_it_reads_what_the_server_and_the_model_are(caller: triton.InferenceServerClient) -> None:
    assert {"binary_tensor_data", "model_repository"} <= set(caller.get_server_metadata()["extensions"])
    found = caller.get_model_metadata(MODEL, "1")
    assert [tensor["name"] for tensor in found["inputs"]] == ["x", "season", "holiday"]
    config = caller.get_model_config(MODEL)
    assert [tensor["data_type"] for tensor in config["input"]] == ["TYPE_FP64", "TYPE_STRING", "TYPE_BOOL"]
    assert config["output"] == [{"name": "prediction", "data_type": "TYPE_FP64", "dims": [-1]}]


@pytest.mark.parametrize("rows", [1, 2, 300])
@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
def test_json_and_bytes_packed_and_mixed_give_the_same_answers(
    caller: triton.InferenceServerClient, rows: int, packing: str | None
) -> None:
    ways: list[bool | dict[str, bool]] = [True, False, {"x": True, "season": False, "holiday": True}]
    answers = []
    for way in ways:
        for binary_output in (True, False, None):
            outputs = None
            if binary_output is not None:
                outputs = [triton.InferRequestedOutput("prediction", binary_data=binary_output)]
            found = caller.infer(
                MODEL,
                inputs(columns(rows), binary=way),
                request_id="mine",
                outputs=outputs,
                request_compression_algorithm=packing,
                response_compression_algorithm=packing,
            )
            assert found.get_response()["id"] == "mine"
            assert ("data" in found.get_output("prediction")) is (binary_output is False)
            answers.append(found.as_numpy("prediction"))
    assert all(answer.dtype == np.float64 and answer.shape == (rows,) for answer in answers)
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    assert {version_of(value) for value in answers[0]} == {1}


def test_a_column_may_be_a_matrix_of_one_column(caller: triton.InferenceServerClient) -> None:
    shaped = {name: column.reshape(-1, 1) for name, column in columns(5).items()}
    flat = caller.infer(MODEL, inputs(columns(5), binary=True)).as_numpy("prediction")
    for binary in (True, False):
        found = caller.infer(MODEL, inputs(shaped, binary=binary)).as_numpy("prediction")
        assert np.array_equal(found, flat)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "INT8", "UINT16", "INT64", "UINT64"])
def test_a_number_may_come_in_any_datatype_that_holds_it(
    caller: triton.InferenceServerClient, datatype: str
) -> None:
    values = columns(3)
    values["x"] = np.array([1.0, 2.0, 3.0])
    expected = caller.infer(MODEL, inputs(values, binary=True)).as_numpy("prediction")
    others = inputs({name: values[name] for name in ("season", "holiday")}, binary=True)
    x = triton.InferInput("x", [3], datatype)
    x.set_data_from_numpy(values["x"].astype(_NUMPY[datatype]))
    assert np.array_equal(caller.infer(MODEL, [x, *others]).as_numpy("prediction"), expected)


_NUMPY: dict[str, Any] = {
    "FP16": np.float16, "FP32": np.float32, "INT8": np.int8, "UINT16": np.uint16, "INT64": np.int64,
    "UINT64": np.uint64,
}  # fmt: skip


def test_several_calls_at_once_get_their_own_answers(gateway: RunningGateway) -> None:
    with triton.InferenceServerClient(gateway.url.removeprefix("http://"), concurrency=4) as client:
        asked = [client.async_infer(MODEL, inputs(columns(rows), binary=True)) for rows in range(1, 9)]
        sizes = [call.get_result().as_numpy("prediction").shape for call in asked]
    assert sizes == [(rows,) for rows in range(1, 9)]


def test_the_client_for_event_loops_is_answered_too(gateway: RunningGateway) -> None:
    async def ask() -> list[float]:
        async with triton_aio.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
            found = await client.infer(
                MODEL, inputs(columns(300), binary=True), response_compression_algorithm="gzip"
            )
            told: list[float] = found.as_numpy("prediction").tolist()
            return told

    assert len(asyncio.run(ask())) == 300


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("x", np.array([np.inf]), "inf"),
        ("x", np.array([np.nan]), "missing"),
        ("season", np.array([b"\xff\xfe"], dtype=np.object_), "UTF-8"),
    ],
)
def test_values_that_are_none_are_refused_as_in_json(
    caller: triton.InferenceServerClient, name: str, value: NDArray[Any], words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        caller.infer(MODEL, inputs({**columns(1), name: value}, binary=True))
    assert caught.value.status() == "422"


def test_what_is_not_served_is_refused_clearly(caller: triton.InferenceServerClient) -> None:
    given = inputs(columns(1), binary=True)
    refused: dict[str, dict[str, Any]] = {
        "classification": {"outputs": [triton.InferRequestedOutput("prediction", class_count=2)]},
        "sequence": {"sequence_id": 7, "sequence_start": True},
        "no output 'other'": {"outputs": [triton.InferRequestedOutput("other")]},
    }
    for words, options in refused.items():
        with pytest.raises(InferenceServerException, match=words):
            caller.infer(MODEL, given, **options)
    shared = triton.InferInput("x", [1], "FP64")
    shared.set_shared_memory("region", 8)
    with pytest.raises(InferenceServerException, match="shared memory"):
        caller.infer(MODEL, [shared, *given[1:]])


def test_a_caller_with_a_key_and_patience_is_answered(caller: triton.InferenceServerClient) -> None:
    found = caller.infer(
        MODEL, inputs(columns(1), binary=True), timeout=5_000_000, priority=1, parameters={"key": "k"}
    )
    assert found.get_response()["parameters"]["prediction_id"]


def test_the_repository_lists_and_loads_and_does_not_unload(
    caller: triton.InferenceServerClient, shared: Served
) -> None:
    entry = {"name": MODEL, "version": "1", "state": "READY", "reason": ""}
    assert caller.get_model_repository_index() == [entry]
    caller.load_model(MODEL)
    with pytest.raises(InferenceServerException, match="configuration"):
        caller.load_model(MODEL, config="{}")
    with pytest.raises(InferenceServerException, match="There is no endpoint 'ride'"):
        caller.load_model("ride")
    with pytest.raises(InferenceServerException, match="its route decides"):
        caller.unload_model(MODEL)
    assert caller.is_model_ready(MODEL)
