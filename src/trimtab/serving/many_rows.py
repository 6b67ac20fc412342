"""Requests of many rows: scored in one call, logged in one frame."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError
from trimtab.models.encoding import Columns, floats
from trimtab.models.signature import Signature
from trimtab.serving.coalescing import plain
from trimtab.serving.frames import MatrixFrame, RowsFrame, encoded, packed
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.model_failures import Failure, failure_of, record_failures
from trimtab.serving.prediction_ids import MOST_ROWS, PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import Answer, Question

INLINE_NS = 1_000_000
"""What is scored in less time than this, in nanoseconds, is scored in the event loop; more would keep other
requests waiting, and goes to a thread, which itself costs a tenth of it."""

FIRST_NS = 4_000
"""How long one row is taken to last before any was scored."""

THREADS_APART = 32
"""Requests to models in processes of their own that wait for an answer at once; others wait for these."""

Scores = list[NDArray[np.float64] | None]


class _Scored(msgspec.Struct, frozen=True):
    """What each version said (None: it failed, see `failures`). `took`: nanoseconds of processor time."""

    rows: int
    scores: Scores
    failures: list[Failure]
    took: int


class ManyRows:
    """Answers questions about many rows for one gateway worker, and those that wait for another process."""

    def __init__(self, ids: PredictionIds, log: PredictionLog) -> None:
        self._ids = ids
        self._log = log
        self._pace: WeakKeyDictionary[LoadedEndpoint, float] = WeakKeyDictionary()  # nanoseconds a row
        self._apart = ThreadPoolExecutor(THREADS_APART, thread_name_prefix="apart")

    async def answer(self, question: Question, leader: int, pinned: int | None) -> Answer:
        """Answer a question by columns or by matrix. Raises InvalidInputError, ModelFailedError,
        DeadlineError, UnavailableError if it cannot be logged."""
        endpoint = question.endpoint
        if _rows(question) * self._pace.get(endpoint, FIRST_NS) <= INLINE_NS:
            scored = _score(question, leader)
        else:
            scored = await asyncio.get_running_loop().run_in_executor(None, _score, question, leader)
        if scored.rows:
            self._pace[endpoint] = scored.took / scored.rows
        return self._answer_from(question, scored, leader, pinned)

    async def answer_apart(self, question: Question, leader: int, pinned: int | None) -> Answer:
        """Answer for models in processes of their own, which share a call as they are ready, in threads that
        nobody else waits for. Raises what `answer` does."""
        if question.row is not None:
            columns = {name: [value] for name, value in question.row.items()}
            question = msgspec.structs.replace(question, columns=columns, row=None)
        elif question.matrix is not None:
            question = msgspec.structs.replace(question, columns=_named(question, leader), matrix=None)
        scored = await asyncio.get_running_loop().run_in_executor(self._apart, _score, question, leader)
        return self._answer_from(question, scored, leader, pinned)

    def _answer_from(self, question: Question, scored: _Scored, leader: int, pinned: int | None) -> Answer:
        """The answer out of what the versions said; those that failed are recorded."""
        record_failures(self._log, question, scored.failures)
        if scored.scores[leader] is None:
            raise failure_of(question, leader, scored.failures)
        return self._dealt(question, scored, leader, pinned)

    def _dealt(self, question: Question, scored: _Scored, leader: int, pinned: int | None) -> Answer:
        """Each row's answer by the version that the route deals it to; all that was said is logged."""
        endpoint, scores, rows = question.endpoint, scored.scores, scored.rows
        if rows > MOST_ROWS:
            raise InvalidInputError(
                f"{rows} rows are too many for one request.", hint=f"Send up to {MOST_ROWS}."
            )
        id = self._ids.mint(endpoint.name, rows)
        arm: int | list[int]
        if pinned is not None or len(scores) == 1:
            arm = leader
        elif question.keys is None:
            arm = self._chosen(question, question.key, id, scores, leader)
        else:
            arm = [
                self._chosen(question, key, f"{id}.{row}", scores, leader)
                for row, key in enumerate(question.keys)
            ]
        if endpoint.sampler.takes(question.key or question.request_id or id):
            make = _columns_frame if question.matrix is None else _matrix_frame
            frame = encoded(make(question, id, arm, scores, leader))
            self._log.predicted(frame, rows=rows, at=question.at, entry=endpoint.entry)
        if isinstance(arm, int):
            answers = scores[arm]
            assert answers is not None
            return Answer(id, answers.tolist(), [endpoint.versions[arm]] * rows)
        lists = [[] if score is None else score.tolist() for score in scores]
        predictions = [lists[place][row] for row, place in enumerate(arm)]
        return Answer(id, predictions, [endpoint.versions[place] for place in arm])

    @staticmethod
    def _chosen(question: Question, key: str | None, id: str, scores: Scores, leader: int) -> int:
        chosen = question.endpoint.chooser.place(key or question.request_id or id)
        return leader if scores[chosen] is None else chosen


