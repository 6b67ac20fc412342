"""Rows that share a model call and a write of the log, each for its own caller."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.serving.conftest import ENDPOINT
from tests.serving.running_gateway import RunningGateway
from tests.serving.tiny_models import ROW, version_of

from trimtab.errors import InvalidInputError, StorageFullError, TrimtabError
from trimtab.models.runtimes.predictor import Predictor, load_predictor
from trimtab.serving.coalescing import Coalescer
from trimtab.serving.frames import RowFrame, scan
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.options import DEFAULT, Options
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import Answer, DeadlineError, ModelFailedError, Question
from trimtab.serving.routes import Arm, Route, single
from trimtab.serving.segments import Limits, SegmentWriter

DIGEST = "b3:" + "0" * 64
CLIENTS = 64


class Scene:
    """A coalescer over real models, with what it writes and how often its models are asked."""

    def __init__(self, folder: Path, folders: dict[int, Path]) -> None:
        self.writes: list[bytes] = []
        self.full = False
        self.predictors = {version: load_predictor(path) for version, path in folders.items()}
        log = PredictionLog(SegmentWriter(folder, Limits(), write=self._write), "refuse")
        self.coalescer = Coalescer(PredictionIds(bytes(32)), log)

    def _write(self, handle: int, data: bytes) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        self.writes.append(data)
        return os.write(handle, data)

    def endpoint(self, *versions: int, options: Options = DEFAULT) -> LoadedEndpoint:
        """An endpoint whose first version answers and whose others are shadows."""
        arms = tuple(Arm(v, DIGEST, "shadow" if place else "primary", 0.0 if place else 100.0)
                     for place, v in enumerate(versions))  # fmt: skip
        route = Route(model="m", arms=arms) if len(arms) > 1 else single("m", versions[0], DIGEST)
        return LoadedEndpoint(
            "rides", route, tuple(self.predictors[version] for version in versions), options
        )

    def ask(self, endpoint: LoadedEndpoint, *rows: dict[str, Any]) -> list[Answer | BaseException]:
        """Ask for these rows in one turn."""
        return self.put([_question(endpoint, row) for row in rows])

    def put(self, questions: list[Question]) -> list[Answer | BaseException]:
        """The answers to questions that are asked in one turn."""

        async def all_at_once() -> list[Answer | BaseException]:
            asking = [self.coalescer.answer(question, 0, None) for question in questions]
            return await asyncio.gather(*asking, return_exceptions=True)

        return asyncio.run(all_at_once())

    def frames(self) -> list[RowFrame]:
        """The predictions that were logged."""
        found = [frame for data in self.writes for frame in scan(data).frames]
        return [frame for frame in found if isinstance(frame, RowFrame)]


def _question(endpoint: LoadedEndpoint, row: dict[str, Any], key: str | None = None) -> Question:
    return Question(endpoint=endpoint, row=row, at=1_000_000, started=time.perf_counter_ns(), key=key)


@pytest.fixture
def scene(tmp_path: Path, model_folders: dict[int, Path]) -> Scene:
    return Scene(tmp_path / "log", model_folders)


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{**ROW, "x": 10.0 * number / count} for number in range(count)]


def test_rows_of_one_turn_share_a_write_and_each_gets_its_own_answer(scene: Scene) -> None:
    rows = rows_of(40)
    expected = [float(scene.predictors[1].predict({n: [v] for n, v in row.items()})[0]) for row in rows]
    answers = scene.ask(scene.endpoint(1), *rows)
    assert [answer.predictions for answer in answers if isinstance(answer, Answer)] == [
        [value] for value in expected
    ]
    assert len(scene.writes) == 1
    assert [(frame.values[0], frame.scores) for frame in scene.frames()] == [
        (row["x"], [value]) for row, value in zip(rows, expected, strict=True)
    ]
    ids = [answer.id for answer in answers if isinstance(answer, Answer)]
    assert len(set(ids)) == 40
    assert [frame.id for frame in scene.frames()] == ids


def test_a_row_that_the_model_cannot_take_fails_alone(scene: Scene) -> None:
    rows = [ROW, {**ROW, "x": "much"}, {**ROW, "x": 3.0}]
    first, bad, last = scene.ask(scene.endpoint(1), *rows)
    assert isinstance(first, Answer)
    assert isinstance(last, Answer)
    assert isinstance(bad, InvalidInputError)
    assert "'much'" in str(bad)
    assert len(scene.frames()) == 2


class _Fragile:
    """A predictor whose model fails on one of its rows, alone or in company."""

    blocking = False

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.signature = predictor.signature
        self.encoded_row = predictor.encoded_row

    def score(self, values: list[float]) -> float:
        if values[0] == 5.0:
            raise ZeroDivisionError("five")
        return self._predictor.score(values)

    def scores(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if (rows[:, 0] == 5.0).any():
            raise ZeroDivisionError("five among them")
        return self._predictor.scores(rows)


def test_a_row_that_the_model_fails_on_fails_alone(scene: Scene) -> None:
    scene.predictors[1] = _Fragile(scene.predictors[1])  # type: ignore[assignment]  # as much of one as is asked
    good, failed, other = scene.ask(scene.endpoint(1), ROW, {**ROW, "x": 5.0}, {**ROW, "x": 6.0})
    assert isinstance(good, Answer)
    assert isinstance(other, Answer)
    assert isinstance(failed, ModelFailedError)


def test_a_shadow_that_fails_costs_no_caller_anything(scene: Scene) -> None:
    scene.predictors[2] = _Fragile(scene.predictors[2])  # type: ignore[assignment]  # as much of one as is asked
    answers = scene.ask(scene.endpoint(1, 2), ROW, {**ROW, "x": 5.0})
    assert [version_of(a.predictions[0]) for a in answers if isinstance(a, Answer)] == [1, 1]
    assert [frame.scores[1] is None for frame in scene.frames()] == [False, True]


def test_rows_that_cannot_be_logged_are_all_refused(scene: Scene) -> None:
    scene.full = True
    answers = scene.ask(scene.endpoint(1), ROW, {**ROW, "x": 2.0})
    assert all(isinstance(answer, StorageFullError) for answer in answers)
    scene.full = False
    assert not any(isinstance(answer, TrimtabError) for answer in scene.ask(scene.endpoint(1), ROW))


def test_callers_of_many_connections_each_get_their_own_row(gateway: RunningGateway) -> None:
    """Version 1 answers the same for the same x only, so a mixed-up answer would show."""

    async def client(number: int) -> list[tuple[float, float]]:
        x = round(10.0 * number / CLIENTS, 3)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as session:
            got = []
            for turn in range(10):
                bad = number % 8 == 0 and turn % 2 == 0
                row = {**ROW, "x": "bad" if bad else x}
                answer = await session.post(f"/v1/endpoints/{ENDPOINT}/predict", json={"row": row})
                assert answer.status_code == (422 if bad else 200), answer.text
                if not bad:
                    got.append((x, answer.json()["predictions"][0]))
            return got

    async def all_clients() -> list[tuple[float, float]]:
        return [pair for got in await asyncio.gather(*map(client, range(CLIENTS))) for pair in got]

    told = asyncio.run(all_clients())
    with httpx.Client(base_url=gateway.url, timeout=60) as session:
        xs = sorted({x for x, _ in told})
        rows = [{**ROW, "x": x} for x in xs]
        alone = session.post(f"/v1/endpoints/{ENDPOINT}/predict", json={"rows": rows}).json()["predictions"]
    expected = dict(zip(xs, alone, strict=True))
    assert len(told) == CLIENTS * 10 - CLIENTS // 8 * 5
    assert all(prediction == expected[x] for x, prediction in told)


def test_rows_wait_for_company_where_their_endpoint_asks_for_it(scene: Scene) -> None:
    endpoint = scene.endpoint(1, options=Options(max_wait_ms=50))

    async def one_after_the_other() -> tuple[Answer, Answer]:
        first = asyncio.ensure_future(scene.coalescer.answer(_question(endpoint, ROW), 0, None))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not first.done()
        return await asyncio.gather(first, scene.coalescer.answer(_question(endpoint, ROW), 0, None))

    assert len(asyncio.run(one_after_the_other())) == 2
    assert len(scene.writes) == 1


def test_a_row_whose_time_is_over_is_not_computed(scene: Scene) -> None:
    endpoint = scene.endpoint(1, options=Options(timeout_ms=1, max_wait_ms=20))
    answers = scene.ask(endpoint, ROW)
    assert isinstance(answers[0], DeadlineError)
    assert scene.writes == []


def test_columns_can_be_kept_out_of_the_log(scene: Scene) -> None:
    answers = scene.ask(scene.endpoint(1, options=Options(redact=("season",))), ROW)
    assert isinstance(answers[0], Answer)
    entry = scene.endpoint(1).entry
    assert dict(zip(entry.columns, scene.frames()[0].values, strict=True)) == {**ROW, "season": None}


def test_a_share_of_the_keys_is_logged_always_the_same(scene: Scene) -> None:
    endpoint = scene.endpoint(1, options=Options(log_share=0.5))
    for _ in range(2):
        answers = scene.put([_question(endpoint, ROW, f"k{number}") for number in range(200)])
        assert all(isinstance(answer, Answer) for answer in answers)
    keys = [frame.key for frame in scene.frames()]
    assert 60 < len(set(keys)) < 140
    assert len(keys) == 2 * len(set(keys))
