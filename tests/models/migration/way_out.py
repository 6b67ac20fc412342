"""Everything out of a server and into another store, by calls of the stock client alone."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
    ViewType,
)

METRICS_AT_ONCE = 1000


def move_out(source: MlflowClient, target: MlflowClient, folder: Path) -> None:
    """Copy all that the stock client sees. Ids are new; `folder` is for files on their way."""
    experiments = source.search_experiments(ViewType.ALL)
    ids: dict[str, str] = {}
    for each in experiments:
        if each.name == "Default":
            ids[each.experiment_id] = "0"
        else:
            ids[each.experiment_id] = target.create_experiment(each.name, tags=each.tags)
    found = [
        source.get_run(run.info.run_id)
        for run in source.search_runs(list(ids), "", ViewType.ALL, 1000, ["start_time ASC"])
    ]
    for run in found:
        tags = {key: ids.get(value, value) for key, value in run.data.tags.items()}
        info = run.info
        made = target.create_run(ids[info.experiment_id], info.start_time, tags, info.run_name)
        ids[info.run_id] = made.info.run_id
    active = [each.experiment_id for each in experiments if each.lifecycle_stage == "active"]
    for model in source.search_logged_models(active):
        _move_model(source, target, model, ids, folder)
    for run in found:
        _move_run(source, target, run, ids, folder)
    for each in experiments:
        if each.lifecycle_stage == "deleted":
            target.delete_experiment(ids[each.experiment_id])
    _move_registry(source, target, ids)


def _move_model(
    source: MlflowClient, target: MlflowClient, model: Any, ids: dict[str, str], folder: Path
) -> None:
    made = target.create_logged_model(
        ids[model.experiment_id],
        name=model.name,
        source_run_id=ids.get(model.source_run_id or ""),
        tags=model.tags,
        params=model.params,
        model_type=model.model_type,
    )
    ids[model.model_id] = made.model_id
    for metric in model.metrics or ():
        target.log_metric(
            ids[metric.run_id],
            metric.key,
            metric.value,
            metric.timestamp,
            metric.step,
            model_id=made.model_id,
            dataset_name=metric.dataset_name,
            dataset_digest=metric.dataset_digest,
        )
    place = _fetched(source, model.artifact_location, folder / model.model_id)
    if any(place.iterdir()):
        target.log_model_artifacts(made.model_id, str(place))
    if model.status != LoggedModelStatus.PENDING:
        target.finalize_logged_model(made.model_id, model.status)


def _move_run(
    source: MlflowClient, target: MlflowClient, run: Any, ids: dict[str, str], folder: Path
) -> None:
    id = ids[run.info.run_id]
    for key in run.data.metrics:
        points = source.get_metric_history(run.info.run_id, key)
        for start in range(0, len(points), METRICS_AT_ONCE):
            some = points[start : start + METRICS_AT_ONCE]
            target.log_batch(id, [Metric(key, each.value, each.timestamp, each.step) for each in some])
    target.log_batch(id, params=[Param(key, value) for key, value in run.data.params.items()])
    target.log_batch(id, tags=[RunTag(key, ids.get(value, value)) for key, value in run.data.tags.items()])
    read = [LoggedModelInput(ids[each.model_id]) for each in run.inputs.model_inputs or ()]
    target.log_inputs(id, run.inputs.dataset_inputs or None, read or None)
    made = run.outputs.model_outputs if run.outputs else []
    if made:
        target.log_outputs(id, [LoggedModelOutput(ids[each.model_id], each.step) for each in made])
    place = _fetched(source, run.info.artifact_uri, folder / run.info.run_id)
    if any(place.iterdir()):
        target.log_artifacts(id, str(place))
    if run.info.end_time is not None:
        target.set_terminated(id, run.info.status, run.info.end_time)
    if run.info.lifecycle_stage == "deleted":
        target.delete_run(id)


def _move_registry(source: MlflowClient, target: MlflowClient, ids: dict[str, str]) -> None:
    for model in source.search_registered_models():
        target.create_registered_model(model.name, model.tags, model.description)
        versions = {
            int(each.version): each for each in source.search_model_versions(f"name = '{model.name}'")
        }
        for number in range(1, max(versions, default=0) + 1):
            if number not in versions:  # numbers are given in order: one that was deleted is made and deleted
                target.create_model_version(model.name, "runs:/none/none")
                target.delete_model_version(model.name, str(number))
                continue
            each: Any = source.get_model_version(model.name, str(number))
            target.create_model_version(
                model.name, _own(each.source, ids), ids[each.run_id], each.tags, description=each.description
            )
            if each.current_stage != "None":
                target.transition_model_version_stage(model.name, str(number), each.current_stage)
        for alias, number in model.aliases.items():
            target.set_registered_model_alias(model.name, alias, str(number))


def _own(source: str, ids: dict[str, str]) -> str:
    """A version's source, as the other store calls it."""
    if found := re.search(r"/models/(m-[0-9a-f]{32})/artifacts$", source):
        return f"models:/{ids[found[1]]}"
    return re.sub(r"\b[0-9a-f]{32}\b", lambda found: ids[found[0]], source)


def _fetched(client: MlflowClient, uri: str, folder: Path) -> Path:
    folder.mkdir()
    with contextlib.suppress(mlflow.MlflowException):  # where there is nothing; what is missed is found out
        mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=client.tracking_uri)
    inside = [place for place in folder.iterdir() if place.name == "artifacts"]
    return inside[0] if inside else folder
