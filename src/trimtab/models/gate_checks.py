"""How each gate is judged: one function for each, from the evidence to its numbers and its reason.

A function here either answers or raises; whatever it raises, the gate does not pass.
"""

from __future__ import annotations

import functools
import math
import time
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.models import gates
from trimtab.models.candidates import Numbers
from trimtab.models.evidence import Evidence, NoEvidenceError
from trimtab.statistics.intervals import paired_block_bound
from trimtab.statistics.metrics import metric

LATENCY_CALLS = 1000
LATENCY_ROWS = 200


class Finding(NamedTuple):
    """Whether the gate passed, its numbers, and one sentence for a person."""

    passed: bool
    numbers: dict[str, float | str | None]
    reason: str


@functools.singledispatch
def check(gate: object, evidence: Evidence) -> Finding:
    """Judge one gate."""
    raise NoEvidenceError(f"nothing knows how to judge a gate of the type {type(gate).__name__}")


@check.register
def _metric(gate: gates.Metric, evidence: Evidence) -> Finding:
    value = _value(gate.metric, evidence.held_out.labels, evidence.candidate.answers)
    passed = _within(value, gate.min, gate.max)
    return Finding(
        passed,
        {"value": value, "min": gate.min, "max": gate.max, **evidence.held_out.numbers},
        f"{gate.metric} is {value:.4g}, {_bounds(gate.min, gate.max, passed)}",
    )


@check.register
def _beats_champion(gate: gates.BeatsChampion, evidence: Evidence) -> Finding:
    if evidence.champion is None:
        return _NO_CHAMPION
    measure = metric(gate.metric)
    sign = -1.0 if measure.higher_is_better else 1.0
    labels, mine, theirs = evidence.held_out.labels, evidence.candidate.answers, evidence.champion.answers

    def worse_by(rows: NDArray[np.bool_]) -> float:
        of_mine = _value(gate.metric, labels[rows], mine[rows])
        return sign * (of_mine - _value(gate.metric, labels[rows], theirs[rows]))

    contributions = evidence.delete_one_day(worse_by)
    bound = paired_block_bound(contributions, np.arange(contributions.size), gate.level)
    of_mine, of_theirs = _value(gate.metric, labels, mine), _value(gate.metric, labels, theirs)
    passed = bound.upper < gate.margin
    wanted = (
        "better"
        if gate.margin == 0
        else f"worse by less than {gate.margin:g}"
        if gate.margin > 0
        else f"better by more than {-gate.margin:g}"
    )
    return Finding(
        passed,
        {
            "value": of_mine,
            "champion": of_theirs,
            "worse_by": bound.mean,
            "worse_by_at_most": bound.upper,
            "margin": gate.margin,
            "level": gate.level,
            **evidence.held_out.numbers,
        },
        f"{gate.metric} is {of_mine:.4g} against the champion's {of_theirs:.4g}; at {gate.level:.0%} "
        f"confidence it is {_signed(bound.upper)}; demanded: {wanted}",
    )


@check.register
def _latency(gate: gates.Latency, evidence: Evidence) -> Finding:
    asked = evidence.held_out.rows.head(LATENCY_ROWS)
    if not asked.height:
        raise NoEvidenceError("there are no held-out rows to ask")
    ask = evidence.candidate.loaded.singles(asked)
    taken = np.empty(LATENCY_CALLS)
    for each in ask:  # warms up
        each()
    for call in range(LATENCY_CALLS):
        each = ask[call % len(ask)]
        began = time.perf_counter()
        each()
        taken[call] = time.perf_counter() - began
    median, p99 = (float(value) * 1000 for value in np.quantile(taken, [0.5, 0.99]))
    passed = p99 <= gate.p99_ms
    return Finding(
        passed,
        {"p99_ms": p99, "median_ms": median, "max_p99_ms": gate.p99_ms, "calls": LATENCY_CALLS},
        f"99 of 100 single predictions took at most {p99:.3g} ms, {_bounds(None, gate.p99_ms, passed)}",
    )


