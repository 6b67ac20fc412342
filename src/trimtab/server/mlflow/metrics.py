"""MLflow's endpoints of metrics: one, a batch, and what was logged."""

# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.protocol import Caller, endpoint
from trimtab.server.mlflow.runs import setting_tags
from trimtab.server.mlflow.validation import (
    MOST_ENTITIES,
    MOST_METRICS,
    MOST_PARAMS_OR_TAGS,
    at_most,
    key_of,
    params_of,
    tags_of,
)
from trimtab.server.mlflow.wire import LATEST, Int64, KeyValue, Text
from trimtab.store.database import Transaction
from trimtab.tracking import logged_models, params_and_tags
from trimtab.tracking.comparison import offset_of, offset_token
from trimtab.tracking.history import MetricHistory, metric_history
from trimtab.tracking.logged_models import ModelMetric
from trimtab.tracking.metrics import Packed, pack
from trimtab.tracking.runs import number_of

LARGEST_PAGE = 1_000_000
MOST_RUNS = 100
MOST_INTERVAL_POINTS = 2500


class Logged(msgspec.Struct):
    """One point in a batch."""

    key: str
    value: float
    timestamp: Int64
    step: Int64 | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogMetric(msgspec.Struct):
    """A point by itself: no `Logged` with more to it, since what is missing is told in this order."""

    run_id: Text
    key: Text
    value: float
    timestamp: Int64
    step: Int64 | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogBatch(msgspec.Struct):
    run_id: Text
    metrics: list[Logged] | None = None
    params: list[KeyValue] | None = None
    tags: list[KeyValue] | None = None


class GetHistory(msgspec.Struct):
    run_id: Text
    metric_key: Text
    max_results: Int64 | None = None
    page_token: str | None = None


class GetBulk(msgspec.Struct):
    run_id: list[str] | None = None
    metric_key: str | None = None
    max_results: Int64 | None = None


class GetInterval(msgspec.Struct):
    metric_key: Text
    run_ids: list[str]
    start_step: Int64 | None = None
    end_step: Int64 | None = None
    max_results: Int64 | None = None


class History(msgspec.Struct, omit_defaults=True):
    metrics: list[wire.Metric] = []
    next_page_token: str = ""


def log_metric(caller: Caller, request: LogMetric) -> None:
    """Log one point."""
    _write(caller, request.run_id, [request], {}, {}, path="name")


def log_batch(caller: Caller, request: LogBatch) -> None:
    """Log points, params and tags, all or none of them."""
    metrics, params, tags = request.metrics or [], request.params or [], request.tags or []
    at_most(MOST_METRICS, "metrics", len(metrics))
    at_most(MOST_PARAMS_OR_TAGS, "params", len(params))
    at_most(MOST_PARAMS_OR_TAGS, "tags", len(tags))
    at_most(MOST_ENTITIES, "metrics, params, and tags", len(metrics) + len(params) + len(tags))
    _write(caller, request.run_id, metrics, params_of(params), tags_of(tags))


def get_history(caller: Caller, request: GetHistory) -> History:
    """All points of one metric of a run, ordered by time, or a page of them."""
    offset = offset_of(request.page_token or "")
    with caller.workspace.read() as connection:
        try:
            history = metric_history(connection, request.run_id, request.metric_key)
        except NotFoundError:
            return History()
    end = len(history)
    if request.max_results is not None:
        if not 1 <= request.max_results <= LARGEST_PAGE:
            raise InvalidInputError(
                f"Invalid value {request.max_results} for parameter 'max_results' supplied."
            )
        end = min(end, offset + request.max_results)
    points = _points(history, request.metric_key, None, offset, end)
    return History(points, offset_token(end) if end < len(history) else "")


def get_bulk(caller: Caller, request: GetBulk) -> History:
    """The points of one metric of several runs, one run after the other."""
    run_ids = request.run_id or []
    most = MOST_INTERVAL_POINTS * 10 if request.max_results is None else max(request.max_results, 0)
    if not run_ids or not request.metric_key or len(run_ids) > MOST_RUNS:
        raise InvalidInputError(f"Give 'metric_key', and 'run_id' once for each of at most {MOST_RUNS} runs.")
    return History(_of_runs(caller, run_ids, GetInterval(request.metric_key, run_ids))[:most])


