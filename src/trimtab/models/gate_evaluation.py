"""Judging a candidate by its gates, and the worker's job that does so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import polars as pl

from trimtab.data.datasets import Datasets
from trimtab.digest import digest_json
from trimtab.errors import MissingExtraError
from trimtab.models.evidence import Evidence, HeldOut, Judged, NoEvidenceError
from trimtab.models.gate_checks import Finding, check
from trimtab.models.gates import AnyGate, policy_of
from trimtab.models.reports import GateReport, GateResult
from trimtab.models.runtimes.predictor import Predictor
from trimtab.pipelines.project import checkout, importing_from
from trimtab.workspace import Workspace


class GatesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to judge, by what, and on which rows.

    `digest` and `champion` are model trees among the blobs. The rows are those of the dataset's version from
    `start` (included) to `end` (excluded), and of these the share `part`; `time` is the dataset's own time
    column if not given. `project` is the snapshot that the project's own metrics come from; the workspace's
    folder, if not given. `policy` is the digest that the report is bound to: that of the gates, if not given.
    """

    model: str
    digest: str
    gates: tuple[AnyGate, ...]
    dataset: str
    target: str
    champion: str | None = None
    version: int | None = None
    dataset_version: int | None = None
    start: datetime | None = None
    end: datetime | None = None
    part: tuple[float, float] | None = None
    time: str | None = None
    project: str | None = None
    policy: str = ""


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
    the champion pass while there is none, and say so. Runs the project's metrics, and models that MLflow's
    clients logged: only where users' code may run. Raises InvalidInputError if `rows` lack `target` or
    `time`, MissingExtraError where a package is missing that a model needs.
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


def judge(workspace: Workspace, request: GatesRequest) -> GateReport:
    """Judge a stored candidate; the report is not stored. Runs the project's metrics, and may run the model's
    own code."""
    datasets = Datasets(workspace)
    version = datasets.version(request.dataset, request.dataset_version)
    rows = datasets.read(
        request.dataset, version.number, start=request.start, end=request.end, part=request.part
    )
    project = workspace.project if request.project is None else checkout(workspace, request.project)
    with importing_from(project):
        results = evaluate_gates(
            _model(workspace, request.digest),
            None if request.champion is None else _model(workspace, request.champion),
            request.gates,
            rows,
            target=request.target,
            time=request.time or datasets.get(request.dataset).time,
        )
    return GateReport(
        model=request.model,
        digest=request.digest,
        policy=request.policy or policy_of(request.gates).digest,
        results=results,
        created_at=workspace.clock.now(),
        version=request.version,
        rows=digest_json([request.dataset, version.digest, request.start, request.end, request.part]),
        dataset=request.dataset,
        dataset_version=version.number,
        champion=request.champion,
    )


def gates_job(workspace: Workspace, spec: object, job: object) -> object:
    """A worker's job: `spec` is a GatesRequest and the answer a GateReport, both as builtins.

    The answer is not stored here: whoever ordered it does that, in the transaction that acts on it.
    """
    return msgspec.to_builtins(judge(workspace, msgspec.convert(spec, GatesRequest)))


def _model(workspace: Workspace, digest: str) -> Path:
    folder = workspace.cache / "models" / digest.removeprefix("b3:")
    workspace.blobs.fetch_tree(digest, folder)
    return folder


def _result(gate: AnyGate, evidence: Evidence) -> GateResult:
    try:
        finding = check(gate, evidence)
    except MissingExtraError:
        raise
    except NoEvidenceError as error:
        finding = Finding(False, {}, f"it cannot be judged: {error}")
    except Exception as error:  # noqa: BLE001, a user's metric may raise anything; then the gate fails
        finding = Finding(False, {}, f"it cannot be judged: {type(error).__name__}: {error}")
    return GateResult(gate=gate.name, passed=finding.passed, numbers=finding.numbers, reason=finding.reason)
