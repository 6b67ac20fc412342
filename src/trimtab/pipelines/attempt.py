"""One node's way through a run: its key, its attempts, and what is recorded of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from trimtab.pipelines.closure import Closure
from trimtab.pipelines.graph import Node
from trimtab.pipelines.pool import Ended
from trimtab.pipelines.step_runs import StepInput, StepRun, StepStatus
from trimtab.pipelines.task import Raised, Reply, Returned
from trimtab.pipelines.values import Stored, digest_of

LOG_LIMIT = 16 * 2**20
"""Bytes of a step's log that are kept: its end."""

LOG_TAIL = 4000
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0


@dataclass
class Work:
    """A node whose inputs are known. `log` gathers the output of all attempts."""

    node: Node
    position: int
    closure: Closure
    cache_key: str
    inputs: dict[str, StepInput]
    log: Path
    started_at: datetime
    attempts: int = 0
    not_before: float = 0.0
    deadline: float | None = None
    timed_out: bool = False
    reply: Reply | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def may_retry(self) -> bool:
        """Whether another attempt is allowed and could end differently."""
        if isinstance(self.reply, Raised) and self.reply.final:
            return False
        return self.attempts <= self.node.step.retries

    def begin(self) -> None:
        """Count an attempt that starts now."""
        step = self.node.step
        self.attempts += 1
        self.reply = None
        self.timed_out = False
        self.began = time.monotonic()
        self.deadline = None if step.timeout is None else self.began + step.timeout
        if self.attempts > 1:
            with self.log.open("a") as log:
                log.write(f"--- attempt {self.attempts} ---\n")

    def pause(self) -> None:
        """Wait before the next attempt, longer each time."""
        self.not_before = time.monotonic() + min(_FIRST_PAUSE * 2 ** (self.attempts - 1), _LONGEST_PAUSE)

    def failure(self, ended: Ended) -> str | None:
        """What went wrong with the attempt that ended, or None if nothing did."""
        if self.timed_out:
            return f"it took longer than {self.node.step.timeout:g} s and was killed"
        if isinstance(self.reply, Raised):
            return f"{self.reply.kind}: {self.reply.message}"
        if self.reply is None:
            reason = f"its process {ended}"
            if ended.signal == 9:
                reason += " (by hand, or by the system for want of memory)"
            return reason
        return None

    def state(
        self,
        run_id: str,
        status: StepStatus,
        *,
        at: datetime | None = None,
        output: Stored | None = None,
        log_digest: str | None = None,
        error: str = "",
    ) -> StepRun:
        """What is recorded of this node now."""
        seconds = None if status == "running" else time.monotonic() - self.began
        if isinstance(self.reply, Returned):
            seconds = self.reply.seconds
        return StepRun(
            run_id=run_id,
            node=self.node.id,
            step=self.node.step.name,
            position=self.position,
            status=status,
            attempts=self.attempts,
            cache_key=self.cache_key,
            inputs=self.inputs,
            output=output,
            output_digest=None if output is None else digest_of(output),
            log_digest=log_digest,
            started_at=self.started_at,
            ended_at=at,
            seconds=0.0 if status == "cached" else seconds,
            error=error,
        )

    def error(self, reason: str) -> str:
        """The message of a step that failed for good."""
        parts = [f"Step '{self.node.id}' failed: {reason}."]
        if self.attempts > 1:
            parts.append(f"It was tried {self.attempts} times.")
        if self.inputs:
            parts.append(
                "Inputs: " + ", ".join(f"{name} = {value}" for name, value in self.inputs.items()) + "."
            )
        tail = self.log_end()
        if tail:
            parts.append(f"Its log ends with:\n{tail}")
        return " ".join(parts)

    def log_end(self) -> str:
        """The last lines of the log."""
        return _last_bytes(self.log, LOG_TAIL).decode(errors="replace").strip()

    def kept_log(self) -> bytes:
        """The log as it is kept; empty if the step wrote nothing."""
        return _last_bytes(self.log, LOG_LIMIT)


def _last_bytes(path: Path, count: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - count))
        data = file.read()
    if size > count:
        _, _, data = data.partition(b"\n")
        return b"... (the beginning is left out)\n" + data
    return data


def imported_modules(work: Iterable[Work]) -> list[str]:
    """The modules that a fork server should import before it makes children for this work."""
    found: deque[str] = deque()
    for item in work:
        found.extend(item.closure.imports)
    return sorted({name for name in found if not name.startswith("trimtab")})


def logs_metrics(closure: Closure) -> bool:
    """Whether code may log metrics to the active run."""
    return bool(closure.whole_project) or any(
        name in {"trimtab", "trimtab.log"} or name.startswith("trimtab.tracking") for name in closure.external
    )
