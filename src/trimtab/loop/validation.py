"""Judging a registered version by the gates of whoever governs its model, outside of any cycle."""

from __future__ import annotations

from trimtab.data.datasets import Datasets
from trimtab.errors import ConflictError
from trimtab.loop.intake import data_time
from trimtab.loop.records import Applied, all_loops, get_applied
from trimtab.models.policy import Policy, PolicyRows
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport
from trimtab.models.validation import rows_of, validate
from trimtab.workspace import Workspace


def validate_version(
    workspace: Workspace,
    name: str,
    version: int,
    *,
    dataset: str | None = None,
    target: str | None = None,
    policy: Policy | None = None,
) -> GateReport:
    """Run the gates of a model on a version, and keep the report.

    The policy is the one in force, if none is given. The rows are those that it, or the loop, holds out as
    of now; `dataset` and `target` name them where neither does. The model and the project's metrics are
    loaded in a process of their own. Raises NotFoundError for an unknown model or version, ConflictError for
    a model without gates or a version without a model's files, RefusedError for other rows than the policy's.
    """
    registry = Registry(workspace)
    registry.get_version(name, version)
    held_to = policy or registry.policy(name)
    if held_to is None:
        raise ConflictError(
            f"Nobody governs the model '{name}', so it has no gates.",
            hint=f"Give it some with `trimtab model govern {name}`.",
        )
    applied = _governing(workspace, name) if policy is None and held_to.rows is None else None
    said = held_to.rows if applied is None else _held_out(applied)
    rows = rows_of(name, said, dataset, target)
    data = Datasets(workspace).version(rows.dataset)
    return validate(
        workspace,
        name,
        version,
        held_to,
        rows,
        as_of=data_time(workspace.clock.now(), data.time_max, rows.window),
        project=None if applied is None else applied.project,
    )


def _held_out(applied: Applied) -> PolicyRows:
    declared = applied.declaration
    if not declared.target:
        raise ConflictError(
            f"The loop '{declared.name}' does not say which column is its target.",
            hint="Add target='...' to it, and apply it again.",
        )
    return PolicyRows(declared.dataset, declared.target, declared.holdout)


def _governing(workspace: Workspace, model: str) -> Applied | None:
    with workspace.read() as connection:
        for loop in all_loops(connection):
            applied = get_applied(connection, loop.name, loop.version)
            if applied.declaration.model == model:
                return applied
    return None
