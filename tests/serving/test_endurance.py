"""What a gateway stands over time: a hundred kills of any of its processes, and minutes of mixed load."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable

import httpx
import psutil
import pytest
from tests.serving.conftest import ENDPOINT, Served
from tests.serving.running_gateway import RunningGateway, until
from tests.serving.test_gateway import Load, logged
from tests.serving.tiny_models import ROW

KILLS = 100
LOAD_SECONDS = 600
PREDICT = f"/v1/endpoints/{ENDPOINT}/predict"


def _processes(running: RunningGateway) -> list[psutil.Process]:
    gateway = psutil.Process(running.process.pid)
    return [gateway, *gateway.children(recursive=True)]


def _ended(running: RunningGateway) -> bool:
    return running.process.poll() is not None


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_hundred_kills_of_any_process_lose_no_acknowledged_prediction(served: Served) -> None:
    chance = random.Random(1)
    acknowledged: list[str] = []
    killed = 0
    while killed < KILLS:
        with RunningGateway(served.project, workers=chance.choice([1, 2])) as running:
            running.until_ready()
            with Load(running.url) as load:
                while killed < KILLS and not _ended(running):
                    told = len(load.ids)
                    # A gateway whose worker dies again and again within seconds gives up, and says so.
                    until(lambda told=told: len(load.ids) >= told + 20 or _ended(running))  # type: ignore[misc]
                    time.sleep(chance.uniform(0, 0.2))
                    if _ended(running):
                        break
                    victim = chance.choice(_processes(running))
                    if victim.pid == running.process.pid and chance.random() < 0.7:
                        continue  # the gateway itself less often: each time it has to be started again
                    try:
                        victim.kill()
                    except psutil.NoSuchProcess:
                        continue
                    killed += 1
                    if victim.pid == running.process.pid:
                        running.process.wait()
            acknowledged += load.ids
    found = logged(served)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)


def _mixed(url: str, stop: threading.Event, troubles: list[str]) -> None:
    """Requests good and bad, small and large, until told to stop."""
    bodies: list[tuple[bytes, set[int]]] = [
        (json.dumps({"row": ROW}).encode(), {200}),
        (json.dumps({"rows": [ROW] * 300}).encode(), {200}),
        (json.dumps({"row": {**ROW, "x": "much"}}).encode(), {422}),
        (b"{" * 5000, {400}),
        (b"\xff\xfe", {400}),
        (json.dumps({"row": {str(n): n for n in range(2000)}}).encode(), {422}),
    ]
    chance = random.Random(2)
    with httpx.Client(base_url=url, timeout=60) as client:
        while not stop.is_set():
            body, expected = chance.choice(bodies)
            status = client.post(PREDICT, content=body).status_code
            if status not in expected:
                troubles.append(f"{status} for {body[:60]!r}")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_minutes_of_mixed_load_leave_memory_flat(served: Served) -> None:
    stop, troubles = threading.Event(), list[str]()
    with RunningGateway(served.project) as running:
        running.until_ready()
        clients = [threading.Thread(target=_mixed, args=(running.url, stop, troubles)) for _ in range(8)]
        for client in clients:
            client.start()
        sizes: list[int] = []
        for _ in range(10):
            time.sleep(LOAD_SECONDS / 10)
            sizes.append(sum(each.memory_info().rss for each in _processes(running)))
        stop.set()
        for client in clients:
            client.join()
    assert troubles == []
    assert max(sizes[3:]) < sizes[2] * 1.15, [size >> 20 for size in sizes]


def test_requests_beyond_an_endpoints_limit_are_told_to_come_back(served: Served) -> None:
    options = served.endpoints.get(ENDPOINT).options
    limited = type(options)(max_in_flight=1, max_wait_ms=300)
    served.workspace.write(lambda tx: served.endpoints.set_options(tx, ENDPOINT, limited))
    statuses: list[int] = []
    retry: list[str] = []

    def ask(client: httpx.Client) -> None:
        answer = client.post(PREDICT, json={"row": ROW})
        statuses.append(answer.status_code)
        retry.extend(filter(None, [answer.headers.get("retry-after")]))

    with RunningGateway(served.project) as running, running.until_ready().client() as client:

        def both() -> bool:
            statuses.clear()
            asking = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
            _each(asking, threading.Thread.start)
            _each(asking, threading.Thread.join)
            return set(statuses) == {200, 429}

        until(both)
        assert client.post(PREDICT, json={"row": ROW}).status_code == 200
    assert retry


def _each(threads: list[threading.Thread], act: Callable[[threading.Thread], None]) -> None:
    for thread in threads:
        act(thread)
