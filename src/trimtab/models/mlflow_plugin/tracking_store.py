"""MLflow's tracking store over a workspace in this process: no server, each call durable on return.

Searches are compiled to SQL by the same functions as those of the server.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow.entities import (
    DatasetInput,
    Experiment,
    ExperimentTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunInfo,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT, SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.utils.validation import (
    _validate_batch_log_data,
    _validate_batch_log_limits,
    _validate_experiment_name,
    _validate_experiment_tag,
    _validate_metric,
    _validate_param_keys_unique,
    _validate_run_id,
    _validate_tag,
)

from trimtab.errors import NotFoundError
from trimtab.models.mlflow_plugin.entities import (
    experiment_entity,
    experiment_number,
    lifecycle_of,
    run_entity,
    run_info,
    stored_dataset,
    time_of,
)
from trimtab.models.mlflow_plugin.errors import as_mlflow, refusing, refusing_the_rest
from trimtab.models.mlflow_plugin.logged_model_store import LoggedModelStore
from trimtab.models.mlflow_plugin.stored_workspace import StoredWorkspace
from trimtab.store.database import Transaction
from trimtab.tracking import (
    experiment_search,
    experiments,
    inputs,
    logged_models,
    metrics,
    params_and_tags,
    run_search,
    runs,
)
from trimtab.tracking.comparison import offset_of, offset_token
from trimtab.tracking.history import metric_history
from trimtab.tracking.metrics import MetricWriter
from trimtab.tracking.run_details import details_of, run_row
from trimtab.tracking.run_names import random_name
from trimtab.tracking.run_search import NAME_TAG, PARENT_TAG

LOGGED_MODELS_TAG = "mlflow.log-model.history"

STEP_RUN_VARIABLE = "TRIMTAB_RUN_ID"
"""The run of the pipeline whose step this process is; the pipeline alone says when it ends."""


@refusing_the_rest
class TrackingStore(LoggedModelStore):
    """Experiments, runs and what is logged to them."""

    def __init__(self, store_uri: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # MLflow's
        self._stored = StoredWorkspace(store_uri)
        self._sequence = itertools.count(1)
        self._writer: tuple[int, MetricWriter] | None = None

    # Experiments

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """See MLflow."""
        limit = page_size(max_results)
        with self._stored.reading() as connection:
            page = experiment_search.search(
                connection,
                filter=filter_string or "",
                order_by=order_by or (),
                lifecycle=lifecycle_of(view_type),
                limit=limit,
                page_token=page_token or "",
            )
            tags = experiments.tags_of(connection, [each.id for each in page.experiments])
        found = [experiment_entity(self._stored.project, each, tags[each.id]) for each in page.experiments]
        return PagedList(found, page.next_page_token or None)

    def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: list[ExperimentTag] | None = None,
        **_: Any,
    ) -> str:
        """See MLflow. Trimtab assigns the artifacts' place itself: another one is refused."""
        _validate_experiment_name(name)
        if artifact_location:
            raise MlflowException.invalid_parameter_value(
                f"The place '{artifact_location:.200}' cannot be used: Trimtab keeps artifacts in its "
                "own blob store. Leave it out."
            )
        values = {tag.key: tag.value for tag in tags or []}
        for key, value in values.items():
            _validate_experiment_tag(key, value)
        return str(self._stored.write(lambda tx: experiments.create(tx, name, values)).id)

    def get_experiment(self, experiment_id: str) -> Experiment:
        """See MLflow."""
        number = experiment_number(experiment_id)
        with self._stored.reading() as connection:
            found = experiments.get_by_id(connection, number)
            return experiment_entity(
                self._stored.project, found, experiments.tags_of(connection, [number])[number]
            )

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """See MLflow: also a deleted one."""
        with self._stored.reading() as connection:
            try:
                found = experiments.get(connection, experiment_name)
            except NotFoundError:
                return None
            tags = experiments.tags_of(connection, [found.id])[found.id]
            return experiment_entity(self._stored.project, found, tags)

    def delete_experiment(self, experiment_id: str) -> None:
        """See MLflow."""
        self._set_lifecycle(experiment_id, "active", "deleted")

    def restore_experiment(self, experiment_id: str) -> None:
        """See MLflow."""
        self._set_lifecycle(experiment_id, "deleted", "active")

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """See MLflow."""
        _validate_experiment_name(new_name)
        number = experiment_number(experiment_id)
        self._stored.write(lambda tx: experiments.rename(tx, number, new_name))

    def set_experiment_tag(self, experiment_id: str, tag: ExperimentTag) -> None:
        """See MLflow."""
        _validate_experiment_tag(tag.key, tag.value)
        number = experiment_number(experiment_id)
        self._stored.write(lambda tx: experiments.set_tags(tx, number, {tag.key: tag.value}))

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """See MLflow."""
        number = experiment_number(experiment_id)
        self._stored.write(lambda tx: experiments.delete_tag(tx, number, key))

    # Runs

    def get_run(self, run_id: str) -> Run:
        """See MLflow."""
        with self._stored.reading() as connection:
            row = run_row(connection, run_id)
            if row is None:
                raise MlflowException(f"Run with id={run_id:.300} not found", RESOURCE_DOES_NOT_EXIST)
            return run_entity(self._stored.project, details_of(connection, [row])[0])

    def create_run(
        self,
        experiment_id: str,
        user_id: str | None,
        start_time: int | None,
        tags: list[RunTag] | None,
        run_name: str | None,
    ) -> Run:
        """See MLflow."""
        values = _checked_tags(tags or [])
        tagged = values.get(NAME_TAG)
        if run_name and tagged and run_name != tagged:
            raise MlflowException.invalid_parameter_value(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{run_name:.200}', mlflow.runName='{tagged:.200}')."
            )
        name = run_name or tagged or random_name()
        values[NAME_TAG] = name
        run_id = runs.new_run_id()
        number = experiment_number(experiment_id)

        def work(tx: Transaction) -> Run:
            runs.create(
                tx,
                run_id,
                number,
                name=params_and_tags.checked_text("the run's name", name),
                parent=values.get(PARENT_TAG),
                actor=user_id or "",
                started_at=None if start_time is None else time_of(start_time),
            )
            params_and_tags.set_tags(tx, run_id, values)
            row = run_row(tx.connection, run_id)
            assert row is not None
            return run_entity(self._stored.project, details_of(tx.connection, [row])[0])

        return self._stored.write(work)

    def update_run_info(
        self, run_id: str, run_status: int | None, end_time: int | None, run_name: str | None
    ) -> RunInfo:
        """See MLflow. In a step of a pipeline the pipeline's own run does not end by this."""
        status: Any = None if run_status is None else RunStatus.to_string(run_status)
        ended_at = None if end_time is None else time_of(end_time)
        if run_id == os.environ.get(STEP_RUN_VARIABLE):
            status, ended_at = None, None

        def work(tx: Transaction) -> RunInfo:
            runs.change(tx, run_id, status=status, ended_at=ended_at, name=run_name or None)
            if run_name:
                params_and_tags.set_tags(tx, run_id, {NAME_TAG: run_name})
            return run_info(self._stored.project, run_row(tx.connection, run_id))

        return self._stored.write(work)

    def delete_run(self, run_id: str) -> None:
        """See MLflow."""
        self._stored.write(lambda tx: runs.set_lifecycle(tx, run_id, "deleted"))

    def restore_run(self, run_id: str) -> None:
        """See MLflow."""
        self._stored.write(lambda tx: runs.set_lifecycle(tx, run_id, "active"))

    def _search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None,
        run_view_type: int,
        max_results: int,
        order_by: list[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        limit = page_size(max_results)
        numbers = [experiment_number(each) for each in experiment_ids]
        with self._stored.reading() as connection:
            page = run_search.search(
                connection,
                numbers,
                filter=filter_string or "",
                order_by=order_by or (),
                lifecycle=lifecycle_of(run_view_type),
                limit=limit,
                page_token=page_token or "",
            )
            found = details_of(connection, page.rows)
        return [run_entity(self._stored.project, each) for each in found], page.next_page_token or None

    # What is logged

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """See MLflow. Durable on return."""
        _validate_metric(metric.key, metric.value, metric.timestamp, metric.step)
        self._log(run_id, [metric], None)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        """See MLflow. All or nothing, durable on return."""
        _validate_run_id(run_id)
        metrics, params, tags = _validate_batch_log_data(metrics, params, tags)
        _validate_batch_log_limits(metrics, params, tags)
        _validate_param_keys_unique(params)
        values = {param.key: param.value for param in params}
        tagged = {tag.key: tag.value for tag in tags}

        def also(tx: Transaction) -> None:
            if values or not (tagged or metrics):
                params_and_tags.log_params(tx, run_id, values)
            if tagged:
                _set_tags(tx, run_id, tagged)

        self._log(run_id, metrics, also)

    def delete_tag(self, run_id: str, key: str) -> None:
        """See MLflow."""
        if not self._stored.write(lambda tx: params_and_tags.delete_tag(tx, run_id, key)):
            raise MlflowException(
                f"No tag with name: {key:.300} in run with id {run_id}", RESOURCE_DOES_NOT_EXIST
            )

    def get_metric_history(
        self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Metric]:
        """See MLflow."""
        with self._stored.reading() as connection:
            start = offset_of(page_token or "")
            try:
                history = metric_history(connection, run_id, metric_key)
            except NotFoundError:  # of the run or the metric: no error in MLflow
                return PagedList([], None)
        end = len(history) if max_results is None else start + max_results
        columns = (history.values[start:end], history.times[start:end] // 1000, history.steps[start:end])
        found = [
            Metric(metric_key, value, at, step)
            for value, at, step in zip(*(column.tolist() for column in columns), strict=True)
        ]
        return PagedList(found, offset_token(end) if end < len(history) else None)

    def log_inputs(
        self,
        run_id: str,
        datasets: list[DatasetInput] | None = None,
        models: list[LoggedModelInput] | None = None,
    ) -> None:
        """See MLflow."""
        read = [stored_dataset(dataset) for dataset in datasets or []]
        used = [inputs.ModelUse(model.model_id, "in") for model in models or []]

        def work(tx: Transaction) -> None:
            inputs.log_datasets(tx, run_id, read)
            inputs.log_models(tx, run_id, used)

        self._stored.write(work)

    def log_outputs(self, run_id: str, models: list[LoggedModelOutput]) -> None:
        """See MLflow."""
        made = [inputs.ModelUse(model.model_id, "out", model.step) for model in models]
        self._stored.write(lambda tx: inputs.log_models(tx, run_id, made))

    def record_logged_model(self, run_id: str, mlflow_model: Any) -> None:
        """See MLflow: the tag in which clients before version 3 keep what they logged."""
        described = mlflow_model.get_tags_dict()

        def work(tx: Transaction) -> None:
            logged = json.loads(params_and_tags.get_tags(tx.connection, run_id).get(LOGGED_MODELS_TAG, "[]"))
            value = json.dumps([*logged, described])
            params_and_tags.set_tags(tx, run_id, {LOGGED_MODELS_TAG: value})

        self._stored.write(work)

    def link_traces_to_run(self, trace_ids: list[str], run_id: str) -> None:
        """Trimtab keeps no traces."""
        refusing("link_traces_to_run")(self)

    def _log(self, run_id: str, logged: Sequence[Metric], also: Callable[[Transaction], None] | None) -> None:
        of_models = [_model_metric(run_id, metric) for metric in logged if metric.model_id is not None]

        def everything(tx: Transaction) -> None:
            if also is not None:
                also(tx)
            logged_models.log_metrics(tx, of_models)

        with as_mlflow():
            workspace = self._stored.open
            points = [
                metrics.Point(
                    metric.key, float(metric.value), int(metric.step), time_of(int(metric.timestamp))
                )
                for metric in logged
            ]
            self._metric_writer().write(
                run_id,
                metrics.batch_of(points),
                next(self._sequence),
                actor=workspace.actor,
                also=everything if of_models else also,
            )

    def _metric_writer(self) -> MetricWriter:
        """The writer of this process: a forked child must not go on under its parent's name."""
        process = os.getpid()
        if self._writer is None or self._writer[0] != process:
            self._writer = (process, MetricWriter(self._stored.open.database))
        return self._writer[1]

    def _set_lifecycle(
        self, experiment_id: str, present: experiments.Lifecycle, wanted: experiments.Lifecycle
    ) -> None:
        number = experiment_number(experiment_id)
        self._stored.write(lambda tx: experiments.change_lifecycle(tx, number, present, wanted))


def page_size(max_results: int) -> int:
    """How many results a page may have; raises MlflowException."""
    if not 1 <= max_results <= SEARCH_MAX_RESULTS_THRESHOLD:
        raise MlflowException.invalid_parameter_value(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be at least 1, and "
            f"at most {SEARCH_MAX_RESULTS_THRESHOLD}."
        )
    return max_results


def _checked_tags(tags: Sequence[RunTag]) -> dict[str, str]:
    checked = [_validate_tag(tag.key, tag.value) for tag in tags]
    return {tag.key: tag.value for tag in checked}


def _set_tags(tx: Transaction, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags, two of which are the name and the parent of a run."""
    params_and_tags.set_tags(tx, run_id, tags)
    if NAME_TAG in tags or PARENT_TAG in tags:
        runs.change(tx, run_id, name=tags.get(NAME_TAG), parent=tags.get(PARENT_TAG))


def _model_metric(run_id: str, metric: Metric) -> logged_models.ModelMetric:
    assert metric.model_id is not None
    return logged_models.ModelMetric(
        model=metric.model_id,
        run=run_id,
        key=metric.key,
        value=float(metric.value),
        step=int(metric.step),
        at=int(metric.timestamp) * 1000,
        dataset=metric.dataset_name or "",
        dataset_digest=metric.dataset_digest or "",
    )
