"""Requests of many rows that come as one matrix: answered and logged as by column."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.serving.logged_rows import PredictionRow, logged_rows

from trimtab.errors import InvalidInputError
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.signature import Column, Output, Signature
from trimtab.models.specification import Specification
from trimtab.serving.answering import Answering
from trimtab.serving.frames import MatrixFrame, RowsFrame, scan
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.many_rows import ManyRows
from trimtab.serving.options import DEFAULT, Options
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import Answer, Question
from trimtab.serving.routes import Arm, Route
from trimtab.serving.segments import Limits, SegmentWriter

DIGEST = "b3:" + "0" * 64
ROWS = 5


class Weighted:
    """A runtime: the sum of a row's numbers, each times its place; what is missing counts as nothing."""

    def row(self, values: Sequence[float]) -> float:
        return float(self.matrix(np.array([values]))[0])

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        assert rows.dtype == np.float64
        assert rows.flags.c_contiguous
        assert rows.flags.aligned
        made: NDArray[np.float64] = np.nansum(rows * np.arange(1, rows.shape[1] + 1), axis=1)
        return made


def model(*columns: Column) -> Predictor:
    specification = Specification(
        runtime="weighted",
        file="weights",
        file_digest=DIGEST,
        signature=Signature(columns),
        output=Output(),
        target="y",
        expected=(),
        tolerance=0.0,
    )
    return Predictor(specification, Weighted())


A, B, C = (Column(name, "number") for name in "abc")
MAYBE_B = Column("b", "number", nullable=True)
GRADE = Column("c", "category", categories=(1, 2, 3))


class Scene:
    """Many rows before real models, with what is logged of them."""

    def __init__(self, folder: Path) -> None:
        self.written = b""
        log = PredictionLog(SegmentWriter(folder, Limits(), write=self._write), "refuse")
        ids = PredictionIds(bytes(32))
        self.many = ManyRows(ids, log)
        self.answer = Answering(ids, log).answer

    def _write(self, handle: int, data: bytes) -> int:
        self.written += data
        return os.write(handle, data)

    def ask(self, endpoint: LoadedEndpoint, version: int | None = None, **question: Any) -> Answer:
        asked = Question(endpoint=endpoint, at=1_000_000, started=time.perf_counter_ns(), **question)
        pinned = None if version is None else endpoint.place_of(str(version))
        return asyncio.run(self.many.answer(asked, pinned or 0, pinned))

    def rows(self) -> list[PredictionRow]:
        return logged_rows(self.written)


def endpoint_of(*predictors: Predictor, sharing: bool = False, options: Options = DEFAULT) -> LoadedEndpoint:
    """The versions 1, 2, ...: the first is the primary, the others share its keys, or are its shadows."""
    share = 100 / len(predictors) if sharing else 0.0
    others = [
        Arm(version, DIGEST, "challenger" if sharing else "shadow", share)
        for version in range(2, len(predictors) + 1)
    ]
    route = Route(model="m", arms=(Arm(1, DIGEST, "primary", share or 100.0), *others))
    return LoadedEndpoint("rides", route, predictors, options)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "log")


def matrix_of(width: int, kind: str = "<f8") -> NDArray[Any]:
    return (np.arange(ROWS * width).reshape(ROWS, width) / 3).astype(kind)


def seen(rows: list[PredictionRow]) -> list[Any]:
    """What rows say, but their ids and durations."""
    return [(row.at, row.key, row.arm, list(row.values), row.scores) for row in rows]


@pytest.mark.parametrize("kind", ["<f8", "<f4", "<f2", "<i8", "<u1"])
@pytest.mark.parametrize("redact", [(), ("b",)])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_matrix_is_answered_and_logged_as_its_columns_are(
    tmp_path: Path, kind: str, redact: tuple[str, ...], key: str | None
) -> None:
    endpoint = endpoint_of(model(A, B, C), model(C, A), model(A, GRADE), options=Options(redact=redact))
    by_matrix, by_column = Scene(tmp_path / "one"), Scene(tmp_path / "other")
    matrix = matrix_of(3, kind)
    one = by_matrix.ask(endpoint, matrix=matrix, key=key)
    other = by_column.ask(endpoint, columns=dict(zip("abc", matrix.T, strict=True)), key=key)
    assert (one.predictions, one.versions) == (other.predictions, other.versions)
    assert seen(by_matrix.rows()) == seen(by_column.rows())
    assert [row.id for row in by_matrix.rows()] == [f"{one.id}.{row}" for row in range(ROWS)]
    assert isinstance(scan(by_matrix.written).frames[-1], MatrixFrame)
    assert isinstance(scan(by_column.written).frames[-1], RowsFrame)


