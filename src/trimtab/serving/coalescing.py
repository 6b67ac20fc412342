"""Single rows that are ready in one turn of the event loop share one model call and one write of the log.

Nobody waits for company: a row that comes alone is answered at once. Each row is checked and encoded before
it joins the others, so one that the model cannot take fails its own request only; a model that fails on the
rows together is asked for each of them by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from trimtab.errors import InvalidInputError, UnavailableError
from trimtab.models.runtimes.predictor import Predictor
from trimtab.serving.frames import RowFrame, encoded
from trimtab.serving.loaded_endpoints import LoadedEndpoint
from trimtab.serving.model_failures import Failure, failure_of, record_failures
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import Answer, DeadlineError, Question

MOST_ROWS = 256
"""Rows that one model call takes at most, since all others wait for it."""

_log = logging.getLogger(__name__)


class Row:
    """One row that waits for its answer: what each version on the route takes of it, in their order (None: it
    is not what that version takes), and why."""

    __slots__ = ("answer", "cells", "encoded", "failures", "id", "leader", "pinned", "question")

    def __init__(
        self, question: Question, id: str, leader: int, pinned: int | None, answer: asyncio.Future[Answer]
    ) -> None:
        assert question.row is not None
        self.question = question
        self.cells = row = question.row
        self.id = id
        self.leader = leader
        self.pinned = pinned
        self.encoded: list[Sequence[float] | None] = []
        self.failures: list[Failure] = []
        self.answer = answer
        endpoint = question.endpoint
        for place, predictor in enumerate(endpoint.predictors):
            try:
                self.encoded.append(
                    predictor.encoded_row(row, ignore_unknown=endpoint.lenient or place != leader)
                )
            except InvalidInputError as error:
                if place == leader:
                    raise
                # A version on trial must not cost a caller the answer of the one that stands.
                self.encoded.append(None)
                self.failures.append((place, error))


class Coalescer:
    """Answers single rows for one gateway worker, within its event loop."""

    def __init__(self, ids: PredictionIds, log: PredictionLog) -> None:
        self._ids = ids
        self._log = log
        self._waiting: list[Row] = []
        self._patient: dict[LoadedEndpoint, list[Row]] = {}  # those whose endpoint lets them wait for company

    async def answer(self, question: Question, leader: int, pinned: int | None) -> Answer:
        """Answer a row together with those that are ready now. Raises InvalidInputError, ModelFailedError,
        UnavailableError if it cannot be logged."""
        endpoint = question.endpoint
        loop = asyncio.get_running_loop()
        row = Row(question, self._ids.mint(endpoint.name), leader, pinned, loop.create_future())
        if wait := endpoint.options.max_wait_ms:
            patient = self._patient.setdefault(endpoint, [])
            patient.append(row)
            if len(patient) == 1:
                loop.call_later(wait / 1000, self._patience_ends, endpoint)
            elif len(patient) == MOST_ROWS:
                self._patience_ends(endpoint)
        else:
            if not self._waiting:
                loop.call_soon(self._turn)
            self._waiting.append(row)
        return await row.answer

    def _patience_ends(self, endpoint: LoadedEndpoint) -> None:
        """Let those who waited for company be answered with all others."""
        if rows := self._patient.pop(endpoint, None):
            if not self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)
            self._waiting.extend(rows)

    def _turn(self) -> None:
        """Answer all that wait."""
        waiting, self._waiting = self._waiting, []
        groups: dict[LoadedEndpoint, list[Row]] = defaultdict(list)
        for row in waiting:
            if row.answer.done():  # its caller is gone
                continue
            try:
                row.question.check_deadline()
            except DeadlineError as error:
                row.answer.set_exception(error)
            else:
                groups[row.question.endpoint].append(row)
        for endpoint, rows in groups.items():
            for start in range(0, len(rows), MOST_ROWS):
                some = rows[start : start + MOST_ROWS]
                for row, outcome in zip(some, self._guarded(endpoint, some), strict=True):
                    if isinstance(outcome, Exception):
                        row.answer.set_exception(outcome)
                    else:
                        row.answer.set_result(outcome)

    def _guarded(self, endpoint: LoadedEndpoint, rows: list[Row]) -> list[Answer | Exception]:
        try:
            return self._answered(endpoint, rows)
        except Exception as error:  # noqa: BLE001  (a bug fails these requests, and leaves no caller waiting)
            return [error] * len(rows)

    def _answered(self, endpoint: LoadedEndpoint, rows: list[Row]) -> list[Answer | Exception]:
        scores = [_scores(predictor, rows, place) for place, predictor in enumerate(endpoint.predictors)]
        outcomes: list[Answer | Exception] = []
        frames: list[bytes] = []
        for number, row in enumerate(rows):
            said = [score[number] for score in scores]
            if row.failures:
                record_failures(self._log, row.question, row.failures)
            if said[row.leader] is None:
                outcomes.append(failure_of(row.question, row.leader, row.failures))
                continue
            answer, frame = _logged(row, said)
            outcomes.append(answer)
            if frame is not None:
                frames.append(frame)
        if frames:
            at = min(row.question.at for row in rows)
            try:
                self._log.predicted(b"".join(frames), rows=len(frames), at=at, entry=endpoint.entry)
            except UnavailableError as error:
                return [error if isinstance(outcome, Answer) else outcome for outcome in outcomes]
        return outcomes


def _scores(predictor: Predictor, rows: list[Row], place: int) -> list[float | None]:
    """What one version says to each row; what it fails on is noted in the row."""
    given = [values for row in rows if (values := row.encoded[place]) is not None]
    if len(given) > 1:
        try:
            made = predictor.scores(np.array(given, dtype=np.float64)).tolist()
        except Exception as error:  # noqa: BLE001  (then each by itself, to find the row that it is about)
            _log.debug("%s rows together failed: %s", len(given), error)
        else:
            if len(given) == len(rows):
                return list(made)
            following = iter(made)
            return [None if row.encoded[place] is None else next(following) for row in rows]
    scores: list[float | None] = []
    for row in rows:
        score = None
        if (values := row.encoded[place]) is not None:
            try:
                score = predictor.score(values)
            except Exception as error:  # noqa: BLE001  (told to this row's caller, and recorded)
                row.failures.append((place, error))
        scores.append(score)
    return scores


def _logged(row: Row, scores: list[float | None]) -> tuple[Answer, bytes | None]:
    """The answer to a row, and its frame, if it is to be logged."""
    question, endpoint = row.question, row.question.endpoint
    key = question.key
    if row.pinned is not None:
        arm = row.pinned
    else:
        arm = endpoint.chooser.place(key or question.request_id or row.id)
        if scores[arm] is None:
            arm = row.leader
    score = scores[arm]
    assert score is not None
    answer = Answer(row.id, [score], [endpoint.versions[arm]])
    if not endpoint.sampler.takes(key or question.request_id or row.id):
        return answer, None
    cells, given = row.cells, row.encoded[row.leader]
    if given is not None and row.leader == endpoint.primary and endpoint.primary_row_is_logged_row:
        values: Sequence[Any] = given  # the very numbers that the model took
    else:
        values = [None if name is None else plain(cells.get(name)) for name in endpoint.logged]
    frame = encoded(
        RowFrame(
            ref=endpoint.entry.ref,
            id=row.id,
            at=question.at,
            key=key,
            arm=arm,
            values=values,
            scores=scores,
            took=(time.perf_counter_ns() - question.started) // 1000,
        )
    )
    return answer, frame


def plain(value: Any) -> Any:
    """A cell as the log keeps it: what msgpack cannot hold becomes text."""
    kind = type(value)
    if kind is float or kind is str or value is None or kind is bool:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else float(value) if abs(value) < 2**1023 else str(value)
    if isinstance(value, np.generic):
        return value.item()
    return msgspec.json.encode(value).decode()
