"""Versions that fail on a request: each is recorded, and a caller told of the one that had to answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from trimtab.errors import TrimtabError
from trimtab.serving.frames import FailureFrame, encoded
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import ModelFailedError, Question

Failure = tuple[int, Exception]
"""The position of a version on the route, and why it failed."""

_log = logging.getLogger(__name__)


def record_failures(log: PredictionLog, question: Question, failures: Iterable[Failure]) -> None:
    """Bring them to the prediction log, so that service levels can be judged, and to the gateway's."""
    name, at = question.endpoint.name, question.at
    for place, error in failures:
        version = question.endpoint.versions[place]
        _log.warning("version %s of '%s' failed to score a request: %s", version, name, error)
        code = error.code if isinstance(error, TrimtabError) else "model_failed"
        log.failed(encoded(FailureFrame(name, at, code, version)), at=at)


def failure_of(question: Question, leader: int, failures: Iterable[Failure]) -> ModelFailedError:
    """What the caller is told where the version that had to answer is among the failures."""
    endpoint = question.endpoint
    reason = next(error for place, error in failures if place == leader)
    return ModelFailedError(
        f"Version {endpoint.versions[leader]} of '{endpoint.name}' failed: {reason}",
        hint="The gateway's log has the details.",
    )
