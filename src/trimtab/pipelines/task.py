"""A step attempt, as it runs in its own process."""

# ruff: noqa: PLC0415  (a step that reads no dataset and logs nothing opens no workspace: 0.3 s)

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import msgspec

from trimtab.errors import ContractViolationError
from trimtab.pipelines.channel import Channel
from trimtab.pipelines.codecs import load_object
from trimtab.pipelines.source import DataRows
from trimtab.pipelines.step import Step
from trimtab.pipelines.values import Packed, pack, unpack

if TYPE_CHECKING:
    import polars as pl

    from trimtab.workspace import Workspace

ENTRY = "trimtab.pipelines.task:run_step"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a step: the function, its arguments, and where its files go.

    `script` is the file of a function that was defined in a script rather than in a module; `log_metrics`
    says that the code may log metrics, which belong to the run `run_id`.
    """

    module: str
    qualname: str
    script: str | None
    sys_path: tuple[str, ...]
    positional: tuple[Packed, ...]
    keyword: dict[str, Packed]
    folder: str
    run_id: str
    log_metrics: bool
    project: str
    settings: bytes
    actor: str


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """The step returned this value, after so many seconds."""

    value: Packed
    seconds: float


class Raised(msgspec.Struct, frozen=True, tag="raised"):
    """The step raised: the exception's type and text. `final`: trying again would change nothing."""

    kind: str
    message: str
    final: bool


Reply = Returned | Raised


def run_step(channel: Channel, body: bytes, _pool: socket.socket | None) -> None:
    """Run the task in `body` and send the reply."""
    task = msgspec.msgpack.decode(body, type=Task)
    reply: Reply
    try:
        reply = _run(task)
    except Exception as error:  # noqa: BLE001  (whatever the user's code raises is the reply)
        traceback.print_exception(_without_own_frames(error))
        final = isinstance(error, ContractViolationError)
        reply = Raised(type(error).__qualname__, str(error), final)
    channel.send(msgspec.msgpack.encode(reply))


def _run(task: Task) -> Returned:
    sys.path[:] = task.sys_path
    os.environ.update(_environment(task))
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        opened = _Opener(task, stack)
        function = _function(task)
        if task.log_metrics:
            from trimtab.tracking.log import active_run

            stack.enter_context(active_run(opened.workspace(), task.run_id))
        positional = [unpack(value, folder, opened.rows) for value in task.positional]
        keyword = {name: unpack(value, folder, opened.rows) for name, value in task.keyword.items()}
        started = time.perf_counter()
        result = function(*positional, **keyword)
        seconds = time.perf_counter() - started
        return Returned(pack(result, folder), seconds)


def _environment(task: Task) -> dict[str, str]:
    """Variables by which MLflow's client, here or in a process that the step starts, logs to the task's run.

    TRIMTAB_RUN_ID stays when the client has taken up MLFLOW_RUN_ID: that run ends with its pipeline.
    """
    settings = msgspec.json.decode(task.settings, type=dict[str, Any])
    stores = {
        f"TRIMTAB_{name.upper()}": settings[name]
        for name in ("database", "blobs", "tables")
        if settings.get(name) is not None
    }
    return {
        "MLFLOW_TRACKING_URI": f"trimtab://{quote(task.project)}",
        "MLFLOW_RUN_ID": task.run_id,
        "TRIMTAB_RUN_ID": task.run_id,
        "TRIMTAB_ACTOR": task.actor,
        **stores,
    }


class _Opener:
    """Opens the workspace when the first thing needs it."""

    def __init__(self, task: Task, stack: contextlib.ExitStack) -> None:
        self._task = task
        self._stack = stack
        self._workspace: Workspace | None = None

    def workspace(self) -> Workspace:
        """The open workspace."""
        if self._workspace is None:
            from trimtab.pipelines.address import Address

            task = self._task
            self._workspace = self._stack.enter_context(
                Address(task.project, task.settings, task.actor).open()
            )
        return self._workspace

    def rows(self, wanted: DataRows) -> pl.DataFrame:
        """The rows of a dataset, checked against the pipeline's own contract if it has one."""
        from trimtab.data.datasets import Datasets

        found = Datasets(self.workspace()).read(
            wanted.dataset, wanted.version, start=wanted.start, end=wanted.end, part=wanted.part
        )
        if wanted.contract is None:
            return found
        from trimtab.data.contracts import contract_of
        from trimtab.data.violations import ROW, judge, violated

        spec, checks = contract_of(cast("Any", load_object(wanted.contract)))
        judgement = judge(spec, found, checks)
        if judgement.violations:
            raise violated(spec, wanted.dataset, judgement)
        return judgement.good.drop(ROW)


def _function(task: Task) -> Callable[..., object]:
    if task.script is not None and task.module not in sys.modules:
        spec = importlib.util.spec_from_file_location(task.module, task.script)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[task.module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found: object = importlib.import_module(task.module)
    for part in task.qualname.split("."):
        found = getattr(found, part)
    return cast("Callable[..., object]", found.function if isinstance(found, Step) else found)


def _without_own_frames(error: Exception) -> Exception:
    """The exception with the traceback starting at the user's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_own(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return error.with_traceback(trace)


def _is_own(file: str) -> bool:
    return file.startswith(str(Path(__file__).parent))
