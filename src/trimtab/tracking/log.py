"""`trimtab.log`: metrics to the run that is active here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import SupportsFloat

from trimtab.errors import ConflictError
from trimtab.tracking.buffer import MetricBuffer
from trimtab.tracking.plain_call import called_plainly
from trimtab.workspace import Workspace

_active: ContextVar[MetricBuffer | None] = ContextVar("trimtab_active_run", default=None)


def log(
    metrics: Mapping[str, SupportsFloat] | None = None,
    /,
    *,
    step: int | None = None,
    **values: SupportsFloat,
) -> None:
    """Log metrics to the active run: `log(loss=0.3)`, `log({"val/auc": 0.8}, step=epoch)`.

    Returns at once; the values are durable within 100 ms, and when the step or the process ends. Without a
    step, each key counts on from its last one, from 0. NaN and infinities are kept.

    A step that is called as a plain function, in a test say, logs to nowhere. Elsewhere raises ConflictError
    where no run is active; InvalidInputError for what is no number.
    """
    buffer = _active.get()
    if buffer is None and called_plainly.get():
        return
    if buffer is None:
        raise ConflictError(
            "There is no active run to log to.",
            hint="Call log() inside a step of a pipeline that is run by Trimtab, or within "
            "`with trimtab.tracking.log.active_run(workspace, run_id):`. A new thread has no active run: "
            "start it with contextvars.copy_context().run.",
        )
    buffer.take({**metrics, **values} if metrics else values, step)


@contextlib.contextmanager
def active_run(workspace: Workspace, run_id: str) -> Iterator[MetricBuffer]:
    """Make a run the one that `log` logs to, within a `with`; all is durable when that ends."""
    with MetricBuffer(workspace, run_id) as buffer:
        token = _active.set(buffer)
        try:
            yield buffer
        finally:
            _active.reset(token)


def active_run_id() -> str | None:
    """The id of the active run, or None."""
    buffer = _active.get()
    return None if buffer is None else buffer.run_id
