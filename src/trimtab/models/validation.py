"""Judging a registered version by its model's gates, outside of any cycle, and keeping the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

import msgspec
import yaml

from trimtab.data.datasets import Datasets
from trimtab.data.versions import DatasetVersion
from trimtab.errors import ConflictError, InvalidInputError, ModelCorruptError, RefusedError, unknown
from trimtab.models.contents import is_address
from trimtab.models.gate_evaluation import GatesRequest
from trimtab.models.gates import gates_of
from trimtab.models.judging import judge_apart
from trimtab.models.policy import Policy, PolicyRows
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport
from trimtab.models.specification import MLMODEL_FILE, SPECIFICATION_FILE, Specification
from trimtab.models.versions import ModelVersion
from trimtab.workspace import Workspace


def validate(
    workspace: Workspace,
    name: str,
    version: int,
    policy: Policy,
    rows: PolicyRows,
    *,
    as_of: datetime,
    project: str | None = None,
) -> GateReport:
    """Run the gates of a policy on a version, and keep the report.

    The rows are those of the newest version of their dataset, within their window as asked for at `as_of`.
    `project` is the snapshot that the project's own metrics come from; the workspace's folder, if not given.
    They and the model are loaded in a process of their own. Raises NotFoundError for an unknown model,
    version or dataset, ConflictError for a version without a model's files, InvalidInputError for rows that
    lack what the model takes.
    """
    registry = Registry(workspace)
    found = registry.get_version(name, version)
    data = check_rows(workspace, rows)
    check_version(workspace, found, data)
    champion = registry.champion(name)
    start, end = rows.window.bounds(as_of)
    report = judge_apart(
        workspace,
        GatesRequest(
            model=name,
            digest=found.digest,
            version=version,
            champion=None if champion is None or champion.version == version else champion.digest,
            gates=gates_of(policy),
            dataset=rows.dataset,
            dataset_version=data.number,
            target=rows.target,
            start=start,
            end=end,
            part=rows.window.part,
            project=project,
            policy=policy.digest,
        ),
    )
    workspace.write(lambda tx: registry.add_gate_report(tx, report))
    return report


def check_version(workspace: Workspace, version: ModelVersion, data: DatasetVersion) -> None:
    """See that a version has a model's files, and that the data has what it takes, before anything is run.

    Raises ConflictError, InvalidInputError.
    """
    named = f"Version {version.version} of '{version.model}'"
    if is_address(workspace, version.digest):
        raise ConflictError(
            f"{named} has no files here: of its source, {version.source}, only the address is kept, and what "
            "may change cannot be judged.",
            hint="Register it from what was logged to this workspace.",
        )
    files = workspace.blobs.manifest(version.digest).files
    if MLMODEL_FILE not in files:
        raise ConflictError(
            f"{named} is no model that can be loaded: among its {len(files)} files is no '{MLMODEL_FILE}'.",
            hint="Log it with mlflow.<flavor>.log_model(...), and register that.",
        )
    lacking = [name for name in _required(workspace, version) if name not in data.schema]
    if lacking:
        raise InvalidInputError(
            f"The dataset '{data.dataset}' lacks what {named[0].lower()}{named[1:]} takes: "
            f"{', '.join(repr(name) for name in lacking)}.",
            hint=f"It has: {', '.join(data.schema)}.",
        )


def check_rows(workspace: Workspace, rows: PolicyRows) -> DatasetVersion:
    """See that there are such rows, and answer the version that they would be of now.

    Raises NotFoundError, InvalidInputError.
    """
    datasets = Datasets(workspace)
    data = datasets.version(rows.dataset)
    if rows.target not in data.schema:
        raise InvalidInputError(
            f"The dataset '{rows.dataset}' has no column '{rows.target}', the target.",
            hint=unknown("column", rows.target, data.schema).hint,
        )
    if rows.window.timed and datasets.get(rows.dataset).time is None:
        raise InvalidInputError(
            f"The dataset '{rows.dataset}' has no column of event time, so it has no last days.",
            hint="Judge on all of it.",
        )
    return data


def rows_of(name: str, rows: PolicyRows | None, dataset: str | None, target: str | None) -> PolicyRows:
    """The rows of a model's policy or loop, or those that are given where it names none.

    Raises RefusedError for others than the policy's, InvalidInputError where something is left open.
    """
    if rows is None:
        if dataset is None or target is None:
            raise InvalidInputError(
                f"The policy of '{name}' does not say on which rows its gates are judged.",
                hint="Give --data DATASET and --target COLUMN.",
            )
        return PolicyRows(dataset, target)
    for what, asked, said in (("dataset", dataset, rows.dataset), ("target", target, rows.target)):
        if asked is not None and asked != said:
            raise RefusedError(
                f"The gates of '{name}' are judged on the {what} '{said}', not on '{asked}'.",
                hint=f"Change the policy: trimtab model govern {name}",
            )
    return rows


def _required(workspace: Workspace, version: ModelVersion) -> Iterable[str]:
    """The columns that a version cannot do without, as far as it says; nothing of it is run."""
    files = workspace.blobs.manifest(version.digest).files
    try:
        if SPECIFICATION_FILE in files:
            content = workspace.blobs.get(files[SPECIFICATION_FILE].digest)
            columns = msgspec.json.decode(content, type=Specification).signature.columns
            return [column.name for column in columns if not column.nullable]
        document = yaml.safe_load(workspace.blobs.get(files[MLMODEL_FILE].digest))
        signature = document.get("signature") or {}
        inputs = json.loads(signature.get("inputs") or "[]")
        return [each["name"] for each in inputs if each.get("name") and each.get("required", True)]
    except (msgspec.DecodeError, yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
        raise ModelCorruptError(
            f"What version {version.version} of '{version.model}' says of its inputs cannot be read: {error}",
            hint="Log the model again.",
        ) from error
