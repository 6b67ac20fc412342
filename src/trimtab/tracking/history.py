"""Metrics, as they are read: the history of a key, as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from trimtab.errors import NotFoundError
from trimtab.tracking.metrics import PLAIN
from trimtab.tracking.runs import number_of
from trimtab.tracking.schema import latest_metrics_table as latest
from trimtab.tracking.schema import metric_chunks_table as chunks
from trimtab.tracking.schema import metric_keys_table as metric_keys


class MetricHistory:
    """The points of one metric as three columns of one length, ordered by time, step and value.

    `steps` int64; `times` int64, microseconds since 1970; `values` float64, where NaN comes last.
    """

    __slots__ = ("steps", "times", "values")

    def __init__(
        self, steps: NDArray[np.int64], times: NDArray[np.int64], values: NDArray[np.float64]
    ) -> None:
        self.steps = steps
        self.times = times
        self.values = values

    def __len__(self) -> int:
        return len(self.steps)


def metric_history(
    connection: Connection,
    run_id: str,
    key: str,
    *,
    first_step: int | None = None,
    last_step: int | None = None,
) -> MetricHistory:
    """All points of a metric of a run, or those with steps from `first_step` to `last_step` (both
    included). A point that was logged twice (same step, time and value) counts once, as in MLflow.

    Raises NotFoundError if nothing was logged under this key.
    """
    number = number_of(connection, run_id, writing=False)
    key_number = connection.execute(
        select(latest.c.key)
        .join(metric_keys, metric_keys.c.id == latest.c.key)
        .where(latest.c.run == number, metric_keys.c.name == key)
    ).scalar_one_or_none()
    if key_number is None:
        raise NotFoundError(f"The run {run_id} has no metric '{key}'.")
    query = select(chunks.c.points, chunks.c.encoding, chunks.c.data).where(
        chunks.c.run == number, chunks.c.key == key_number
    )
    if first_step is not None:
        query = query.where(chunks.c.last_step >= first_step)
    if last_step is not None:
        query = query.where(chunks.c.first_step <= last_step)
    steps, times, values = _unpacked(connection.execute(query))
    within = np.ones(len(steps), dtype=bool)
    if first_step is not None:
        within &= steps >= first_step
    if last_step is not None:
        within &= steps <= last_step
    return _distinct(steps[within], times[within], values[within])


def _unpacked(
    rows: Iterable[Sequence[Any]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The columns of all chunks; those with the same number of points are unpacked together."""
    alike: dict[int, list[bytes]] = {}
    for points, encoding, data in rows:
        assert encoding == PLAIN
        alike.setdefault(points, []).append(data)
    integers: list[NDArray[np.int64]] = [np.empty((0, 2), dtype=np.int64)]
    values: list[NDArray[np.float64]] = [np.empty(0)]
    for points, chunk in alike.items():
        data = b"".join(chunk)
        whole = np.frombuffer(data, dtype="<i8").reshape(len(chunk), 3, points)
        integers.append(whole[:, :2].transpose(0, 2, 1).reshape(-1, 2))
        values.append(np.frombuffer(data, dtype="<f8").reshape(len(chunk), 3, points)[:, 2].reshape(-1))
    both = np.concatenate(integers)
    return both[:, 0], both[:, 1], np.concatenate(values)


def _distinct(
    steps: NDArray[np.int64], times: NDArray[np.int64], values: NDArray[np.float64]
) -> MetricHistory:
    order = np.lexsort((values, steps, times))
    steps, times, values = steps[order], times[order], values[order]
    new = np.ones(len(order), dtype=bool)
    same_value = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    new[1:] = (np.diff(steps) != 0) | (np.diff(times) != 0) | ~same_value
    return MetricHistory(steps[new], times[new], values[new])
