"""From a request's columns to its answer: every version scores, one answers, and all of it is logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Any

import msgspec
import numpy as np

from trimtab.errors import InvalidInputError, unknown
from trimtab.serving.coalescing import Coalescer
from trimtab.serving.many_rows import ManyRows
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import Answer, OverloadedError, Question


class Answering:
    """Answers questions for one gateway worker."""

    def __init__(self, ids: PredictionIds, log: PredictionLog) -> None:
        self.ids = ids
        self._coalescer = Coalescer(ids, log)
        self._many = ManyRows(ids, log)
        self._busy: Counter[str] = Counter()

    async def answer(self, question: Question) -> Answer:
        """Score, log and answer. Raises InvalidInputError for input that the model cannot take,
        UnavailableError if it cannot be logged, OverloadedError, DeadlineError, ModelFailedError."""
        endpoint = question.endpoint
        if self._busy[endpoint.name] >= endpoint.options.max_in_flight:
            raise OverloadedError(
                f"The endpoint '{endpoint.name}' works on {endpoint.options.max_in_flight} requests already.",
                hint="Come back a little later.",
            )
        self._busy[endpoint.name] += 1
        try:
            return await self._answering(question)
        finally:
            self._busy[endpoint.name] -= 1

    def _answering(self, question: Question) -> Awaitable[Answer]:
        """What will answer it."""
        endpoint = question.endpoint
        named = question.columns if question.row is None else question.row
        if endpoint.lenient and not named.keys() <= endpoint.accepted:
            name = next(name for name in named if name not in endpoint.accepted)
            raise InvalidInputError(
                f"The model has no input column '{name}'.",
                hint=unknown("column", name, endpoint.columns).hint,
            )
        leader = endpoint.place_of(question.version)
        pinned = None if question.version is None else leader
        if endpoint.blocking:
            return self._many.answer_apart(question, leader, pinned)
        row = _single(question)
        if row is not None:
            return self._coalescer.answer(row, leader, pinned)
        return self._many.answer(question, leader, pinned)


def _single(question: Question) -> Question | None:
    """The same question about one row by name, or None if it is about several, or not plainly about one."""
    if question.row is not None:
        return question
    row = {name: values[0] for name, values in question.columns.items() if _is_one(values)}
    if not row or len(row) != len(question.columns):
        return None
    key = question.key if question.keys is None else question.keys[0]
    return msgspec.structs.replace(question, columns={}, row=row, key=key, keys=None)


def _is_one(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return bool(values.shape == (1,))
    # Not np.ndim, which fails on values that are nested unevenly.
    return isinstance(values, list | tuple) and len(values) == 1 and not isinstance(values[0], list | tuple)
