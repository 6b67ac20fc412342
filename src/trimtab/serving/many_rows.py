"""Requests of many rows: scored in one call, logged in one frame."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, TrimtabError
from trimtab.models.encoding import Columns
from trimtab.serving.coalescing import plain
from trimtab.serving.frames import FailureFrame, RowsFrame, encoded, packed
from trimtab.serving.prediction_ids import MOST_ROWS, PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import Answer, ModelFailedError, Question

INLINE_ROWS = 256
"""Up to so many rows are scored in the event loop; more would keep other requests waiting, and go to a
thread."""

THREADS_APART = 32
"""Requests to models in processes of their own that wait for an answer at once; others wait for these."""

_log = logging.getLogger(__name__)

Scores = list[NDArray[np.float64] | None]


class _Scored(msgspec.Struct, frozen=True):
    """What each version said (None: it failed, see `failures`)."""

    rows: int
    scores: Scores
    failures: list[tuple[int, Exception]]


class ManyRows:
    """Answers questions about many rows for one gateway worker, and those that wait for another process."""

    def __init__(self, ids: PredictionIds, log: PredictionLog) -> None:
        self._ids = ids
        self._log = log
        self._apart = ThreadPoolExecutor(THREADS_APART, thread_name_prefix="apart")

    async def answer(self, question: Question, leader: int, pinned: int | None) -> Answer:
        """Answer a question by columns. Raises InvalidInputError, ModelFailedError, DeadlineError,
        UnavailableError if it cannot be logged."""
        if _rows(question.columns) <= INLINE_ROWS:
            scored = _score(question, leader)
        else:
            scored = await asyncio.get_running_loop().run_in_executor(None, _score, question, leader)
        return self._told(question, scored, leader, pinned)

    async def answer_apart(self, question: Question, leader: int, pinned: int | None) -> Answer:
        """Answer for models in processes of their own, which share a call as they are ready, in threads that
        nobody else waits for. Raises what `answer` does."""
        if question.row is not None:
            columns = {name: [value] for name, value in question.row.items()}
            question = msgspec.structs.replace(question, columns=columns, row=None)
        scored = await asyncio.get_running_loop().run_in_executor(self._apart, _score, question, leader)
        return self._told(question, scored, leader, pinned)

    def _told(self, question: Question, scored: _Scored, leader: int, pinned: int | None) -> Answer:
        """The answer out of what the versions said, logged."""
        endpoint = question.endpoint
        for place, error in scored.failures:
            self._failed(question, place, error)
        if scored.scores[leader] is None:
            version, reason = endpoint.versions[leader], scored.failures[0][1]
            raise ModelFailedError(
                f"Version {version} of '{endpoint.name}' failed: {reason}",
                hint="The gateway's log has the details.",
            )
        return self._many(question, scored, leader, pinned)

    def _failed(self, question: Question, place: int, error: Exception) -> None:
        name, version = question.endpoint.name, question.endpoint.versions[place]
        _log.warning("version %s of '%s' failed to score a request: %s", version, name, error)
        code = error.code if isinstance(error, TrimtabError) else "model_failed"
        self._log.failed(encoded(FailureFrame(name, question.at, code, version)), at=question.at)

    def _many(self, question: Question, scored: _Scored, leader: int, pinned: int | None) -> Answer:
        endpoint, columns, scores, rows = question.endpoint, question.columns, scored.scores, scored.rows
        if rows > MOST_ROWS:
            raise InvalidInputError(
                f"{rows} rows are too many for one request.", hint=f"Send up to {MOST_ROWS}."
            )
        id = self._ids.mint(endpoint.name, rows)
        if pinned is not None:
            arms = [pinned] * rows
        elif question.keys is None:
            arms = [self._chosen(question, question.key, id, scores, leader)] * rows
        else:
            arms = [
                self._chosen(question, key, f"{id}.{row}", scores, leader)
                for row, key in enumerate(question.keys)
            ]
        lists = [None if score is None else score.tolist() for score in scores]
        keys = question.keys
        if keys is None and question.key is not None:
            keys = [question.key] * rows
        if endpoint.sampler.takes(question.key or question.request_id or id):
            frame = encoded(
                RowsFrame(
                    ref=endpoint.entry.ref,
                    id=id,
                    at=question.at,
                    keys=keys,
                    arms=arms,
                    columns=[_kept(columns.get(name)) if name else None for name in endpoint.logged],
                    scores=[None if score is None else packed(score) for score in scores],
                    took=(time.perf_counter_ns() - question.started) // 1000,
                )
            )
            self._log.predicted(frame, rows=rows, at=question.at, entry=endpoint.entry)
        if arms.count(arms[0]) == rows:
            predictions = lists[arms[0]]
            assert predictions is not None
        else:
            predictions = [lists[arm][row] for row, arm in enumerate(arms)]  # type: ignore[index]  # filled above
        return Answer(id, predictions, [endpoint.versions[arm] for arm in arms])

    @staticmethod
    def _chosen(question: Question, key: str | None, id: str, scores: Scores, leader: int) -> int:
        chosen = question.endpoint.chooser.place(key or question.request_id or id)
        return leader if scores[chosen] is None else chosen


def _score(question: Question, leader: int) -> _Scored:
    """Let every version score the rows; raises InvalidInputError if they do not suit the leader, and
    DeadlineError."""
    question.check_deadline()
    endpoint = question.endpoint
    scores: Scores = [None] * len(endpoint.predictors)
    failures: list[tuple[int, Exception]] = []
    rows = 0
    for place in endpoint.order[leader]:
        try:
            score = endpoint.predictors[place].predict(
                question.columns, ignore_unknown=endpoint.lenient or place != leader
            )
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
    return _Scored(rows, scores, failures)


def _rows(columns: Columns) -> int:
    for values in columns.values():
        return len(values) if hasattr(values, "__len__") else 0
    return 0


_PLAIN = frozenset({float, str, bool, type(None)})


def _kept(values: Any) -> list[Any] | bytes | None:
    """A column as the log keeps it."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "fiu":
            return packed(values)
        cells: list[Any] = values.tolist()
        return cells
    if values is None:
        return None
    kinds = set(map(type, values))
    if kinds == {float}:
        return packed(np.array(values))
    return list(values) if kinds <= _PLAIN else [plain(value) for value in values]
