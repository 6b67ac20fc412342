"""What KServe's own clients get from a gateway: run by a Python that has kserve.

    python kserve_client.py URL GRPC_ADDRESS

Prints the predictions for the same two rows, asked for in several ways, as a list of lists.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferRequest, RESTConfig
from kserve.protocol.infer_type import InferInput, RequestedOutput

URL, ADDRESS = sys.argv[1:]
Ways = dict[str, bool | None]

MODEL = "rides"
ROWS = {
    "x": ("FP64", np.array([1.0, 9.0])),
    "season": ("BYTES", np.array(["winter", "summer"], dtype=np.object_)),
    "holiday": ("BOOL", np.array([False, True])),
}


def request(ways: Ways, outputs: list[RequestedOutput] | None = None) -> InferRequest:
    """The rows: each column as bytes (True), as JSON made of an array (False), or as a list (None)."""
    inputs = []
    for name, (datatype, values) in ROWS.items():
        if ways[name] is None:
            inputs.append(InferInput(name, [2], datatype, data=values.tolist()))
        else:
            inputs.append(InferInput(name, [2], datatype))
            inputs[-1].set_data_from_numpy(values, binary_data=ways[name])
    return InferRequest(MODEL, inputs, request_id="mine", request_outputs=outputs)


async def refused(rest: InferenceRESTClient) -> str:
    """How the client words a refusal."""
    try:
        await rest.infer(URL, InferRequest(MODEL, []), model_name=MODEL)
    except httpx.HTTPStatusError as error:
        return str(error)
    return ""


async def main() -> None:
    found = []
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await rest.is_server_live(URL)
    assert await rest.is_server_ready(URL)
    assert await rest.is_model_ready(URL, MODEL)
    assert not await rest.is_model_ready(URL, "nothing")
    lists: Ways = dict.fromkeys(ROWS, None)
    raw: Ways = dict.fromkeys(ROWS, True)
    arrays: Ways = dict.fromkeys(ROWS, False)
    mixed: Ways = {**lists, "x": True}
    for way in (lists, raw, arrays, mixed):
        for outputs in (None, [RequestedOutput("prediction", {"binary_data": True})]):
            answer = await rest.infer(URL, request(way, outputs), model_name=MODEL)
            assert answer.id == "mine"
            found.append(answer.outputs[0].as_numpy().tolist())
    refusal = await refused(rest)
    assert "no input tensors" in refusal, refusal
    async with InferenceGRPCClient(ADDRESS) as over_grpc:
        assert await over_grpc.is_server_live()
        assert await over_grpc.is_server_ready()
        assert await over_grpc.is_model_ready(MODEL)
        for way in (lists, raw, mixed):
            answer = await over_grpc.infer(request(way))
            found.append(answer.outputs[0].as_numpy().tolist())
    print(json.dumps(found))


asyncio.run(main())
