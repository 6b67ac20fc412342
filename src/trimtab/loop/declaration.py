"""The declaration of a loop: what a user writes, and the JSON that controllers work from.

`Loop` is built from Python objects in the user's own file; `Loop.declaration` is what it comes to, with no
user code in it, so that a controller needs none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec

from trimtab.data.window import Window, last
from trimtab.digest import digest_json
from trimtab.errors import InvalidInputError
from trimtab.loop.budget import Budget
from trimtab.loop.machine import Mode
from trimtab.loop.rollout import Canary, Rollout
from trimtab.loop.schedule import check_schedule, duration
from trimtab.loop.triggers import WATCHED_BY, Trigger
from trimtab.loop.triggers import name as trigger_name
from trimtab.models.gates import AnyGate
from trimtab.monitoring.monitors import Monitor, kind_of, name_of
from trimtab.pipelines.graph import Pipeline, trace
from trimtab.statistics.metrics import MetricFunction, metric, reference_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A loop without any user code: everything a controller needs to run it.

    `pipeline` is "module:function" within the project's snapshot, `parameters` the names of its parameters,
    `params` what the loop sets of them. `dataset` is the one that labels and gates come from, `datasets` are
    all that the pipeline reads; `target`, if "", is what the model says it predicts. `metric` and `bias`
    name the metrics that rollouts compare by and check by. `label_delay`: how long after its prediction a
    label is still waited for, before its day counts as complete. `watch`: the schedule on which monitors and
    triggers are looked at.
    """

    name: str
    model: str
    endpoint: str
    pipeline: str
    parameters: tuple[str, ...]
    params: dict[str, Any]
    dataset: str
    datasets: tuple[str, ...]
    target: str
    metric: str
    bias: str
    gates: tuple[AnyGate, ...]
    rollout: Rollout
    monitors: tuple[Monitor, ...]
    triggers: tuple[Trigger, ...]
    budget: Budget
    holdout: Window
    mode: Mode
    watch: str
    label_delay: str

    @property
    def digest(self) -> str:
        """The digest of everything declared here."""
        return digest_json(self)

    @property
    def label_wait(self) -> timedelta:
        """How long after its last prediction a day counts as complete."""
        return duration(self.label_delay)


class Loop:
    """A loop as a user declares it; see the arguments of `Declaration` for what is not said here.

    `train` is the pipeline that returns the model. `dataset` may be left out where the pipeline reads only
    one. `holdout`, the last 14 days if nothing is said, is kept from training and used by the gates, for
    candidate and champion alike; where there is no event time it is a share of the rows, `tt.share(0.1)`.
    Windows count from now, or from the end of data that ended before the hold-out would begin. `metric` is
    by default that of the first gate that has one. `mode`: "auto" goes through to promotion by itself,
    "approve" asks a person before the rollout, "advise" proposes each cycle and does nothing until approved.
    Raises InvalidInputError for what makes no sense.
    """

    def __init__(
        self,
        name: str,
        *,
        train: Pipeline[Any, Any],
        gates: Sequence[AnyGate],
        rollout: Rollout | None = None,
        monitors: Sequence[Monitor] = (),
        triggers: Sequence[Trigger] = (),
        budget: Budget | None = None,
        holdout: Window | None = None,
        mode: Mode = "approve",
        metric: str | MetricFunction = "",
        dataset: str = "",
        target: str = "",
        model: str = "",
        endpoint: str = "",
        params: Mapping[str, object] | None = None,
        watch: str = "day",
        label_delay: str = "0h",
    ) -> None:
        _check_arguments(name, train, gates, mode)
        self.train = train
        params = dict(params or {})
        read = {ref.name for ref in trace(train, params, as_of=datetime.now(UTC)).datasets}
        chosen = reference_of(metric) if metric else _metric_of(name, gates)
        self.declaration = _normal(
            Declaration(
                name=name,
                model=model or name,
                endpoint=endpoint or name,
                pipeline=f"{train.function.__module__}:{train.function.__qualname__}",
                parameters=tuple(train.signature.parameters),
                params=msgspec.to_builtins(params),
                dataset=dataset or _only(name, read),
                datasets=tuple(sorted({*read, *([dataset] if dataset else [])})),
                target=target,
                metric=chosen,
                bias="log_bias" if chosen == "rmsle" else "bias",
                gates=tuple(gates),
                rollout=rollout or Canary(),
                monitors=tuple(monitors),
                triggers=tuple(triggers),
                budget=budget or Budget(),
                holdout=holdout or last(days=14),
                mode=mode,
                watch=watch,
                label_delay=label_delay,
            )
        )
        check(self.declaration)

    @property
    def name(self) -> str:
        """The loop's name."""
        return self.declaration.name

    def __repr__(self) -> str:
        return f"<loop {self.name}>"


