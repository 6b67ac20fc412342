"""Tensors as JSON, as bytes and as gRPC's contents: what arrives is what was sent, or is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from trimtab.errors import InvalidInputError
from trimtab.models.encoding import Encoder
from trimtab.models.signature import Column, Signature
from trimtab.serving.grpc_messages import MESSAGES
from trimtab.serving.grpc_tensors import read_tensors
from trimtab.serving.open_inference_binary import unpacked
from trimtab.serving.open_inference_requests import JSON_LENGTH, read_request
from trimtab.serving.open_inference_tensors import GivenTensor, rows_of

WIDE = Signature((Column("a", "number"), Column("b", "number")))
NUMPY: dict[str, Any] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16,
    "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
SHAPES = st.one_of(st.tuples(st.integers(1, 20)), st.tuples(st.integers(1, 20), st.integers(1, 5)))


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, NDArray[Any]]:
    """A datatype, and an array of it as clients hold it."""
    shape = draw(SHAPES)
    datatype = draw(st.sampled_from([*NUMPY, "BYTES"]))
    if datatype == "BYTES":
        texts = draw(st.lists(st.text(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        column = np.empty(len(texts), dtype=np.object_)
        column[:] = [text.encode() for text in texts]
        return datatype, column.reshape(shape)
    return datatype, draw(arrays.arrays(NUMPY[datatype], shape))


def same(got: GivenTensor, datatype: str, sent: NDArray[Any]) -> bool:
    """Whether a tensor arrived with every bit of every element (NaN is NaN)."""
    flat: list[Any] = sent.reshape(-1).tolist()
    if datatype == "BYTES":
        flat = [value.decode() for value in flat]
    values = got.values if isinstance(got.values, list) else got.values.tolist()
    alike = [a == b or (a != a and b != b) for a, b in zip(values, flat, strict=True)]
    return all(alike) and (got.datatype, list(got.shape)) == (datatype, list(sent.shape))


def as_rest_sends(datatype: str, *sent: NDArray[Any], binary: bool) -> tuple[dict[str, str], bytes]:
    inputs = []
    for number, array in enumerate(sent):
        inputs.append(over_http.InferInput(f"t{number}", list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    body, length = over_http.InferenceServerClient.generate_request_body(inputs)
    return ({} if length is None else {JSON_LENGTH.lower(): str(length)}), body


@settings(deadline=None)
@given(tensors())
def test_bytes_arrive_as_the_client_sent_them(sent: tuple[str, NDArray[Any]]) -> None:
    datatype, array = sent
    _, (one, other) = read_request(*as_rest_sends(datatype, array, array, binary=True))
    assert same(one, datatype, array)
    assert same(other, datatype, array)


@settings(deadline=None)
@given(tensors().filter(lambda sent: sent[0] == "BYTES" or bool(np.isfinite(sent[1]).all())))
def test_json_arrives_as_the_client_sent_it(sent: tuple[str, NDArray[Any]]) -> None:
    datatype, array = sent
    _, (got,) = read_request(*as_rest_sends(datatype, array, binary=False))
    assert same(got, datatype, array)


@settings(deadline=None)
@given(tensors())
def test_raw_contents_arrive_as_the_client_sent_them(sent: tuple[str, NDArray[Any]]) -> None:
    datatype, array = sent
    tensor = over_grpc.InferInput("t", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    request = service_pb2.ModelInferRequest(
        inputs=[tensor._get_tensor()], raw_input_contents=[tensor._get_content()]
    )
    read = MESSAGES["ModelInferRequest"].FromString(request.SerializeToString())
    (got,) = read_tensors(read)
    assert same(got, datatype, array)


def test_half_precision_of_16_bits_with_the_range_of_32_arrives() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1.0, -2.5, 3e38], dtype=ml_dtypes.bfloat16)
    values = unpacked("t", "BF16", 3, array.tobytes())
    assert np.array_equal(np.asarray(values), array.astype(np.float32))


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(0, 2**70), st.sampled_from([*NUMPY, "BF16", "BYTES"]))
def test_bytes_that_do_not_suit_the_shape_are_refused(raw: bytes, count: int, datatype: str) -> None:
    try:
        values = unpacked("t", datatype, count, raw)
    except InvalidInputError:
        return
    assert len(values) == count


@settings(deadline=None)
@given(st.data())
def test_a_damaged_request_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    datatype, array = data.draw(tensors())
    headers, body = as_rest_sends(datatype, array, binary=True)
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(headers[JSON_LENGTH.lower()]), st.text(max_size=20)))
    cut = data.draw(st.integers(0, len(damaged)))
    for each in (bytes(damaged), bytes(damaged[:cut])):
        try:
            _, read = read_request({JSON_LENGTH.lower(): length}, each)
            rows_of(read, WIDE)
        except InvalidInputError:
            pass


def json_request(**changes: Any) -> bytes:
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0], **changes}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(
    ("length", "body", "words"),
    [
        ("0", json_request(), "says '0'"),
        ("-1", json_request(), "says '-1'"),
        ("1e3", json_request(), "says '1e3'"),
        ("٣", json_request(), "says"),
        ("9" * 5000, json_request(), "says '9999"),
        (str(10**9), json_request(), "of a body of"),
        (None, json_request(data=None), "no data"),
        (None, json_request(data=None, parameters={"binary_data_size": 8}), "no data"),
        ("all", json_request(parameters={"binary_data_size": 0}), "twice"),
        ("all", json_request(data=None, parameters={"binary_data_size": 8}), "claims 8 bytes"),
        ("all", json_request(data=None, parameters={"binary_data_size": -1}), "claims -1 bytes"),
        ("all", json_request(data=None, parameters={"binary_data_size": 10**30}), "claims 1000"),
        ("all", json_request(data=None, parameters={"binary_data_size": True}), "claims True bytes"),
        ("all", json_request(data=None, parameters={"binary_data_size": "8"}), "claims 8 bytes"),
        ("more", json_request(), "8 bytes are left over"),
        (
            "more",
            json_request(data=None, shape=[2], parameters={"binary_data_size": 8}),
            "2 elements of FP64",
        ),
        ("more", json_request(data=None, shape=[-1, -1], parameters={"binary_data_size": 8}), "negative"),
        ("more", json_request(data=None, shape=[2**62, 4], parameters={"binary_data_size": 8}), "8 bytes"),
        ("more", json_request(data=None, shape=[1] * 9, parameters={"binary_data_size": 8}), "9 dimensions"),
        (None, json_request(data=[[[1.0]]], shape=[1, 1, 1]), "Expected"),
        (None, json_request(data=[[1.0], [2.0]], shape=[2]), "nested"),
        (None, json_request(data=[1.0, 2.0, 3.0, [2.0]], shape=[2, 2]), "nested unevenly"),
        (None, json_request(datatype="INT8", data=[128]), "<= 127"),
        (None, json_request(datatype="UINT64", data=[-1]), ">= 0"),
        (None, json_request(datatype="INT32", data=[1.5]), "Expected"),
        (None, json_request(datatype="BOOL", data=[1]), "Expected `bool"),
        (None, json_request(shape=[1.5]), "Expected `int`"),
        (None, json_request(parameters={"shared_memory_region": "r"}), "shared memory"),
        (None, json_request(parameters={"nested": {"a": 1}}), "Expected"),
        (None, b'{"other": ' + b"[" * 100_000, "nested too deeply"),
        (None, json_request(data=[10**400]), "range"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(length: str | None, body: bytes, words: str) -> None:
    if length in {"all", "more"}:
        headers = {JSON_LENGTH.lower(): str(len(body))}
        body += bytes(8) if length == "more" else b""
    else:
        headers = {} if length is None else {JSON_LENGTH.lower(): length}
    with pytest.raises(InvalidInputError) as caught:
        rows_of(read_request(headers, body)[1], WIDE)
    assert words in str(caught.value)


def test_a_value_nested_among_others_is_no_number() -> None:
    rows = rows_of(read_request({}, json_request(data=[1.0, [2.0]], shape=[1, 2]))[1], WIDE)
    assert rows.row is not None
    with pytest.raises(InvalidInputError, match="not a finite number"):
        Encoder(WIDE).row_of(rows.row)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2], [3, 4], [5, 6]]])
def test_one_matrix_stands_for_all_columns_where_all_are_numbers(data: list[Any]) -> None:
    body = json.dumps(
        {"inputs": [{"name": "anything", "shape": [3, 2], "datatype": "FP32", "data": data}]}
    ).encode()
    _, read = read_request({}, body)
    matrix = rows_of(read, WIDE).matrix
    assert matrix is not None
    assert matrix.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_a_matrix_of_bytes_is_copied_nowhere() -> None:
    matrix = np.arange(60_000.0).reshape(2000, 30)
    signature = Signature(tuple(Column(f"c{number}", "number") for number in range(30)))
    headers, body = as_rest_sends("FP64", matrix, binary=True)
    _, read = read_request(headers, body)
    got = rows_of(read, signature).matrix
    assert got is not None
    assert np.shares_memory(got, np.frombuffer(body, np.uint8))
    assert np.array_equal(got, matrix)


def test_null_stands_for_a_missing_number_in_a_matrix() -> None:
    for rows in (1, 2):
        body = json_request(shape=[rows, 2], data=[None, 1.0] * rows)
        _, read = read_request({}, body)
        given_rows = rows_of(read, WIDE)
        if given_rows.row is not None:
            assert given_rows.row == {"a": None, "b": 1.0}
        else:
            assert given_rows.matrix is not None
            assert np.isnan(given_rows.matrix[:, 0]).all()


def test_one_row_is_a_row_however_it_is_shaped() -> None:
    for shape in ([1], [1, 1]):
        _, read = read_request({}, json_request(name="a", shape=shape))
        assert rows_of(read, WIDE).row == {"a": 1.0}
