"""Whatever is sent to the Open Inference Protocol, over REST or gRPC, is answered or refused: no 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.conftest import Served
from tests.serving.running_gateway import RunningGateway
from tests.serving.test_grpc import address, start, typed
from tests.serving.test_open_inference import tensors

INFER = "/v2/models/rides/infer"
LENGTH = "inference-header-content-length"
JUST_ANSWERS = {200, 400, 404, 405, 413, 415, 422}
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
FUZZ = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def answered(client: httpx.Client, path: str, body: bytes, **headers: str) -> None:
    """Send it; it must be answered as the protocol answers."""
    response = client.post(path, content=body, headers=headers)
    assert response.status_code in JUST_ANSWERS, (response.status_code, response.text, body)
    if response.status_code != 200:
        assert set(response.json()) == {"error"}, response.text


@FUZZ
@given(st.data())
def test_json_with_anything_anywhere_is_answered_or_refused(
    client: httpx.Client, data: st.DataObject
) -> None:
    request: Any = json.loads(json.dumps(tensors(data.draw(st.integers(1, 3)))))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(["top", "tensor"]))
        if place == "top":
            name = data.draw(st.sampled_from(["inputs", "id", "parameters", "outputs", "other"]))
            request[name] = data.draw(VALUES)
        elif isinstance(request["inputs"], list) and request["inputs"]:
            tensor = data.draw(st.sampled_from(request["inputs"]))
            if isinstance(tensor, dict):
                name = data.draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))
                tensor[name] = data.draw(VALUES)
    answered(client, INFER, json.dumps(request).encode())


@FUZZ
@given(st.binary(max_size=200), st.sampled_from(["0", "1", "50", "-5", "x", ""]), st.booleans())
def test_bytes_of_any_kind_are_refused(client: httpx.Client, body: bytes, length: str, given_: bool) -> None:
    answered(client, INFER, body, **({LENGTH: length} if given_ else {}))
    answered(client, "/v2/repository/index", body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"inputs":' * 50_000,
        b'{"inputs":[],"inputs":[]}',
        b'{"inputs":[{"name":"x","name":"y","shape":[1],"datatype":"FP64","datatype":"BOOL","data":[1]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[NaN]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}]}',
        b'{"inputs":[{"name":"\xff","shape":[1],"datatype":"FP64","data":[1]}]}',
        b'{"inputs":[{"name":"\\ud800","shape":[1],"datatype":"FP64","data":[1]}]}',
        b"x" * (9 * 2**20),
    ],
    ids=range(9),
)
def test_bodies_made_to_hurt_are_refused(client: httpx.Client, body: bytes) -> None:
    answered(client, INFER, body)
    answered(client, INFER, body, **{LENGTH: str(len(body))})
    answered(client, INFER, body, **{"content-encoding": "gzip"})
    assert client.get("/health").status_code == 200


@pytest.fixture(scope="module")
def gateway(shared: Served) -> Iterator[RunningGateway]:
    with start(shared) as running:
        yield running.until_ready()
        assert running.health() == 200
        assert "Traceback" not in running.output()


@pytest.fixture(scope="module")
def over_grpc(gateway: RunningGateway) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address(gateway)) as channel:
        grpc.channel_ready_future(channel).result(30)
        yield channel


@FUZZ
@given(st.data())
def test_a_damaged_message_of_grpc_is_answered_or_refused(
    over_grpc: grpc.Channel, data: st.DataObject
) -> None:
    message = bytearray(typed(data.draw(st.integers(1, 3))).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    method = data.draw(st.sampled_from(["ModelInfer", "ModelMetadata", "RepositoryModelLoad"]))
    call = over_grpc.unary_unary(f"/inference.GRPCInferenceService/{method}")
    for each in (bytes(message), bytes(message[:cut])):
        try:
            call(each)
        except grpc.RpcError as error:
            assert error.code() in REFUSALS, (error.code(), error.details(), each)  # noqa: PT017  (one of these)
