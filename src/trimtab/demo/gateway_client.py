"""The demo's client of the gateway: plain HTTP over one kept connection, as any application would."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

from trimtab.errors import UnavailableError


class Answer(msgspec.Struct, frozen=True):
    """What the gateway answered: predictions and their ids, one a row, and the version that made them."""

    predictions: list[float]
    ids: list[str]
    version: str | int


class GatewayClient:
    """Calls one endpoint. Raises UnavailableError with the gateway's own words if it refuses."""

    def __init__(self, url: str, endpoint: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        self._path = f"/v1/endpoints/{endpoint}"

    def predict(self, row: Mapping[str, object], *, key: str, at: datetime) -> Answer:
        """One row's prediction at event time `at`."""
        body = msgspec.json.encode({"row": row, "key": key})
        return msgspec.json.decode(self._post("/predict", body, at), type=Answer)

    def feedback(self, prediction: str, label: float, *, at: datetime) -> None:
        """Tell the label of a prediction, known at event time `at`."""
        self._post("/feedback", msgspec.json.encode({"id": prediction, "label": label}), at)

    def _post(self, path: str, body: bytes, at: datetime) -> bytes:
        headers = {"Content-Type": "application/json", "Trimtab-Event-Time": at.isoformat()}
        self._connection.request("POST", self._path + path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 300:
            raise UnavailableError(
                f"The gateway answered {response.status}: {content.decode(errors='replace')}"
            )
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
