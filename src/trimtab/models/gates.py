"""Gates: what a model version must show before it may become champion. Declared here, judged elsewhere.

A metric is a name that `trimtab.statistics.metrics` knows, "module:function" of the project, or that function
itself: it takes (labels, predictions), two arrays of numbers, and gives one number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from trimtab.errors import InvalidInputError
from trimtab.models.policy import Policy, PolicyGate
from trimtab.statistics.metrics import reference_of

Reference = Any
"""A metric's name or a function. Any, because msgspec knows no union of a text and a function; checked when
the gate is made, and from then on a text."""


class Gate(msgspec.Struct, frozen=True, tag_field="gate", omit_defaults=True, forbid_unknown_fields=True):
    """What all gates share."""

    @property
    def name(self) -> str:
        """The gate's name in a policy and in reports."""
        return str(self.__struct_config__.tag)


class Metric(Gate, frozen=True, tag="metric"):
    """The metric on the held-out rows is at least `min` and at most `max` (either, or both)."""

    metric: Reference
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        _name_metric(self)
        _check_bounds(self, self.min, self.max)

    @property
    def name(self) -> str:
        """The gate's name in a policy and in reports."""
        return f"metric {self.metric}"


class BeatsChampion(Gate, frozen=True, tag="beats_champion"):
    """The metric is better than the champion's on the same rows, and not by chance.

    The difference is bounded, at one-sided confidence `level`, by the spread of what each day of event time
    contributes to it. `margin`, in the metric's own units, says what is demanded:

    - 0: superiority. The candidate must be better; an equal one does not pass.
    - above 0: non-inferiority. It may be worse, by less than `margin`.
    - below 0: it must be better by more than `-margin`.

    Passes while there is no champion.
    """

    metric: Reference
    margin: float = 0.0
    level: float = 0.95

    def __post_init__(self) -> None:
        _name_metric(self)
        if self.metric in ("bias", "log_bias"):
            raise InvalidInputError(
                f"Of two models the one with the lower {self.metric} is not the better one.",
                hint="Use Bias(max_abs=...) beside BeatsChampion of another metric.",
            )
        if not 0.5 <= self.level < 1.0:
            raise InvalidInputError(f"The level {self.level} is not in [0.5, 1).", hint="Give 0.95, say.")
        _check_finite(self, self.margin)

    @property
    def name(self) -> str:
        """The gate's name in a policy and in reports."""
        return f"beats champion {self.metric}"


class Latency(Gate, frozen=True, tag="latency"):
    """99 of 100 predictions for single rows take at most `p99_ms` milliseconds where the gate is judged."""

    p99_ms: float

    def __post_init__(self) -> None:
        _check_positive(self, self.p99_ms)


class Signature(Gate, frozen=True, tag="signature"):
    """The model loads, answers its own input example, predicts the same target as the champion, and
    accepts every request that the champion accepts (further columns are allowed if nullable)."""


class SliceMinimum(Gate, frozen=True, tag="slice_minimum"):
    """The metric is within [`min`, `max`] for each value of `column` that has at least `min_rows` rows."""

    metric: Reference
    column: str
    min: float | None = None
    max: float | None = None
    min_rows: int = 50

    def __post_init__(self) -> None:
        _name_metric(self)
        _check_bounds(self, self.min, self.max)
        _check_positive(self, self.min_rows)

    @property
    def name(self) -> str:
        """The gate's name in a policy and in reports."""
        return f"slice minimum {self.metric} by {self.column}"


class Bias(Gate, frozen=True, tag="bias"):
    """The mean of log1p(prediction) - log1p(label) lies within +-`max_abs`; without `log`, that of
    prediction - label. It catches wrong units, which a comparison with an erring champion may not."""

    max_abs: float
    log: bool = True

    def __post_init__(self) -> None:
        _check_positive(self, self.max_abs)


class AnswerRatio(Gate, frozen=True, tag="answer_ratio"):
    """The median ratio of its answers to the champion's lies within [`low`, `high`]; needs no labels.

    Passes while there is no champion.
    """

    low: float = 0.5
    high: float = 2.0

    def __post_init__(self) -> None:
        _check_positive(self, self.low)
        if not self.low < self.high < math.inf:
            raise InvalidInputError(f"An answer ratio cannot lie within [{self.low}, {self.high}].")


AnyGate = Metric | BeatsChampion | Latency | Signature | SliceMinimum | Bias | AnswerRatio


def gates_from(declarations: object) -> tuple[AnyGate, ...]:
    """Gates from their JSON form (a list of objects); raises InvalidInputError."""
    try:
        return msgspec.convert(declarations, tuple[AnyGate, ...])
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"These gates cannot be understood: {error}.") from error


def policy_of(gates: Sequence[Gate]) -> Policy:
    """The policy that the registry keeps for a governed model."""
    normal = gates_from(msgspec.to_builtins(gates))  # 50 and 50.0 are one limit, and must be one policy
    return Policy(tuple(PolicyGate(gate.name, msgspec.to_builtins(gate)) for gate in normal))


def gates_of(policy: Policy) -> tuple[AnyGate, ...]:
    """The gates of a policy."""
    return gates_from([gate.declaration for gate in policy.gates])


def needs_labels(gates: Iterable[Gate]) -> bool:
    """Whether any of the gates can only be judged on labelled rows."""
    return any(isinstance(gate, Metric | BeatsChampion | SliceMinimum | Bias) for gate in gates)


def _name_metric(gate: Metric | BeatsChampion | SliceMinimum) -> None:
    """Write a metric that is given as a function by its name, by which a worker finds it."""
    msgspec.structs.force_setattr(gate, "metric", reference_of(gate.metric))


def _check_bounds(gate: Gate, low: float | None, high: float | None) -> None:
    given = [bound for bound in (low, high) if bound is not None]
    if not given:
        raise InvalidInputError(
            f"The gate '{gate.name}' has no bound.", hint="Give min=..., max=... or both."
        )
    _check_finite(gate, *given)
    if given != sorted(given):
        raise InvalidInputError(f"The gate '{gate.name}' asks for at least {low} and at most {high}.")


def _check_finite(gate: Gate, *numbers: float) -> None:
    for number in numbers:
        if not math.isfinite(number):
            raise InvalidInputError(f"The gate '{gate.name}' has the bound {number}.", hint="Give a number.")


def _check_positive(gate: Gate, number: float) -> None:
    _check_finite(gate, number)
    if number <= 0:
        raise InvalidInputError(f"The gate '{gate.name}' has {number} where a number above 0 is needed.")
