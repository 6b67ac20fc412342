"""From a request's columns to its answer: every version scores, one answers, and all of it is logged."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, TrimtabError, unknown
from trimtab.models.encoding import Columns
from trimtab.serving.frames import FailureFrame, RowFrame, RowsFrame, encoded
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.prediction_ids import MOST_ROWS, PredictionIds
from trimtab.serving.prediction_log import PredictionLog

INLINE_ROWS = 256
"""Up to so many rows are scored in the event loop; more would keep other requests waiting, and go to a
thread."""

LONGEST_KEY = 512

_log = logging.getLogger(__name__)

Scores = list[NDArray[np.float64] | None]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request, of whatever protocol. `keys` has one key for each row, `key` one for all of them;
    `request_id` decides who answers where there is no key. `version` pins one; `at` is event time in
    microseconds since 1970; `started` is `time.perf_counter_ns()` at its arrival."""

    endpoint: LoadedEndpoint
    columns: Columns
    at: int
    started: int
    key: str | None = None
    keys: list[str | None] | None = None
    request_id: str | None = None
    version: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """One prediction for each row, the id of the request (`row_ids` makes the rows' ids), and the version
    that answered each row."""

    id: str
    predictions: list[float]
    versions: list[int]


class _Scored(msgspec.Struct, frozen=True):
    """What each version said (None: it failed, see `failures`)."""

    rows: int
    scores: Scores
    failures: list[tuple[int, Exception]]


class ModelFailedError(TrimtabError):
    """The model of the version that had to answer raised."""

    code = "model_failed"


class Answering:
    """Answers questions for one gateway worker."""

    def __init__(self, ids: PredictionIds, log: PredictionLog) -> None:
        self._ids = ids
        self._log = log

    async def answer(self, question: Question) -> Answer:
        """Score, log and answer. Raises InvalidInputError for input that the model cannot take,
        UnavailableError if it cannot be logged, ModelFailedError."""
        endpoint = question.endpoint
        if endpoint.lenient and not question.columns.keys() <= endpoint.accepted:
            name = next(name for name in question.columns if name not in endpoint.accepted)
            raise InvalidInputError(
                f"The model has no input column '{name}'.",
                hint=unknown("column", name, endpoint.columns).hint,
            )
        pinned = None if question.version is None else endpoint.place_of(question.version)
        leader = endpoint.primary if pinned is None else pinned
        if _rows(question.columns) <= INLINE_ROWS:
            scored = _score(question, leader)
        else:
            scored = await asyncio.get_running_loop().run_in_executor(None, _score, question, leader)
        for place, error in scored.failures:
            self._failed(question, place, error)
        if scored.scores[leader] is None:
            version, reason = endpoint.versions[leader], scored.failures[0][1]
            raise ModelFailedError(
                f"Version {version} of '{endpoint.name}' failed: {reason}",
                hint="The gateway's log has the details.",
            )
        if scored.rows == 1:
            return self._one(question, scored, leader, pinned)
        return self._many(question, scored, leader, pinned)

    def _failed(self, question: Question, place: int, error: Exception) -> None:
        name, version = question.endpoint.name, question.endpoint.versions[place]
        _log.warning("version %s of '%s' failed to score a request: %s", version, name, error)
        code = error.code if isinstance(error, TrimtabError) else "model_failed"
        self._log.failed(encoded(FailureFrame(name, question.at, code, version)), at=question.at)

    def _one(self, question: Question, scored: _Scored, leader: int, pinned: int | None) -> Answer:
        endpoint, columns, scores = question.endpoint, question.columns, scored.scores
        id = self._ids.mint(endpoint.name)
        key = question.key if question.keys is None else question.keys[0]
        chosen = self._chosen(question, key, id, scores, leader) if pinned is None else pinned
        answers = [None if score is None else float(score[0]) for score in scores]
        frame = encoded(
            RowFrame(
                ref=endpoint.entry.ref,
                id=id,
                at=question.at,
                key=key,
                arm=chosen,
                values=[
                    None if (cell := columns.get(name)) is None else _plain(cell[0])
                    for name in endpoint.columns
                ],
                scores=answers,
                took=(time.perf_counter_ns() - question.started) // 1000,
            )
        )
        self._log.predicted(frame, rows=1, at=question.at, entry=endpoint.entry)
        answer = answers[chosen]
        assert answer is not None
        return Answer(id, [answer], [endpoint.versions[chosen]])

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
        frame = encoded(
            RowsFrame(
                ref=endpoint.entry.ref,
                id=id,
                at=question.at,
                keys=keys,
                arms=arms,
                columns=[_plain_column(columns.get(name)) for name in endpoint.columns],
                scores=lists,
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
    """Let every version score the rows; raises InvalidInputError if they do not suit the leader."""
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


def _plain(value: Any) -> Any:
    """A cell as the log keeps it: what msgpack cannot hold becomes text."""
    kind = type(value)
    if kind is float or kind is str or value is None or kind is bool:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else float(value) if abs(value) < 2**1023 else str(value)
    if isinstance(value, np.generic):
        return value.item()
    return msgspec.json.encode(value).decode()


def _plain_column(values: Any) -> list[Any] | None:
    if values is None:
        return None
    if isinstance(values, np.ndarray):
        plain: list[Any] = values.tolist()
        return plain
    return [_plain(value) for value in values]
