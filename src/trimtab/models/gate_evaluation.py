"""Judging a candidate by its gates, and the worker's job that does so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from trimtab.models.evidence import Evidence, HeldOut, Judged, NoEvidenceError
from trimtab.models.gate_checks import Finding, check
from trimtab.models.gates import AnyGate
from trimtab.models.reports import GateResult
from trimtab.models.runtimes.predictor import Predictor


def evaluate_gates(
    candidate: Predictor | Path,
    champion: Predictor | Path | None,
    gates: Sequence[AnyGate],
    rows: pl.DataFrame,
    *,
    target: str,
    time: str | None = None,
) -> tuple[GateResult, ...]:
    """Judge a candidate (a model folder, or loaded) by each of `gates` on held-out `rows`.

    `target` names the label's column, `time` that of event time, by whose days chance is judged; without it
    the rows count in runs of equal length, in their order. A gate that cannot be judged (no rows, an answer
    that is no number, a metric that raises) does not pass, and its result says why. Gates that compare with
    the champion pass while there is none, and say so. Runs the project's metrics: only where users' code may
    run. Raises InvalidInputError if `rows` lack `target` or `time`.
    """
    held_out = HeldOut.of(rows, target, time)
    judged = Judged("candidate", candidate, held_out)
    against = None if champion is None else Judged("champion", champion, held_out)
    try:
        evidence = Evidence(held_out, judged, against)
        return tuple(_result(gate, evidence) for gate in gates)
    finally:
        judged.close()
        if against is not None:
            against.close()


def _result(gate: AnyGate, evidence: Evidence) -> GateResult:
    try:
        finding = check(gate, evidence)
    except NoEvidenceError as error:
        finding = Finding(False, {}, f"it cannot be judged: {error}")
    except Exception as error:  # noqa: BLE001, a user's metric may raise anything; then the gate fails
        finding = Finding(False, {}, f"it cannot be judged: {type(error).__name__}: {error}")
    return GateResult(gate=gate.name, passed=finding.passed, numbers=finding.numbers, reason=finding.reason)
