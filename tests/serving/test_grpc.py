"""The Open Inference Protocol over gRPC: NVIDIA's client and plain stubs against real gateways."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tests.serving.conftest import Served
from tests.serving.running_gateway import RunningGateway, until
from tests.serving.tiny_models import version_of
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

Edit = Callable[[service_pb2.ModelInferRequest], object]

MODEL = "rides"
TOKEN = "let-me-in"
BODY_LIMIT = 64 * 1024


def start(served: Served, *, workers: int = 1, **environment: str) -> RunningGateway:
    """A gateway that speaks gRPC on a port of its own choosing."""
    settings = {"TRIMTAB_GATEWAY_GRPC_PORT": "0", **environment}
    return RunningGateway(served.project, workers=workers, environment=settings)


def address(gateway: RunningGateway) -> str:
    found = re.search(r"serving gRPC on (\S+)", gateway.output())
    assert found is not None, gateway.output()
    return found[1]


@pytest.fixture(scope="module")
def gateway(shared: Served) -> Iterator[RunningGateway]:
    with start(shared, TRIMTAB_BODY_LIMIT=str(BODY_LIMIT)) as running:
        yield running.until_ready()


@pytest.fixture
def caller(gateway: RunningGateway) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(gateway)) as client:
        until(lambda: answers(client))
        yield client


@pytest.fixture
def stub(gateway: RunningGateway) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(address(gateway)) as channel:
        grpc.channel_ready_future(channel).result(30)
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def answers(client: triton.InferenceServerClient) -> bool:
    """Whether the gateway's own port for gRPC is open, and it knows its routes."""
    try:
        return bool(client.is_server_ready())
    except InferenceServerException:
        return False


def columns(rows: int) -> dict[str, NDArray[Any]]:
    return {
        "x": np.linspace(0.0, 10.0, rows),
        "season": np.array([b"winter", b"summer"] * rows, dtype=np.object_)[:rows],
        "holiday": np.arange(rows) % 2 == 0,
    }


def inputs(values: dict[str, NDArray[Any]]) -> list[triton.InferInput]:
    made = []
    for name, column in values.items():
        datatype = {"x": "FP64", "season": "BYTES", "holiday": "BOOL"}[name]
        tensor = triton.InferInput(name, list(column.shape), datatype)
        tensor.set_data_from_numpy(column)
        made.append(tensor)
    return made


def typed(rows: int = 1, **parameters: str) -> service_pb2.ModelInferRequest:
    """The same rows in the fields for their datatypes."""
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    for name, value in parameters.items():
        request.parameters[name].string_param = value
    values = columns(rows)
    request.inputs.add(name="x", datatype="FP64", shape=[rows]).contents.fp64_contents.extend(values["x"])
    request.inputs.add(name="season", datatype="BYTES", shape=[rows]).contents.bytes_contents.extend(
        values["season"]
    )
    request.inputs.add(name="holiday", datatype="BOOL", shape=[rows, 1]).contents.bool_contents.extend(
        map(bool, values["holiday"])
    )
    return request


def test_the_client_finds_the_server_alive_and_the_model_ready(caller: triton.InferenceServerClient) -> None:
    assert caller.is_server_live()
    assert caller.is_server_ready()
    assert caller.is_model_ready(MODEL)
    assert caller.is_model_ready(MODEL, "1")
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        caller.is_model_ready("nothing")


def test_the_client_reads_what_the_server_and_the_model_are(
    gateway: RunningGateway, caller: triton.InferenceServerClient
) -> None:
    with gateway.client() as rest:
        server, model = rest.get("/v2").json(), rest.get(f"/v2/models/{MODEL}").json()
    assert list(caller.get_server_metadata().extensions) == server["extensions"]
    found = caller.get_model_metadata(MODEL, as_json=True)
    assert (found["name"], found["versions"], found["platform"]) == (MODEL, ["1"], model["platform"])
    assert [(t["name"], t["datatype"]) for t in found["inputs"]] == [
        (t["name"], t["datatype"]) for t in model["inputs"]
    ]
    assert found["outputs"] == [{"name": "prediction", "datatype": "FP64", "shape": ["-1"]}]
    config = caller.get_model_config(MODEL, as_json=True)["config"]
    assert [tensor["data_type"] for tensor in config["input"]] == ["TYPE_FP64", "TYPE_STRING", "TYPE_BOOL"]
    assert config["version_policy"] == {"specific": {"versions": ["1"]}}