@check.register
def _signature(gate: gates.Signature, evidence: Evidence) -> Finding:
    mine = evidence.candidate.loaded
    numbers: dict[str, float | str | None] = {"columns": len(mine.inputs or ())}
    if evidence.champion is None:
        return Finding(True, {**numbers, "champion": "none"}, "it answers its example; no champion yet")
    theirs = evidence.champion.loaded
    refusals = list(mine.refusals_of(theirs))
    if mine.target != theirs.target and mine.target and theirs.target:
        refusals.append(f"it predicts '{mine.target}' and the champion '{theirs.target}'")
    numbers["refusals"] = len(refusals)
    if refusals:
        return Finding(False, numbers, f"requests to the champion would fail: {'; '.join(refusals)}")
    return Finding(True, numbers, "it answers its example and every request that the champion answers")


@check.register
def _slice_minimum(gate: gates.SliceMinimum, evidence: Evidence) -> Finding:
    held_out = evidence.held_out
    if gate.column not in held_out.rows.columns:
        raise NoEvidenceError(f"the held-out rows have no column '{gate.column}'")
    answers, labels = evidence.candidate.answers, held_out.labels
    values = held_out.rows.filter(held_out.labelled)[gate.column]
    slices = pl.DataFrame({"value": values, "row": np.arange(labels.size)})
    judged: dict[str, float] = {}
    bad: list[str] = []
    skipped = 0
    for (name,), places in slices.group_by("value", maintain_order=True):
        rows = places["row"].to_numpy()
        if rows.size < gate.min_rows:
            skipped += 1
            continue
        judged[str(name)] = value = _value(gate.metric, labels[rows], answers[rows])
        if not _within(value, gate.min, gate.max):
            bad.append(f"{value:.4g} where {gate.column} is {name}")
    numbers: dict[str, float | str | None] = {
        "slices": len(judged),
        "slices_too_small": skipped,
        "slices_failed": len(bad),
        "min": gate.min,
        "max": gate.max,
        **{f"{gate.column}={name}": value for name, value in judged.items()},
    }
    if not judged:
        return Finding(False, numbers, f"no value of '{gate.column}' has {gate.min_rows} labelled rows")
    if bad:
        return Finding(
            False, numbers, f"{gate.metric} is {', '.join(bad)}, {_bounds(gate.min, gate.max, False)}"
        )
    return Finding(
        True, numbers, f"{gate.metric} of all {len(judged)} slices by {gate.column} is within its bounds"
    )


@check.register
def _bias(gate: gates.Bias, evidence: Evidence) -> Finding:
    value = _value("log_bias" if gate.log else "bias", evidence.held_out.labels, evidence.candidate.answers)
    passed = abs(value) <= gate.max_abs
    kind = "mean log error" if gate.log else "mean error"
    return Finding(
        passed,
        {"bias": value, "max_abs": gate.max_abs, **evidence.held_out.numbers},
        f"the {kind} is {value:+.4g}, {_bounds(-gate.max_abs, gate.max_abs, passed)}",
    )


@check.register
def _answer_ratio(gate: gates.AnswerRatio, evidence: Evidence) -> Finding:
    if evidence.champion is None:
        return _NO_CHAMPION
    mine, theirs = evidence.candidate.all_answers, evidence.champion.all_answers
    usable = theirs != 0
    if not usable.any():
        raise NoEvidenceError("the champion answers every held-out row with 0")
    ratio = float(np.median(mine[usable] / theirs[usable]))
    passed = _within(ratio, gate.low, gate.high)
    return Finding(
        passed,
        {"ratio": ratio, "low": gate.low, "high": gate.high, "rows": int(usable.sum())},
        f"its median answer is {ratio:.4g} times the champion's, {_bounds(gate.low, gate.high, passed)}",
    )


_NO_CHAMPION = Finding(True, {"champion": "none"}, "no champion yet")


def _value(reference: str, labels: Numbers, answers: Numbers) -> float:
    value = float(metric(reference).value(labels, answers))
    if not math.isfinite(value):
        raise NoEvidenceError(f"{reference} of {labels.size} rows is {value}")
    return value


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _bounds(low: float | None, high: float | None, passed: bool) -> str:
    asked = (
        f"between {low:g} and {high:g}"
        if low is not None and high is not None
        else f"at least {low:g}"
        if low is not None
        else f"at most {high:g}"
    )
    return f"{'as' if passed else 'not as'} demanded, {asked}"


def _signed(worse_by: float) -> str:
    return f"at least {-worse_by:.4g} better" if worse_by < 0 else f"at most {worse_by:.4g} worse"
