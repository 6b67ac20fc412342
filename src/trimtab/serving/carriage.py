"""The carriage: a shipper's carrier, started when there is something to bring to the tables."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from trimtab.serving.segments import segments

GRACE_SECONDS = 5.0
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0

_ALLOCATOR = "narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0"
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_CONF": _ALLOCATOR,
    "_RJEM_MALLOC_CONF": _ALLOCATOR,
    "OPENBLAS_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "TOKIO_WORKER_THREADS": "1",
}
"""Threads would only take turns on the little that a carrier does, each with memory of its own; and the
allocator of Polars and Delta Lake keeps what was freed, a third of all, unless it is told not to."""

_log = logging.getLogger(__name__)


class Carriage:
    """Keeps a carrier running while segments stand in the folder that nobody writes to any more."""

    def __init__(self, project: Path, folder: Path) -> None:
        self._command = [sys.executable, "-m", "trimtab.serving.carrier", "--project", str(project)]
        self._folder = folder
        self._carrier: subprocess.Popen[bytes] | None = None
        self._left: frozenset[str] = frozenset()
        self._pause = 0.0
        self._again_at = 0.0

    def tend(self) -> None:
        """Start a carrier if one is needed and none runs; later and later if it leaves what it found."""
        if self._carrier is not None:
            if self._carrier.poll() is None:
                return
            if self._carrier.returncode:
                _log.error("the carrier died (status %s)", self._carrier.returncode)
            self.end()
            left = self._ended()
            stuck = bool(left & self._left)
            self._pause = min(max(2 * self._pause, SHORTEST_PAUSE), LONGEST_PAUSE) if stuck else 0.0
            self._again_at = time.monotonic() + self._pause
        if time.monotonic() < self._again_at:
            return
        self._left = self._ended()
        if self._left:
            # It ends by itself, and when its standard input ends, which tells that we are gone.
            self._carrier = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, env={**os.environ, **ENVIRONMENT}
            )

    def end(self) -> None:
        """Let the carrier finish the segment that it is at, and end."""
        carrier, self._carrier = self._carrier, None
        if carrier is None:
            return
        assert carrier.stdin is not None
        carrier.stdin.close()
        try:
            carrier.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            carrier.kill()
            carrier.wait()

    def _ended(self) -> frozenset[str]:
        return frozenset(segment.id for segment in segments(self._folder) if segment.orphaned())
