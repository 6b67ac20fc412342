"""What a client made of MLServer's codecs gets from a gateway: run by a Python that has mlserver.

    python mlserver_codecs.py URL

Prints the predictions for two rows of `rides`, and those for a matrix of `numbers`, in several encodings.
"""

from __future__ import annotations

import json
import sys
import urllib.request

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse

URL = sys.argv[1]
ROWS = pd.DataFrame({"x": [1.0, 9.0], "season": ["winter", "summer"], "holiday": [False, True]})
MATRIX = np.linspace(-1.0, 1.0, 3 * 30).reshape(3, 30)


def asked(model: str, request: InferenceRequest) -> InferenceResponse:
    """The gateway's answer, as MLServer's own types read it."""
    body = request.model_dump_json(exclude_none=True).encode()
    with urllib.request.urlopen(f"{URL}/v2/models/{model}/infer", body) as answer:
        return InferenceResponse.model_validate_json(answer.read())


def main() -> None:
    with urllib.request.urlopen(f"{URL}/v2/models/rides") as answer:
        metadata = MetadataModelResponse.model_validate_json(answer.read())
    assert [tensor.name for tensor in metadata.inputs or []] == list(ROWS)
    rides, numbers = [], []
    for use_bytes in (False, True):
        response = asked("rides", PandasCodec.encode_request(ROWS, use_bytes=use_bytes))
        rides.append(PandasCodec.decode_response(response)["prediction"].tolist())
        rides.append(NumpyCodec.decode_output(response.outputs[0]).reshape(-1).tolist())
    numbers.append(
        NumpyCodec.decode_output(asked("numbers", NumpyRequestCodec.encode_request(MATRIX)).outputs[0])
    )
    frame = pd.DataFrame(MATRIX, columns=[f"c{place}" for place in range(30)])
    numbers.append(NumpyCodec.decode_output(asked("numbers", PandasCodec.encode_request(frame)).outputs[0]))
    print(json.dumps([rides, [np.asarray(each).reshape(-1).tolist() for each in numbers]]))


main()
