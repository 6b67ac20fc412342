"""Whatever comes over the wire, in any protocol, is answered or refused: no failure of the gateway's own, no
hang, no growth of memory, and the next good request is answered as ever.

`hostile(seed, number)` gives a request that failed once again.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from tests.serving import number_models
from tests.serving.conftest import Served
from tests.serving.hostile_requests import Hostile, Shaped, good, hostile, huge
from tests.serving.running_gateway import RunningGateway, until
from tests.serving.test_grpc import address, start, typed

from trimtab.monitoring.outcomes import Outcomes

CLIENTS = 4
LIMIT_SECONDS = 60.0
"""The longest that a client waits for an answer, or for the end of its connection."""

SHORT = 200
"""Requests of each client in the ordinary suite."""

LONG_SECONDS = 200.0
CONTROL_EACH = 50
MEANT = {429, 503, 504}
"""Refusals that a client is to come back after, so they say when."""

_STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3})[^\r]*\r\n((?:[^\r\n]+\r\n)*)\r\n", re.MULTILINE)
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
}


@pytest.fixture(scope="module")
def gateway(shared: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """One that serves rides and numbers, over HTTP and gRPC."""
    number_models.serve_numbers(shared.workspace, tmp_path_factory.mktemp("numbers") / "model")
    with start(shared) as running:
        running.until_ready()
        workers = [child.pid for child in running.children("worker")]
        yield running
        assert [child.pid for child in running.children("worker")] == workers
        assert "Traceback" not in running.output()
        assert "panicked" not in running.output()
        with running.client() as client:
            rows = client.get("/v1/status").json()["log"]["predictions"]
        outcomes = Outcomes(shared.workspace)
        until(lambda: sum(outcomes.counts(name)[0] for name in ("rides", "numbers")) == rows)


def exchanged(port: int, sent: Hostile) -> bytes:
    """What came back until the connection was closed; raises TimeoutError if it never is."""
    deadline = time.monotonic() + LIMIT_SECONDS
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS) as connection:
        try:
            connection.sendall(sent.head)
            for _ in range(sent.times):
                connection.sendall(sent.tail)
            if not sent.whole:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before all of it was said
        try:
            while some := connection.recv(2**16):
                heard += some
                connection.settimeout(max(0.1, deadline - time.monotonic()))
        except ConnectionError:
            pass  # refused, and reset since not all of it was read
    return heard


def wrong_with(sent: Hostile, heard: bytes) -> str:
    """What is wrong with an answer, or nothing."""
    answers = [(int(status), headers.lower()) for status, headers in _STATUS.findall(heard)]
    if sent.whole and not sent.times and not answers:
        return "no answer"
    for status, headers in answers:
        if status >= 500 and not (status in MEANT and b"retry-after" in headers):
            return f"answered {status}"
        if status == 429 and b"retry-after" not in headers:
            return "429 that does not say when to come back"
    return ""


class Campaign:
    """Clients that send what nobody should, request after request of one seed, until `over`."""

    def __init__(self, gateway: RunningGateway, seed: int, over: Callable[[int], bool]) -> None:
        self.statuses: Counter[int] = Counter()
        self.troubles: list[str] = []
        self._port = int(gateway.url.rpartition(":")[2])
        self._seed = seed
        self._over = over
        self._expected = [self._control(shaped) for shaped in CONTROLS]
        assert all(status == 200 for status, _ in self._expected), self._expected
        self._threads = [threading.Thread(target=self._run, args=(place,)) for place in range(CLIENTS)]

    def run(self) -> None:
        """Send all of it."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        assert not self.troubles, "\n".join(self.troubles[:10])

    def _run(self, place: int) -> None:
        sent = 0
        while not self._over(sent) and len(self.troubles) < 10:
            number = sent * CLIENTS + place
            try:
                self._send(number)
                if sent % CONTROL_EACH == 0:
                    self._check(number)
            except Exception as error:  # noqa: BLE001  (a thread's failure is told by the test)
                self.troubles.append(f"seed {self._seed}, request {number}: {error!r}")
            sent += 1

    def _send(self, number: int) -> None:
        chance = random.Random(number)
        request = huge(chance) if number % 997 == 0 else hostile(self._seed, number)
        heard = exchanged(self._port, request)
        self.statuses.update(int(found[0]) for found in _STATUS.findall(heard))
        if trouble := wrong_with(request, heard):
            said = f"{request.head[:400]!r} ({len(request.head)} bytes): {heard[:400]!r}"
            self.troubles.append(f"seed {self._seed}, request {number}: {trouble} to {said}")

    def _check(self, number: int) -> None:
        place = number % len(CONTROLS)
        found = self._control(CONTROLS[place])
        if found != self._expected[place]:
            self.troubles.append(f"after request {number}, a good one was answered {found}")

    def _control(self, shaped: Shaped) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_SECONDS)
        try:
            connection.request(shaped.method, shaped.target, shaped.body, shaped.headers)
            answer = connection.getresponse()
            told = json.loads(answer.read())
        finally:
            connection.close()
        return answer.status, told.get("predictions") or told.get("outputs")


