"""Monitors: declared rules over what an endpoint was asked, answered, and later told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from trimtab.errors import InvalidInputError
from trimtab.statistics.metrics import is_built_in, reference_of

Number = float | int | str | None
Status = Literal["ok", "alert", "insufficient"]


class Drift(msgspec.Struct, frozen=True, tag="drift", tag_field="kind", omit_defaults=True):
    """The inputs of the last `days` against those that the champion was trained on.

    `effect`: size from 0 to 1 (see `trimtab.monitoring.drift`) from which a feature has drifted;
    `min_features` of `features` (all, if None) must have. Needs `min_rows` requests.
    """

    effect: float = 0.3
    features: Sequence[str] | None = None
    days: float = 7
    min_rows: int = 100
    min_features: int = 1

    def __post_init__(self) -> None:
        if self.features is not None:
            msgspec.structs.force_setattr(self, "features", tuple(self.features))
        if not 0 < self.effect < 1:
            raise InvalidInputError(f"Drift(effect={self.effect}) is not between 0 and 1.")
        _check_window(self, self.days, self.min_rows)


class Performance(msgspec.Struct, frozen=True, tag="performance", tag_field="kind", omit_defaults=True):
    """A metric of the champion's answers over the labels of the last `days`.

    It alerts above `max`, below `min`, or when it got worse by more than `drop` than it was in the
    champion's first `days`. Needs `min_labels`.
    """

    metric: Any  # a name, "module:function", or a function, which becomes its name at once
    max: float | None = None
    min: float | None = None
    drop: float | None = None
    days: float = 7
    min_labels: int = 100

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "metric", reference_of(self.metric))
        if self.max is None and self.min is None and self.drop is None:
            raise InvalidInputError(
                f"Performance('{self.metric}') has no limit.", hint="Give max=..., min=... or drop=...."
            )
        _check_window(self, self.days, self.min_labels)


class Bias(msgspec.Struct, frozen=True, tag="bias", tag_field="kind", omit_defaults=True):
    """The mean of the champion's answer minus the label over the last `days`, on the log1p scale if `log`.

    It alerts beyond `max_abs` on either side. Needs `min_labels`.
    """

    max_abs: float
    log: bool = False
    days: float = 7
    min_labels: int = 100

    def __post_init__(self) -> None:
        if not (self.max_abs > 0 and math.isfinite(self.max_abs)):
            raise InvalidInputError(f"Bias(max_abs={self.max_abs}) is not a number above 0.")
        _check_window(self, self.days, self.min_labels)


class ServiceLevel(msgspec.Struct, frozen=True, tag="service_level", tag_field="kind", omit_defaults=True):
    """The share of requests that the gateway failed, and the time that 99 of 100 took, over `days`."""

    error_rate: float | None = None
    p99_ms: float | None = None
    days: float = 1
    min_requests: int = 20

    def __post_init__(self) -> None:
        if self.error_rate is None and self.p99_ms is None:
            raise InvalidInputError("ServiceLevel() has no limit.", hint="Give error_rate=... or p99_ms=....")
        _check_window(self, self.days, self.min_requests)


Monitor = Drift | Performance | Bias | ServiceLevel


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor found: its name, kind, and the numbers that it judged by.

    "insufficient" means that there was too little to judge by; the numbers say how much there was.
    """

    monitor: str
    kind: str
    status: Status
    numbers: dict[str, Number]


def kind_of(monitor: Monitor) -> str:
    """ "drift", "performance", "bias" or "service_level"."""
    return str(monitor.__struct_config__.tag)


def name_of(monitor: Monitor) -> str:
    """The name under which a monitor's findings and alerts are kept."""
    match monitor:
        case Performance():
            return f"performance {monitor.metric}"
        case Bias():
            return "log bias" if monitor.log else "bias"
        case _:
            return kind_of(monitor).replace("_", " ")


def runs_user_code(monitor: Monitor) -> bool:
    """Whether judging by this monitor loads code of the user's project."""
    return isinstance(monitor, Performance) and not is_built_in(monitor.metric)


def _check_window(monitor: object, days: float, least: int) -> None:
    kind = type(monitor).__name__
    if not (days > 0 and math.isfinite(days)):
        raise InvalidInputError(f"{kind}(days={days}) is not a number above 0.")
    if least < 1:
        raise InvalidInputError(f"{kind} needs at least one row to judge by.")