def get_interval(caller: Caller, request: GetInterval) -> History:
    """The points of one metric of several runs within a range of steps, thinned out evenly where they are
    more than `max_results` in a run; the first and the last stay."""
    if (request.start_step is None) != (request.end_step is None) or (
        request.start_step is not None
        and request.end_step is not None
        and request.start_step > request.end_step
    ):
        raise InvalidInputError("Give both 'start_step' and 'end_step', which is not before it, or neither.")
    most = MOST_INTERVAL_POINTS if request.max_results is None else request.max_results
    if not 1 <= most <= MOST_INTERVAL_POINTS or not 1 <= len(request.run_ids) <= MOST_RUNS:
        raise InvalidInputError(
            f"Give 1 to {MOST_RUNS} 'run_ids', and 'max_results' from 1 to {MOST_INTERVAL_POINTS}."
        )
    return History(_of_runs(caller, request.run_ids, request, most))


def _of_runs(
    caller: Caller, run_ids: Sequence[str], request: GetInterval, most: int | None = None
) -> list[wire.Metric]:
    found: list[wire.Metric] = []
    with caller.workspace.read() as connection:
        for run_id in run_ids:
            try:
                history = metric_history(
                    connection,
                    run_id,
                    request.metric_key,
                    first_step=request.start_step,
                    last_step=request.end_step,
                )
            except NotFoundError:
                continue
            points = _points(history, request.metric_key, run_id, 0, len(history))
            found += points if most is None else _thinned(points, most)
    return found


def _thinned(points: list[wire.Metric], most: int) -> list[wire.Metric]:
    """By step: the first of each of `most` parts of nearly one size, the larger ones first, as SQL's NTILE
    cuts them for MLflow; and the last of all."""
    points = sorted(points, key=lambda point: (point.step, point.timestamp))
    if len(points) <= most:
        return points
    size, larger = divmod(len(points), most)
    firsts = [part * size + min(part, larger) for part in range(most)]
    return [points[place] for place in [*firsts[:-1], len(points) - 1]]


def _points(history: MetricHistory, key: str, run_id: str | None, first: int, end: int) -> list[wire.Metric]:
    values = history.values[first:end].tolist()
    times = (history.times[first:end] // 1000).tolist()
    steps = history.steps[first:end].tolist()
    return [
        wire.Metric(key, wire.double(value), at, step, run_id)
        for value, at, step in zip(values, times, steps, strict=True)
    ]


def _write(
    caller: Caller,
    run_id: str,
    metrics: Sequence[Logged | LogMetric],
    params: dict[str, str],
    tags: dict[str, str],
    *,
    path: str = "",
) -> None:
    batch = _packed(metrics, path)
    of_models = [
        ModelMetric(
            model=each.model_id,
            run=run_id,
            key=each.key,
            value=each.value,
            step=each.step or 0,
            at=each.timestamp * 1000,
            dataset=each.dataset_name or "",
            dataset_digest=each.dataset_digest or "",
        )
        for each in metrics
        if each.model_id
    ]

    def also(tx: Transaction) -> None:
        if params:
            params_and_tags.log_params(tx, run_id, params)
        if tags:
            setting_tags(run_id, tags)(tx)
        if of_models:
            logged_models.log_metrics(tx, of_models)
        if not batch:
            number_of(tx.connection, run_id)

    more = params or tags or of_models or not batch
    caller.writer.write(
        run_id,
        batch,
        next(caller.sequence),
        actor=caller.workspace.actor,
        also=also if more else None,
    )


def _packed(metrics: Sequence[Logged | LogMetric], path: str) -> dict[str, Packed]:
    columns: dict[str, tuple[list[int], list[int], list[float]]] = {}
    for index, each in enumerate(metrics):
        if not 0 <= each.timestamp <= LATEST:
            raise InvalidInputError(
                f"Invalid value {each.timestamp} for parameter 'metrics[{index}].timestamp' supplied: "
                "Timestamp must be a nonnegative long, of milliseconds before the year 10000."
            )
        column = columns.get(each.key)
        if column is None:
            column = columns[key_of(each.key, path or f"metrics[{index}].name")] = ([], [], [])
        column[0].append(each.step or 0)
        column[1].append(each.timestamp * 1000)
        column[2].append(each.value)
    return {key: pack(*column) for key, column in columns.items()}


ENDPOINTS = (
    endpoint("POST", "runs/log-metric", LogMetric, log_metric),
    endpoint("POST", "runs/log-batch", LogBatch, log_batch),
    endpoint("GET", "metrics/get-history", GetHistory, get_history),
    endpoint("GET", "metrics/get-history-bulk", GetBulk, get_bulk),
    endpoint("GET", "metrics/get-history-bulk-interval", GetInterval, get_interval),
)