@pytest.mark.parametrize("rows", [1, 3, 300])
@pytest.mark.parametrize("packing", [None, "gzip"])
def test_rows_are_answered_as_over_rest(
    gateway: RunningGateway, caller: triton.InferenceServerClient, rows: int, packing: str | None
) -> None:
    found = caller.infer(
        MODEL, inputs(columns(rows)), request_id="mine", model_version="1", compression_algorithm=packing
    )
    told = found.get_response()
    assert (told.model_name, told.model_version, told.id) == (MODEL, "1", "mine")
    values = {name: column.tolist() for name, column in columns(rows).items()}
    values["season"] = [value.decode() for value in values["season"]]
    with gateway.client() as rest:
        plain = rest.post(f"/v1/endpoints/{MODEL}/predict", json={"columns": values}).json()
        assert found.as_numpy("prediction").tolist() == plain["predictions"]
        id = told.parameters["prediction_id"].string_param + (".0" if rows > 1 else "")
        feedback = rest.post(f"/v1/endpoints/{MODEL}/feedback", json={"id": id, "label": 1})
        assert feedback.status_code == 202
    assert version_of(found.as_numpy("prediction")[0]) == 1


@pytest.mark.parametrize("rows", [1, 3])
def test_who_asks_with_contents_is_answered_with_contents(
    caller: triton.InferenceServerClient, stub: service_pb2_grpc.GRPCInferenceServiceStub, rows: int
) -> None:
    told = stub.ModelInfer(typed(rows, key="k"))
    assert not told.raw_output_contents
    raw = caller.infer(MODEL, inputs(columns(rows))).as_numpy("prediction")
    assert list(told.outputs[0].contents.fp64_contents) == raw.tolist()
    assert list(told.outputs[0].shape) == [rows]


def test_raw_and_typed_contents_may_stand_side_by_side(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    mixed = typed(2)
    expected = list(stub.ModelInfer(mixed).outputs[0].contents.fp64_contents)
    mixed.inputs[0].ClearField("contents")
    mixed.raw_input_contents.append(columns(2)["x"].tobytes())
    told = stub.ModelInfer(mixed)
    assert np.frombuffer(told.raw_output_contents[0]).tolist() == expected


def test_many_callers_at_once_get_their_own_rows(caller: triton.InferenceServerClient) -> None:
    given = {x: inputs({**columns(1), "x": np.array([x / 10])}) for x in range(100)}
    alone = {x: caller.infer(MODEL, tensors).as_numpy("prediction")[0] for x, tensors in given.items()}
    found: dict[int, float] = {}

    def hear(x: int, result: Any, error: Any) -> None:
        found[x] = error or result.as_numpy("prediction")[0]

    for x, tensors in given.items():
        caller.async_infer(MODEL, tensors, lambda result, error, x=x: hear(x, result, error))
    until(lambda: len(found) == len(given))
    assert found == alone


def shaped(*shape: int) -> Edit:
    return lambda request: _set(request.inputs[0].shape, shape)


def _set(field: Any, values: Sequence[Any]) -> None:
    field[:] = values


def datatyped(datatype: str, value: int | None = None) -> Edit:
    def edit(request: service_pb2.ModelInferRequest) -> None:
        request.inputs[0].datatype = datatype
        request.inputs[0].contents.int_contents.extend([] if value is None else [value])

    return edit


REFUSED: list[tuple[str, Edit]] = [
    ("negative", shaped(-1)),
    ("its shape says", shaped(2**62)),
    ("its shape says", shaped(2**62, 2**62)),
    ("has the shape []", shaped()),
    ("of 1000 dimensions", shaped(*[1] * 1000)),
    ("no rows", shaped(0)),
    ("3 raw contents for 0 inputs", lambda request: request.raw_input_contents.extend([b""] * 3)),
    ("1 raw contents for 0 inputs", lambda request: request.raw_input_contents.append(bytes(8))),
    ("UTF-8", lambda request: _set(request.inputs[1].contents.bytes_contents, [b"\xff"])),
    ("inf", lambda request: _set(request.inputs[0].contents.fp64_contents, [np.inf])),
    ("INT8 does not hold", datatyped("INT8", 128)),
    ("no raw contents", datatyped("FP16")),
    ("FP128", datatyped("FP128")),
    ("twice", lambda request: request.inputs.append(request.inputs[0])),
    ("no input tensors", lambda request: request.ClearField("inputs")),
    ("no output 'other'", lambda request: request.outputs.add(name="other")),
    (
        "classification",
        lambda request: (
            request.outputs.add(name="prediction")
            .parameters["classification"]
            .MergeFrom(service_pb2.InferParameter(int64_param=1))
        ),
    ),
    ("key", lambda request: request.parameters["key"].MergeFrom(service_pb2.InferParameter(double_param=1))),
    (
        "'x'",
        lambda request: request.inputs[0].MergeFrom(service_pb2.ModelInferRequest.InferInputTensor(name="y")),
    ),
]


@pytest.mark.parametrize(("words", "edit"), REFUSED)
def test_what_the_model_cannot_take_is_an_invalid_argument(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, words: str, edit: Edit
) -> None:
    request = typed()
    edit(request)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


@pytest.mark.parametrize(
    "message", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x2a\x02\x08\x01" * 3, bytes(100)]
)
def test_bytes_that_are_no_message_are_an_invalid_argument(gateway: RunningGateway, message: bytes) -> None:
    with grpc.insecure_channel(address(gateway)) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(message, wait_for_ready=True)
    assert caught.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_unknown_models_versions_and_methods_are_told(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
) -> None:
    request = typed()
    request.model_name = "ride"
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "Did you mean 'rides'" in caught.value.details()
    request = typed()
    request.model_version = "9"
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=MODEL))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_time_of_its_own_belongs_into_a_replay(caller: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="only in a workspace in replay") as caught:
        caller.infer(MODEL, inputs(columns(1)), headers={"trimtab-event-time": "2011-01-01T00:00:00Z"})
    assert "INVALID_ARGUMENT" in str(caught.value.status())


