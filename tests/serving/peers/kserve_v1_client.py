"""What KServe's own client for version 1 gets from a gateway: run by a Python that has kserve.

    python kserve_v1_client.py URL

Prints the predictions for the same two rows, asked for in several ways, as a list of lists.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
from kserve import InferenceRESTClient, RESTConfig

(URL,) = sys.argv[1:]
MODEL = "rides"
ROWS = [[1.0, "winter", False], [9.0, "summer", True]]
NAMES = ["x", "season", "holiday"]


async def refused(client: InferenceRESTClient) -> str:
    """How the client words a refusal."""
    try:
        await client.infer(URL, {"instances": []}, model_name=MODEL)
    except httpx.HTTPStatusError as error:
        return str(error)
    return ""


async def main() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_server_live(URL)
    assert await client.is_model_ready(URL, MODEL)
    records = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
    columns = {name: list(values) for name, values in zip(NAMES, zip(*ROWS, strict=True), strict=True)}
    found = []
    for body, key in (
        ({"instances": ROWS}, "predictions"),
        ({"instances": records}, "predictions"),
        ({"inputs": columns}, "outputs"),
    ):
        headers: dict[str, str] = {}
        answer = await client.infer(URL, body, model_name=MODEL, response_headers=headers)
        assert headers["trimtab-prediction-id"]
        found.append(answer[key])
    refusal = await refused(client)
    assert "no rows" in refusal, refusal
    print(json.dumps(found))


asyncio.run(main())
