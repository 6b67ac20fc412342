"""How a challenger becomes champion: the declared ways, and the rule that all of them share.

In every stage both versions score every request and one of them answers, so each label gives a paired
comparison. The pairs of all stages feed one anytime-valid test; beside it stand absolute checks, because
a comparison alone can favour a challenger that errs where the champion happens to err the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args

import msgspec

from trimtab.errors import InvalidInputError
from trimtab.loop.schedule import duration
from trimtab.statistics.sequential import TUNED_FOR, Verdict

Inconclusive = Literal["promote", "roll_back"]


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """Absolute limits on a challenger in rollout; None leaves one out.

    `answer_ratio`: bounds on the median of its answer over the champion's (needs no labels).
    `max_bias`: largest absolute bias against labels that is always tolerated; beyond it the challenger
    must not lean more than the champion does by over `bias_slack`.
    `error_rate`: largest share of requests that it fails to score.
    """

    answer_ratio: tuple[float, float] | None = (0.5, 2.0)
    max_bias: float | None = None
    bias_slack: float = 0.0
    error_rate: float | None = 0.01
    min_answers: int = 20
    min_labels: int = 20


class Stage(msgspec.Struct, frozen=True):
    """One stage: the challenger's share of answers in percent (0 is shadow), and its least length."""

    share: float
    dwell: timedelta

    @property
    def state(self) -> Literal["shadow", "canary"]:
        """The state of a cycle in this stage."""
        return "shadow" if self.share == 0 else "canary"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a declared rollout comes to. `evidence`: days of labels without which an undecided test
    promotes nothing, whatever is declared."""

    stages: tuple[Stage, ...]
    checks: Checks
    max_duration: timedelta
    margin: float
    alpha: float
    min_blocks: int
    tuned_for: int
    inconclusive: Inconclusive
    evidence: int
    metric: str
    look: str

    @property
    def look_every(self) -> timedelta:
        """How often the absolute checks are made."""
        return duration(self.look)


class Judged(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What all rollouts share: the test on paired losses and the absolute checks beside it.

    `margin` is in units of the metric's row loss (squared log error for rmsle): a challenger that is not
    worse by more than it is acceptable. `min_blocks`: days of labels before the test says anything;
    `tuned_for`: days at which it is sharpest. If it has not decided within `max_duration`, `inconclusive`
    says what happens. `answer_ratio`, `max_bias`, `bias_slack` and `error_rate`: see `Checks`. `metric`
    names the loss (by default the loop's); `look`: how often the absolute checks are made.
    """

    max_duration: str = "21d"
    margin: float = 0.0
    alpha: float = 0.05
    min_blocks: int = 5
    tuned_for: int = TUNED_FOR
    inconclusive: Inconclusive = "roll_back"
    answer_ratio: tuple[float, float] | None = (0.5, 2.0)
    max_bias: float | None = None
    bias_slack: float = 0.05
    error_rate: float | None = 0.01
    metric: str = ""
    look: str = "1h"

    def __post_init__(self) -> None:
        _settle(self)
        _check(self)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that this declares, in order."""
        raise NotImplementedError

    @property
    def plan(self) -> Plan:
        """The stages and rules that this declares."""
        return Plan(
            stages=self.stages,
            checks=Checks(
                answer_ratio=self.answer_ratio,
                max_bias=self.max_bias,
                bias_slack=self.bias_slack,
                error_rate=self.error_rate,
            ),
            max_duration=duration(self.max_duration),
            margin=self.margin,
            alpha=self.alpha,
            min_blocks=self.min_blocks,
            tuned_for=self.tuned_for,
            inconclusive=self.inconclusive,
            evidence=self.min_blocks,
            metric=self.metric,
            look=self.look,
        )


class Canary(Judged, frozen=True, kw_only=True, tag="canary"):
    """Shadow first, then growing shares of the answers.

    `steps`: shares in percent, growing, the last one 100. `shadow`: least time in shadow ("0h" leaves it
    out); `dwell`: least time at each step, one for all or one each. A step below 100 is taken unless the
    test finds the challenger inferior; 100 and promotion need it to be found superior or non-inferior.
    """

    steps: Sequence[float] = (5, 25, 100)
    shadow: str = "2d"
    dwell: str | Sequence[str] = "2d"

    def __post_init__(self) -> None:
        _settle(self)
        steps = self.steps
        if not steps or any(b <= a for a, b in zip((0.0, *steps), steps, strict=False)) or steps[-1] != 100:
            raise InvalidInputError(
                f"Canary(steps={list(steps)}) does not grow from above 0 to 100 percent.",
                hint="Write growing shares that end with 100, as in steps=[5, 25, 100].",
            )
        if not isinstance(self.dwell, str) and len(self.dwell) != len(steps):
            raise InvalidInputError(
                f"Canary has {len(steps)} steps and {len(self.dwell)} dwells.",
                hint="Give one dwell, or one for each step.",
            )
        _check(self)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Shadow, then the steps."""
        dwells = (self.dwell,) * len(self.steps) if isinstance(self.dwell, str) else self.dwell
        shadow = Stage(0.0, duration(self.shadow))
        steps = (Stage(share, duration(dwell)) for share, dwell in zip(self.steps, dwells, strict=True))
        return (shadow, *steps) if shadow.dwell else tuple(steps)


