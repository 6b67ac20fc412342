"""Judging a registered version by the gates of whoever governs its model, outside of any cycle."""

from __future__ import annotations

from trimtab.data.datasets import Datasets
from trimtab.errors import ConflictError
from trimtab.loop.intake import data_time
from trimtab.loop.records import Applied, all_loops, get_applied
from trimtab.models.gate_evaluation import GatesRequest, judge
from trimtab.models.gates import gates_of
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport
from trimtab.workspace import Workspace


def validate_version(workspace: Workspace, name: str, version: int) -> GateReport:
    """Run the gates on the loop's held-out rows as of now, and keep the report.

    Loads the model and the project's metrics in this process. Raises NotFoundError for an unknown model or
    version, ConflictError for a model that no loop governs.
    """
    registry = Registry(workspace)
    found = registry.get_version(name, version)
    policy = registry.policy(name)
    applied = _governing(workspace, name)
    if policy is None or applied is None:
        raise ConflictError(
            f"No loop governs the model '{name}', so it has no gates.",
            hint="Name it in a loop: trimtab loop apply",
        )
    champion = registry.champion(name)
    declared = applied.declaration
    if not declared.target:
        raise ConflictError(
            f"The loop '{declared.name}' does not say which column is its target.",
            hint="Add target='...' to it, and apply it again.",
        )
    data = Datasets(workspace).version(declared.dataset)
    as_of = data_time(workspace.clock.now(), data.time_max, declared.holdout)
    start, end = declared.holdout.bounds(as_of)
    report = judge(
        workspace,
        GatesRequest(
            model=name,
            digest=found.digest,
            version=version,
            champion=None if champion is None or champion.version == version else champion.digest,
            gates=gates_of(policy),
            dataset=declared.dataset,
            dataset_version=data.number,
            target=declared.target,
            start=start,
            end=end,
            part=declared.holdout.part,
            project=applied.project,
        ),
    )
    workspace.write(lambda tx: registry.add_gate_report(tx, report))
    return report


def _governing(workspace: Workspace, model: str) -> Applied | None:
    with workspace.read() as connection:
        for loop in all_loops(connection):
            applied = get_applied(connection, loop.name, loop.version)
            if applied.declaration.model == model:
                return applied
    return None