def _check_arguments(name: str, train: object, gates: Sequence[AnyGate], mode: str) -> None:
    """What can only be told of the Python objects, or must be told before they are looked at closer."""
    if not isinstance(train, Pipeline):
        raise InvalidInputError(
            f"The loop '{name}' is given {train!r} to train with, which is not a pipeline.",
            hint="Decorate the function with @tt.pipeline.",
        )
    if train.function.__module__ == "__main__":
        raise InvalidInputError(
            f"The loop '{name}' is declared in a script, whose pipeline no worker could import.",
            hint="Declare it in a module of the project, loop.py say, and run: trimtab loop apply",
        )
    if not gates:
        raise InvalidInputError(
            f"The loop '{name}' has no gate, so anything would be promoted.",
            hint="Give at least one, as in gates=[tt.gates.BeatsChampion('rmse')].",
        )
    if mode not in get_args(Mode):
        raise InvalidInputError(
            f"The mode '{mode}' is not known.", hint=f"Give one of {', '.join(get_args(Mode))}."
        )


def _normal(declared: Declaration) -> Declaration:
    """The declaration as it will be read back, so that one that is stored equals one that is written."""
    try:
        return msgspec.json.decode(msgspec.json.encode(declared), type=Declaration)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidInputError(
            f"The loop '{declared.name}' cannot be declared like this: {error}."
        ) from None


def check(declared: Declaration) -> None:
    """Raise InvalidInputError for a declaration that cannot work, whoever wrote it."""
    for what, text in (("loop", declared.name), ("model", declared.model), ("endpoint", declared.endpoint)):
        if not _NAME.fullmatch(str(text)):
            raise InvalidInputError(
                f"'{text}' cannot be the name of a {what}.",
                hint="Use letters, digits, '_' and '-', at most 100 of them.",
            )
    check_schedule(declared.watch)
    duration(declared.label_delay)
    _check_metrics(declared)
    _check_listeners(declared)


def _check_metrics(declared: Declaration) -> None:
    """Unknown names are refused here; a user's own metric ("module:function") is loaded where it may run."""
    for reference in (declared.metric, declared.bias, declared.rollout.metric):
        if reference and ":" not in reference:
            metric(reference)


def _check_listeners(declared: Declaration) -> None:
    watched = {kind_of(monitor) for monitor in declared.monitors}
    for trigger in declared.triggers:
        kind = WATCHED_BY.get(type(trigger))
        if kind is not None and kind not in watched:
            raise InvalidInputError(
                f"The trigger '{trigger_name(trigger)}' of the loop '{declared.name}' listens to a {kind} "
                "monitor, and there is none.",
                hint=f"Add one to monitors=[...]: tt.{kind.capitalize()}(...).",
            )
    names = [trigger_name(trigger) for trigger in declared.triggers]
    if len(set(names)) < len(names):
        raise InvalidInputError(f"The loop '{declared.name}' has two triggers of one kind: {names}.")
    names = [name_of(monitor) for monitor in declared.monitors]
    if len(set(names)) < len(names):
        raise InvalidInputError(
            f"The loop '{declared.name}' has two monitors of one name: {', '.join(names)}.",
            hint="Join them into one: findings and alerts are kept by that name.",
        )


def _metric_of(loop: str, gates: Sequence[AnyGate]) -> str:
    for gate in gates:
        if isinstance(found := getattr(gate, "metric", None), str):
            return found
    raise InvalidInputError(
        f"The loop '{loop}' does not say by which metric versions are compared.",
        hint="Give metric='rmse', or a gate that names one.",
    )


def _only(loop: str, datasets: set[str]) -> str:
    if len(datasets) != 1:
        names = ", ".join(sorted(datasets)) or "none"
        raise InvalidInputError(
            f"The pipeline of the loop '{loop}' reads {len(datasets)} datasets: {names}.",
            hint="Say which one labels and gates come from: dataset='...'.",
        )
    return next(iter(datasets))