def _score(question: Question, leader: int) -> _Scored:
    """Let every version score the rows; raises InvalidInputError if they do not suit the leader, and
    DeadlineError."""
    question.check_deadline()
    began = time.thread_time_ns()
    endpoint, matrix = question.endpoint, question.matrix
    scores: Scores = [None] * len(endpoint.predictors)
    failures: list[Failure] = []
    names = endpoint.predictors[leader].signature.names
    columns = question.columns
    rows = 0
    for place in endpoint.order[leader]:
        predictor = endpoint.predictors[place]
        try:
            if matrix is not None and (place == leader or _takes(predictor.signature, names)):
                score = predictor.predict_matrix(matrix)
            else:
                if matrix is not None:
                    columns = _named(question, leader)
                score = predictor.predict(columns, ignore_unknown=endpoint.lenient or place != leader)
        except Exception as error:
            if place == leader and isinstance(error, InvalidInputError):
                raise
            # A version on trial must not cost a caller the answer of the one that stands.
            failures.append((place, error))
            if place == leader:
                break
        else:
            scores[place] = score
            rows = rows or len(score)
    return _Scored(rows, scores, failures, time.thread_time_ns() - began)


def _takes(signature: Signature, names: list[str]) -> bool:
    return signature.names == names and signature.other_than_number is None


def _named(question: Question, leader: int) -> Columns:
    """The columns that a question's matrix is."""
    assert question.matrix is not None
    names = question.endpoint.predictors[leader].signature.names
    return dict(zip(names, question.matrix.T, strict=True))


def _rows(question: Question) -> int:
    if question.matrix is not None:
        return len(question.matrix)
    for values in question.columns.values():
        return len(values) if hasattr(values, "__len__") else 0
    return 0


def _matrix_frame(
    question: Question, id: str, arm: int | list[int], scores: Scores, leader: int
) -> MatrixFrame:
    """What the log has of a question by matrix."""
    matrix = _logged(question, leader)
    return MatrixFrame(
        ref=question.endpoint.entry.ref,
        id=id,
        at=question.at,
        rows=matrix.shape[0],
        width=matrix.shape[1],
        key=question.key if question.keys is None else question.keys,
        arm=arm,
        matrix=matrix.data,
        scores=[None if score is None else np.ascontiguousarray(score, "<f8").data for score in scores],
        took=(time.perf_counter_ns() - question.started) // 1000,
    )


def _logged(question: Question, leader: int) -> NDArray[np.floating[Any]]:
    """A question's matrix as the log has it: by the first columns of the endpoint, without those that are
    redacted, in its own floats or larger ones."""
    endpoint, matrix = question.endpoint, question.matrix
    assert matrix is not None
    names = tuple(endpoint.predictors[leader].signature.names)
    kind = "<f4" if matrix.dtype.kind == "f" and matrix.dtype.itemsize <= 4 else "<f8"
    if endpoint.columns[: len(names)] == names and not endpoint.options.redact:
        return np.ascontiguousarray(matrix, kind)
    logged = np.full((len(matrix), len(endpoint.columns)), np.nan, kind)
    for place, name in enumerate(names):
        if name not in endpoint.options.redact:
            logged[:, endpoint.columns.index(name)] = matrix[:, place]
    return logged


def _columns_frame(
    question: Question, id: str, arm: int | list[int], scores: Scores, leader: int
) -> RowsFrame:
    """What the log has of a question by columns."""
    endpoint, columns, said = question.endpoint, question.columns, scores[leader]
    assert said is not None
    rows = len(said)
    keys = question.keys
    if keys is None and question.key is not None:
        keys = [question.key] * rows
    return RowsFrame(
        ref=endpoint.entry.ref,
        id=id,
        at=question.at,
        keys=keys,
        arms=[arm] * rows if isinstance(arm, int) else arm,
        columns=[_kept(columns.get(name), rows) if name else None for name in endpoint.logged],
        scores=[None if score is None else packed(score) for score in scores],
        took=(time.perf_counter_ns() - question.started) // 1000,
    )


_PLAIN = frozenset({float, str, bool, type(None)})


def _kept(values: Any, rows: int) -> list[Any] | bytes | None:
    """A column as the log keeps it; one that only a version on trial takes, and that has not so many rows, is
    missing."""
    if values is None or len(values) != rows:
        return None
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "fiu":
            return packed(values)
        cells: list[Any] = values.tolist()
        return cells
    kinds = set(map(type, values))
    if kinds == {float} and (numbers := floats(values)) is not None:
        return packed(numbers)
    return list(values) if kinds <= _PLAIN else [plain(value) for value in values]