def test_the_client_for_event_loops_is_answered_too(gateway: RunningGateway) -> None:
    async def ask() -> list[float]:
        async with triton_aio.InferenceServerClient(address(gateway)) as client:
            found = await client.infer(MODEL, inputs(columns(2)))
            told: list[float] = found.as_numpy("prediction").tolist()
            return told

    assert len(asyncio.run(ask())) == 2


def test_a_message_above_the_limit_is_refused(caller: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
        caller.infer(MODEL, inputs(columns(BODY_LIMIT // 8)))


def test_the_repository_lists_and_loads_and_does_not_unload(caller: triton.InferenceServerClient) -> None:
    (entry,) = caller.get_model_repository_index().models
    assert (entry.name, entry.version, entry.state) == (MODEL, "1", "READY")
    caller.load_model(MODEL)
    with pytest.raises(InferenceServerException, match="configuration"):
        caller.load_model(MODEL, config="{}")
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        caller.load_model("ride")
    with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
        caller.unload_model(MODEL)


def test_a_token_is_wanted_for_all_but_health(served: Served) -> None:
    with (
        start(served, TRIMTAB_TOKEN=TOKEN) as running,
        triton.InferenceServerClient(address(running.until_ready())) as client,
    ):
        until(lambda: answers(client))
        for headers in (None, {"authorization": "Bearer wrong"}):
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                client.infer(MODEL, inputs(columns(1)), headers=headers)
        found = client.infer(MODEL, inputs(columns(1)), headers={"authorization": f"Bearer {TOKEN}"})
        assert found.as_numpy("prediction").shape == (1,)


def test_workers_share_the_port_and_another_gateway_does_not(
    served: Served, shared: Served, gateway: RunningGateway
) -> None:
    with start(served, workers=2) as running:
        port = int(address(running.until_ready()).rpartition(":")[2])

        def listening() -> int:
            return sum(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for worker in running.children("worker")
                for connection in worker.net_connections("tcp")
            )

        until(lambda: listening() == 2)
        running.kill_children("worker")
        command = [sys.executable, "-m", "trimtab.serving.gateway", str(shared.project), "127.0.0.1", "0"]
        environment = {"TRIMTAB_GATEWAY_GRPC_PORT": str(port)}
        other = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert other.returncode == 1
        assert "gateway_grpc_port" in other.stderr
        until(lambda: listening() == 2)


def test_a_gateway_starts_again_on_its_port_at_once(served: Served) -> None:
    port = "0"
    for _ in range(3):
        with start(served, TRIMTAB_GATEWAY_GRPC_PORT=port) as running:
            target = address(running.until_ready())
            port = target.rpartition(":")[2]
            with triton.InferenceServerClient(target) as client:
                until(lambda: answers(client))
                client.infer(MODEL, inputs(columns(1)))
                running.stop()  # which closes the connection from its side


def test_all_that_was_asked_before_the_end_is_answered(served: Served) -> None:
    async def ask(target: str, running: RunningGateway) -> list[bytes]:
        async with grpc.aio.insecure_channel(target) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            message = typed().SerializeToString()
            await call(message, wait_for_ready=True)
            calls = [asyncio.ensure_future(call(message)) for _ in range(200)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            running.process.terminate()
            told: list[bytes] = await asyncio.gather(*calls)
            return told

    with start(served) as running:
        told = asyncio.run(ask(address(running.until_ready()), running))
        assert len(told) == 200
        assert running.stop() == 0