class Shadow(Judged, frozen=True, kw_only=True, tag="shadow"):
    """The challenger answers nothing until the test accepts it, then everything at once."""

    dwell: str = "5d"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Shadow alone."""
        return (Stage(0.0, duration(self.dwell)),)


class BlueGreen(Judged, frozen=True, kw_only=True, tag="blue_green"):
    """The challenger answers everything at once while the old champion stands by for `max_duration`,
    to take over again if the test or a check turns against the challenger."""

    dwell: str = "1d"
    max_duration: str = "2d"
    inconclusive: Inconclusive = "promote"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Everything, at once."""
        return (Stage(100.0, duration(self.dwell)),)

    @property
    def plan(self) -> Plan:
        """The stage and the rules; it may be promoted without labels, since it answers already."""
        return msgspec.structs.replace(super().plan, evidence=0)


Rollout = Canary | Shadow | BlueGreen


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a challenger in rollout, up to one look.

    `pairs` and `days`: labelled rows that both scored, and whole days of them; `differences`: mean loss of
    the challenger minus the champion's for each of those days. Biases are in units of the loop's bias
    metric; `answer_ratio` is a median. None where there is too little to tell.
    """

    verdict: Verdict
    metric: str
    pairs: int = 0
    days: tuple[str, ...] = ()
    differences: tuple[float, ...] = ()
    champion_metric: float | None = None
    challenger_metric: float | None = None
    champion_bias: float | None = None
    challenger_bias: float | None = None
    answers: int = 0
    answer_ratio: float | None = None
    errors: int = 0
    error_rate: float | None = None


class Decision(msgspec.Struct, frozen=True):
    """What a look at a rollout comes to. `stage` is the place in the plan to go to, for "advance"."""

    action: Literal["stay", "advance", "promote", "roll_back"]
    reason: str
    stage: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rollout stands. `since`: when the stage's route was seen on every live gateway; None before."""

    stage: int
    started: datetime
    since: datetime | None
    at: datetime


def failed_check(checks: Checks, measure: Measure) -> str | None:
    """The first absolute limit that the challenger breaks, in words; None if it keeps all of them."""
    ratio = measure.answer_ratio
    if checks.answer_ratio is not None and ratio is not None and measure.answers >= checks.min_answers:
        low, high = checks.answer_ratio
        if not low <= ratio <= high:
            return f"its answers are {ratio:.3g} times the champion's (median; allowed {low:g} to {high:g})"
    if checks.error_rate is not None and measure.error_rate is not None:
        requests = measure.answers + measure.errors
        if requests >= checks.min_answers and measure.error_rate > checks.error_rate:
            share, allowed = measure.error_rate, checks.error_rate
            return f"it failed on {share:.2%} of {requests} requests (allowed {allowed:.2%})"
    return _failed_bias(checks, measure)


def _failed_bias(checks: Checks, measure: Measure) -> str | None:
    own, other = measure.challenger_bias, measure.champion_bias
    if checks.max_bias is None or own is None or other is None or measure.pairs < checks.min_labels:
        return None
    if abs(own) <= checks.max_bias or abs(own) <= abs(other) + checks.bias_slack:
        return None
    limit = f"allowed {checks.max_bias:g}; the champion's is {other:+.3g}"
    return f"its bias against the labels is {own:+.3g} ({limit})"