def _controls() -> list[Shaped]:
    """One good request of each kind."""
    chance = random.Random(0)
    found: dict[tuple[object, ...], Shaped] = {}
    for _ in range(400):
        shaped = good(chance)
        if "feedback" not in shaped.target:
            kind = (shaped.target, *sorted(shaped.headers), str(shaped.body[:16]), len(shaped.body) > 4096)
            found.setdefault(kind, shaped)
    return list(found.values())


CONTROLS = _controls()


def memory(gateway: RunningGateway) -> int:
    """What the workers have to themselves, in bytes."""
    return sum(child.memory_full_info().pss for child in gateway.children("worker"))


def over_grpc(gateway: RunningGateway, seed: int, over: Callable[[int], bool]) -> None:
    """The same over gRPC: damaged messages, and bytes that are no gRPC at all."""
    methods = [
        "ModelInfer",
        "ModelMetadata",
        "RepositoryModelLoad",
        "ModelConfig",
        "RepositoryIndex",
        "Nothing",
    ]
    host, _, port = address(gateway).rpartition(":")
    sent = 0
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        grpc.channel_ready_future(channel).result(LIMIT_SECONDS)
        while not over(sent):
            chance = random.Random(f"{seed}:{sent}")
            message = _message(chance)
            try:
                channel.unary_unary(f"/inference.GRPCInferenceService/{chance.choice(methods)}")(
                    message, timeout=LIMIT_SECONDS
                )
            except grpc.RpcError as error:
                assert error.code() in _REFUSALS, (error.code(), error.details(), message[:400])  # noqa: PT017  (one of these)
            if sent % 20 == 0:
                with socket.create_connection((host, int(port)), timeout=LIMIT_SECONDS) as connection:
                    connection.sendall(
                        chance.choice([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]) + chance.randbytes(99)
                    )
            sent += 1
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(typed().SerializeToString())


def _message(chance: random.Random) -> bytes:
    """A good message with wrong shapes, wrong bytes behind it, or damage anywhere."""
    asked = typed(chance.choice([1, 2, 5]))
    for _ in range(chance.choice([0, 1, 2])):
        tensor = chance.choice(asked.inputs)
        match chance.randrange(4):
            case 0:
                del tensor.shape[:]
                tensor.shape.extend(chance.choice([[-1], [0], [2**63 - 1], [2**32, 2**32], [1] * 500, []]))
            case 1:
                tensor.datatype = chance.choice(["", "X", "FP16", "BYTES", "BOOL", "INT64"])
            case 2:
                asked.raw_input_contents.append(chance.randbytes(chance.choice([0, 1, 8, 24, 4096])))
            case _:
                tensor.ClearField("contents")
    message = bytearray(asked.SerializeToString())
    for _ in range(chance.choice([0, 0, 1, 4])):
        message[chance.randrange(len(message))] = chance.randrange(256)
    return bytes(message) if chance.random() < 0.8 else bytes(message[: chance.randrange(len(message))])


def test_hostile_requests_are_answered_or_refused(gateway: RunningGateway) -> None:
    campaign = Campaign(gateway, 1, lambda sent: sent >= SHORT)
    campaign.run()
    assert campaign.statuses[200] > SHORT / 10  # some of it is not wrong enough
    assert {400, 404, 405, 413, 415, 422} <= campaign.statuses.keys()


def test_hostile_messages_are_answered_or_refused_over_grpc(gateway: RunningGateway) -> None:
    over_grpc(gateway, 1, lambda sent: sent >= SHORT)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_minutes_of_hostile_requests_leave_memory_flat(gateway: RunningGateway) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # so that a failure can be had again

    def spell(share: float) -> Campaign:
        ends = time.monotonic() + LONG_SECONDS * share
        campaign = Campaign(gateway, seed + round(share * 100), lambda _: time.monotonic() > ends)
        campaign.run()
        return campaign

    spell(0.3)
    before = memory(gateway)
    campaign = spell(0.6)
    ends = time.monotonic() + LONG_SECONDS * 0.1
    over_grpc(gateway, seed, lambda _: time.monotonic() > ends)
    after = memory(gateway)
    print(f"{campaign.statuses}; {before >> 20} MiB before, {after >> 20} after")
    assert after < before * 1.15 + 2**24
    until(lambda: gateway.health() == 200)
