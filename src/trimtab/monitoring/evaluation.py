"""Judging by a monitor: from stored outcomes and profiles to a finding with its numbers."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.data.profiles import Profile
from trimtab.monitoring.drift import effects
from trimtab.monitoring.live_profiles import ANSWER, LATENCY, LiveProfiles
from trimtab.monitoring.monitors import (
    Bias,
    Drift,
    Finding,
    Monitor,
    Number,
    Performance,
    ServiceLevel,
    Status,
    kind_of,
    name_of,
)
from trimtab.monitoring.outcomes import Joined, Outcomes
from trimtab.statistics.metrics import metric
from trimtab.workspace import Workspace

WORST_SHOWN = 10
"""Features whose effect a finding names, the worst first."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is watched: an endpoint, the version that is champion there and since when.

    `reference` profiles the rows that the champion was trained on; without it drift has nothing to be
    compared with.
    """

    endpoint: str
    champion: int | None
    champion_since: datetime | None
    reference: Profile | None = None


def evaluate(workspace: Workspace, subject: Subject, monitor: Monitor, at: datetime) -> Finding:
    """Judge the span of event time that ends at `at` (excluded).

    A performance monitor with a user's metric loads it, so call that only where user code may run.
    """
    start = at - timedelta(days=monitor.days)
    status: Status
    numbers: dict[str, Number]
    match monitor:
        case Drift():
            status, numbers = _drift(workspace, subject, monitor, start, at)
        case Performance():
            status, numbers = _performance(workspace, subject, monitor, start, at)
        case Bias():
            status, numbers = _bias(workspace, subject, monitor, start, at)
        case ServiceLevel():
            status, numbers = _service_level(workspace, subject, monitor, start, at)
    return Finding(monitor=name_of(monitor), kind=kind_of(monitor), status=status, numbers=numbers)


Judgement = tuple[Status, dict[str, Number]]


def _drift(
    workspace: Workspace, subject: Subject, monitor: Drift, start: datetime, at: datetime
) -> Judgement:
    live = LiveProfiles(workspace).read(subject.endpoint, start, at)
    rows = 0 if live is None else live.rows
    if live is None or subject.reference is None or rows < monitor.min_rows:
        known = 0 if subject.reference is None else subject.reference.rows
        return "insufficient", {"rows": rows, "needed": monitor.min_rows, "reference_rows": known}
    found = effects(subject.reference, live, monitor.features)
    found = {name: size for name, size in found.items() if name not in (ANSWER, LATENCY)}
    absent = [name for name in monitor.features or () if name not in found]
    if not found or absent:
        unknown = ", ".join(absent) or "all"
        return "insufficient", {"rows": rows, "features": len(found), "not comparable": unknown}
    drifted = [name for name, size in found.items() if size >= monitor.effect]
    worst = sorted(found, key=lambda name: -found[name])[:WORST_SHOWN]
    numbers: dict[str, Number] = {
        "drifted": len(drifted),
        "features": len(found),
        "limit": monitor.effect,
        "rows": rows,
        "reference_rows": subject.reference.rows,
        **{f"effect of {name}": round(found[name], 4) for name in worst},
    }
    return ("alert" if len(drifted) >= monitor.min_features else "ok"), numbers


def _performance(
    workspace: Workspace, subject: Subject, monitor: Performance, start: datetime, at: datetime
) -> Judgement:
    measure = metric(monitor.metric)
    labels, answers = _labelled(workspace, subject, start, at)
    numbers: dict[str, Number] = {"labels": labels.size, "needed": monitor.min_labels}
    if labels.size < monitor.min_labels:
        return "insufficient", numbers
    value = measure.value(labels, answers)
    if not math.isfinite(value):
        return "insufficient", {"value": None, **numbers}
    numbers = {"value": value, **numbers}
    over = monitor.max is not None and not value <= monitor.max
    under = monitor.min is not None and not value >= monitor.min
    limits: dict[str, Number] = {"max": monitor.max, "min": monitor.min}
    numbers |= {name: limit for name, limit in limits.items() if limit is not None}
    if monitor.drop is None:
        return ("alert" if over or under else "ok"), numbers
    first = _first_days(workspace, subject, monitor, at)
    if first is None:
        numbers["drop"] = monitor.drop
        return ("alert" if over or under else "insufficient"), numbers
    before = measure.value(*first)
    if not math.isfinite(before):
        return ("alert" if over or under else "insufficient"), numbers | {"at first": None}
    drop = before - value if measure.higher_is_better else value - before
    numbers |= {"at first": before, "worse by": drop, "drop": monitor.drop}
    return ("alert" if over or under or drop > monitor.drop else "ok"), numbers


def _first_days(
    workspace: Workspace, subject: Subject, monitor: Performance, at: datetime
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Labels and answers of the champion's first days; None while these are not over or too few."""
    if subject.champion_since is None:
        return None
    end = subject.champion_since + timedelta(days=monitor.days)
    if end > at:
        return None
    labels, answers = _labelled(workspace, subject, subject.champion_since, end)
    return (labels, answers) if labels.size >= monitor.min_labels else None


def _bias(workspace: Workspace, subject: Subject, monitor: Bias, start: datetime, at: datetime) -> Judgement:
    labels, answers = _labelled(workspace, subject, start, at)
    if labels.size < monitor.min_labels:
        return "insufficient", {"labels": labels.size, "needed": monitor.min_labels}
    value = metric("log_bias" if monitor.log else "bias").value(labels, answers)
    numbers: dict[str, Number] = {"value": value, "max_abs": monitor.max_abs, "labels": labels.size}
    return ("ok" if abs(value) <= monitor.max_abs else "alert"), numbers


def _service_level(
    workspace: Workspace, subject: Subject, monitor: ServiceLevel, start: datetime, at: datetime
) -> Judgement:
    live = LiveProfiles(workspace)
    requests, failures = live.service(subject.endpoint, start, at)
    numbers: dict[str, Number] = {"requests": requests, "failures": failures, "needed": monitor.min_requests}
    if requests < monitor.min_requests:
        return "insufficient", numbers
    broken = False
    if monitor.error_rate is not None:
        rate = failures / requests
        numbers |= {"error_rate": rate, "limit": monitor.error_rate}
        broken = rate > monitor.error_rate
    if monitor.p99_ms is not None:
        profile = live.read(subject.endpoint, start, at)
        p99 = (
            float(profile.quantiles(LATENCY, [0.99])[0]) if profile and LATENCY in profile.features else None
        )
        numbers |= {"p99_ms": p99, "p99_limit_ms": monitor.p99_ms}
        if p99 is None and not broken:
            return "insufficient", numbers
        broken = broken or (p99 is not None and p99 > monitor.p99_ms)
    return ("alert" if broken else "ok"), numbers


def _labelled(
    workspace: Workspace, subject: Subject, start: datetime, end: datetime
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels, and what the champion said, of the predictions of a span that have both."""
    joined = Outcomes(workspace).joined(subject.endpoint, start, end)
    answers = champion_answers(joined, subject.champion)
    both = joined.labelled & np.isfinite(answers)
    return joined.label[both], answers[both]


def champion_answers(joined: Joined, champion: int | None) -> NDArray[np.float64]:
    """What the champion said, whoever answered; where it did not score a request, what was answered."""
    scores = joined.scores.get(champion) if champion is not None else None
    return joined.answer if scores is None else np.where(np.isfinite(scores), scores, joined.answer)