def decide(plan: Plan, standing: Standing, measure: Measure) -> Decision:
    """What to do with a challenger now. Pure: the same numbers always give the same answer."""
    if (broken := failed_check(plan.checks, measure)) is not None:
        return Decision("roll_back", broken)
    verdict = measure.verdict
    if verdict.decision == "inferior":
        return Decision("roll_back", f"it is worse on live labels ({_numbers(verdict)})")
    last = standing.stage == len(plan.stages) - 1
    dwelt = standing.since is not None and standing.at - standing.since >= plan.stages[standing.stage].dwell
    if dwelt and verdict.acceptable:
        words = f"it is {verdict.decision.replace('_', '-')} on live labels ({_numbers(verdict)})"
        return Decision("promote", words) if last else Decision("advance", words, standing.stage + 1)
    if dwelt and not last and plan.stages[standing.stage + 1].share < 100:
        words = f"nothing speaks against it after {verdict.blocks} days of labels"
        return Decision("advance", words, standing.stage + 1)
    if standing.at - standing.started >= plan.max_duration and not verdict.acceptable:
        return _inconclusive(plan, verdict)
    return Decision("stay", f"{verdict.decision} after {verdict.blocks} days of labels")


def _inconclusive(plan: Plan, verdict: Verdict) -> Decision:
    days = plan.max_duration / timedelta(days=1)
    words = f"undecided after {days:g} days ({_numbers(verdict)}); declared outcome: {plan.inconclusive}"
    if plan.inconclusive == "promote" and verdict.blocks >= plan.evidence:
        return Decision("promote", words)
    if plan.inconclusive == "promote":
        words = f"only {verdict.blocks} days of labels in {days:g} days: no evidence to promote on"
    return Decision("roll_back", words)


def _numbers(verdict: Verdict) -> str:
    if verdict.mean is None:
        return f"{verdict.blocks} days of labels, too few to compare"
    return (
        f"loss difference {verdict.mean:+.4g} in [{verdict.lower:+.4g}, {verdict.upper:+.4g}] "
        f"over {verdict.blocks} days, margin {verdict.margin:.4g}"
    )


def _settle(rollout: Judged) -> None:
    """Turn lists that a user wrote into the tuples that the fields declare."""
    for field in rollout.__struct_fields__:
        value = getattr(rollout, field)
        if isinstance(value, list):
            msgspec.structs.force_setattr(rollout, field, tuple(value))


def _check(rollout: Judged) -> None:
    kind = type(rollout).__name__
    least = sum((stage.dwell for stage in rollout.stages), timedelta(0))
    if duration(rollout.max_duration) < least:
        raise InvalidInputError(
            f"{kind}(max_duration='{rollout.max_duration}') ends before its stages can, which take {least}.",
            hint="Give a longer max_duration, or shorter stages.",
        )
    if not 0 < rollout.alpha < 1:
        raise InvalidInputError(f"{kind}(alpha={rollout.alpha}) is not between 0 and 1.", hint="Give 0.05.")
    if rollout.margin < 0:
        raise InvalidInputError(f"{kind}(margin={rollout.margin}) is negative.", hint="Give zero or more.")
    if rollout.min_blocks < 2:
        raise InvalidInputError(f"{kind}(min_blocks={rollout.min_blocks}) is below 2.", hint="Give 5, say.")
    if rollout.inconclusive not in get_args(Inconclusive):
        raise InvalidInputError(
            f"{kind}(inconclusive='{rollout.inconclusive}') is not known.",
            hint="Give 'promote' or 'roll_back'.",
        )
    bounds = rollout.answer_ratio
    if bounds is not None and not 0 < bounds[0] < 1 < bounds[-1]:
        raise InvalidInputError(
            f"{kind}(answer_ratio={bounds}) is not a pair around 1.", hint="Write (0.5, 2.0), say."
        )
    if duration(rollout.look) < timedelta(minutes=1):
        raise InvalidInputError(f"{kind}(look='{rollout.look}') is too often.", hint="Give at least '1m'.")
