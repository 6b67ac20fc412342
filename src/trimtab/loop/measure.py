"""What is measured of a challenger in rollout, from the answers that both versions gave."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from trimtab.loop.cycle import Cycle
from trimtab.loop.declaration import Declaration
from trimtab.loop.rollout import Measure, Plan
from trimtab.monitoring.outcomes import Outcomes
from trimtab.statistics.metrics import Metric, is_built_in, metric
from trimtab.statistics.sequential import block_means, judge
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 5, tzinfo=UTC)
_DAY_MICROSECONDS = DAY // timedelta(microseconds=1)


@dataclass(frozen=True)
class Pairs:
    """Requests that reached both versions: when (microseconds since 1970), what each answered (NaN where it
    failed), and the label (NaN while there is none)."""

    at: NDArray[np.int64]
    label: NDArray[np.float64]
    champion: NDArray[np.float64]
    challenger: NDArray[np.float64]


def measure_pairs(
    pairs: Pairs, *, metric: Metric, bias: Metric, plan: Plan, start: datetime, complete: datetime
) -> Measure:
    """The test's verdict and the numbers of the absolute checks.

    The test's blocks are the days counted from `start` that end at or before `complete`: those whose
    labels are in. The checks look at every request so far.
    """
    both = np.isfinite(pairs.champion) & np.isfinite(pairs.challenger)
    labelled = both & np.isfinite(pairs.label)
    day = (pairs.at - to_microseconds(start)) // _DAY_MICROSECONDS
    whole = labelled & (day >= 0) & (day < (complete - start) // DAY)
    days = np.unique(day[whole])
    differences = _differences(pairs, whole, day, metric)
    days, differences = days[np.isfinite(differences)], differences[np.isfinite(differences)]
    verdict = judge(
        differences,
        margin=plan.margin,
        alpha=plan.alpha,
        min_blocks=plan.min_blocks,
        tuned_for=plan.tuned_for,
    )
    requests = int(np.isfinite(pairs.champion).sum())
    answers = int(both.sum())
    return Measure(
        verdict=verdict,
        metric=metric.name,
        pairs=int(labelled.sum()),
        days=tuple(f"{start + int(number) * DAY:%Y-%m-%d}" for number in days),
        differences=tuple(float(value) for value in differences),
        champion_metric=_value(metric, pairs.label[labelled], pairs.champion[labelled]),
        challenger_metric=_value(metric, pairs.label[labelled], pairs.challenger[labelled]),
        champion_bias=_value(bias, pairs.label[labelled], pairs.champion[labelled]),
        challenger_bias=_value(bias, pairs.label[labelled], pairs.challenger[labelled]),
        answers=answers,
        answer_ratio=_median_ratio(pairs.challenger[both], pairs.champion[both]),
        errors=requests - answers,
        error_rate=(requests - answers) / requests if requests else None,
    )


def measure_cycle(workspace: Workspace, declared: Declaration, cycle: Cycle, at: datetime) -> Measure:
    """What the predictions of a cycle's rollout up to `at` say of its challenger. Runs the user's code if the
    loop's metric is the user's."""
    assert cycle.rollout_started is not None
    assert cycle.candidate is not None
    assert cycle.baseline is not None
    joined = Outcomes(workspace).joined(declared.endpoint, cycle.rollout_started, at)
    missing = np.full(len(joined), np.nan)
    pairs = Pairs(
        at=joined.at,
        label=joined.label,
        champion=joined.scores.get(cycle.baseline, missing),
        challenger=joined.scores.get(cycle.candidate, missing),
    )
    return measure_pairs(
        pairs,
        metric=metric(compared_by(declared)),
        bias=metric(declared.bias),
        plan=declared.rollout.plan,
        start=cycle.rollout_started,
        complete=at - declared.label_wait,
    )


def compared_by(declared: Declaration) -> str:
    """The metric that a loop's rollouts compare versions by."""
    return declared.rollout.metric or declared.metric


def needs_user_code(declared: Declaration) -> bool:
    """Whether only a worker can measure the loop's rollouts."""
    return not is_built_in(compared_by(declared))


def _differences(
    pairs: Pairs, rows: NDArray[np.bool_], day: NDArray[np.int64], metric: Metric
) -> NDArray[np.float64]:
    """Mean loss of the challenger minus the champion's, for each day; for a metric that is no mean of
    row losses, the day's metric itself, signed so that less is better."""
    if not rows.any():
        return np.zeros(0)
    labels, champion, challenger = pairs.label[rows], pairs.champion[rows], pairs.challenger[rows]
    ours, theirs = metric.row_loss(labels, challenger), metric.row_loss(labels, champion)
    if ours is not None and theirs is not None:
        return block_means(ours - theirs, day[rows])
    sign = -1.0 if metric.higher_is_better else 1.0
    values = []
    for number in np.unique(day[rows]):
        part = day[rows] == number
        values.append(
            metric.value(labels[part], challenger[part]) - metric.value(labels[part], champion[part])
        )
    return sign * np.asarray(values, dtype=np.float64)


def _value(metric: Metric, labels: NDArray[np.float64], predictions: NDArray[np.float64]) -> float | None:
    return float(metric.value(labels, predictions)) if labels.size else None


def _median_ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float | None:
    """The median of the challenger's answer over the champion's where the latter is not zero."""
    there = theirs != 0
    return float(np.median(ours[there] / theirs[there])) if there.any() else None


def next_look(
    plan: Plan, *, at: datetime, started: datetime, ends: datetime | None, wait: timedelta
) -> datetime:
    """The first moment after `at` at which a rollout may come to another decision: a check is due, a day's
    labels are in, the stage's dwell `ends`, or its time is over."""
    from_epoch = (at - _EPOCH) // plan.look_every
    moments = [_EPOCH + (from_epoch + 1) * plan.look_every, started + plan.max_duration]
    moments.append(started + wait + ((at - started - wait) // DAY + 1) * DAY)
    if ends is not None:
        moments.append(ends)
    return min(moment for moment in moments if moment > at)