def test_a_pinned_version_takes_the_matrix_in_its_own_order(scene: Scene) -> None:
    endpoint = endpoint_of(model(A, B), model(C, A))
    matrix = matrix_of(2)
    answer = scene.ask(endpoint, 2, matrix=matrix)
    assert answer.predictions == Weighted().matrix(matrix).tolist()
    assert answer.versions == [2] * ROWS
    assert [row.values for row in scene.rows()] == [[a, None, c] for c, a in matrix.tolist()]
    assert [row.scores[0] for row in scene.rows()] == [None] * ROWS  # it misses its column b


@pytest.mark.parametrize("version", [None, "1", "2"])
@pytest.mark.parametrize(
    "asked",
    [
        {"row": {"a": 1.0, "b": 200.0}},
        {"columns": {"b": [200.0], "a": [1.0]}},
        {"columns": {"a": [1.0, 1.0], "b": [200.0, 200.0]}},
        {"matrix": [1.0, 200.0]},
    ],
    ids=["row", "one row by column", "columns", "matrix"],
)
def test_the_log_has_each_number_under_its_column_whichever_version_is_pinned(
    scene: Scene, version: str | None, asked: dict[str, Any]
) -> None:
    endpoint = endpoint_of(model(A, B), model(B, A))
    if "matrix" in asked:
        order = -1 if version == "2" else 1
        asked = {"matrix": np.array([asked["matrix"][::order]] * 2)}
    question = Question(endpoint=endpoint, at=1, started=time.perf_counter_ns(), version=version, **asked)
    answer = asyncio.run(scene.answer(question))
    assert set(answer.predictions) == {1.0 * 2 + 200.0 if version == "2" else 1.0 + 200.0 * 2}
    assert endpoint.columns == ("a", "b")
    rows = scene.rows()
    assert [row.values for row in rows] == [[1.0, 200.0]] * len(answer.predictions)
    assert [row.scores for row in rows] == [[401.0, 202.0]] * len(rows)


def test_keys_of_their_own_are_dealt_row_by_row(scene: Scene) -> None:
    endpoint = endpoint_of(model(A, B), model(B, A), sharing=True)
    keys = [None, "ann", "bob", "cy", "dee"]
    answer = scene.ask(endpoint, matrix=matrix_of(2), keys=keys)
    assert set(answer.versions) == {1, 2}
    rows = scene.rows()
    assert [row.key for row in rows] == keys
    assert [endpoint.versions[row.arm] for row in rows] == answer.versions
    assert [row.answer for row in rows] == answer.predictions


def test_what_is_missing_is_missing_in_the_log(scene: Scene) -> None:
    matrix = matrix_of(2)
    matrix[1, 1] = np.nan
    scene.ask(endpoint_of(model(A, MAYBE_B)), matrix=matrix)
    assert [list(row.values) for row in scene.rows()] == [
        [None if value != value else value for value in row] for row in matrix.tolist()
    ]


def test_what_is_wrong_in_a_matrix_is_named_and_not_logged(scene: Scene) -> None:
    for value, words in ((np.nan, "'b' is missing in row 3"), (np.inf, "'b' has inf in row 3")):
        matrix = matrix_of(2)
        matrix[3, 1] = value
        with pytest.raises(InvalidInputError, match=words):
            scene.ask(endpoint_of(model(A, B)), matrix=matrix)
    assert not scene.written


def test_bytes_that_lie_across_words_are_taken(scene: Scene) -> None:
    matrix = matrix_of(3)
    crooked = np.frombuffer(b"!" + matrix.tobytes(), "<f8", offset=1).reshape(matrix.shape)
    answer = scene.ask(endpoint_of(model(A, B, C)), matrix=crooked)
    assert answer.predictions == Weighted().matrix(matrix).tolist()
    assert [row.values for row in scene.rows()] == matrix.tolist()


def test_a_column_of_other_length_that_only_a_version_on_trial_takes_is_logged_as_missing(
    scene: Scene,
) -> None:
    columns = {"c": [1.0], "a": [1.0] * ROWS}
    answer = scene.ask(endpoint_of(model(A), model(A, C)), columns=columns)
    assert answer.versions == [1] * ROWS
    assert [list(row.values) for row in scene.rows()] == [[1.0, None]] * ROWS


def test_a_model_that_took_long_is_asked_in_a_thread_next_time(scene: Scene) -> None:
    threads: list[str] = []

    class Slow(Weighted):
        def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
            threads.append(threading.current_thread().name)
            end = time.thread_time_ns() + 20_000_000
            while time.thread_time_ns() < end:
                pass
            return super().matrix(rows)

    predictor = model(A)
    predictor._runtime = Slow()
    endpoint = endpoint_of(predictor)
    for _ in range(2):
        scene.ask(endpoint, matrix=matrix_of(1))
    first, second = threads
    assert first == "MainThread"
    assert second != "MainThread"
